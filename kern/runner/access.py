"""Access to the session that a method of an agent or team refers to, and to its live state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeVar

from kern._traceback import ShortTraceback
from kern.errors import SessionOwnershipError
from kern.runner.compile import database_of, state_spec
from kern.runner.definition import Definition, default_session
from kern.runner.options import check_id
from kern.runtime.portal import portal
from kern.runtime.session import ANY_USER, LiveSession, live_sessions
from kern.state.call_state import CallState
from kern.state.enclosing_calls import enclosing_calls

T = TypeVar("T")


def use(
    definition: Definition, session_id: str | None, user_id: str | None, *, create: bool = False
) -> AbstractAsyncContextManager[LiveSession]:
    """Return a context manager that keeps the live session in use.

    Args:
        session_id: None: the default session, of `user_id` if that is given.
        user_id: Must be the owner. None is trusted code: no check.
        create: Create the session if there is none.

    Raises:
        SessionOwnershipError: The session belongs to another user; raised on entry.
    """
    check_id("session_id", session_id)
    check_id("user_id", user_id)
    owner = user_id if user_id is not None else definition.user_id
    return live_sessions.use(
        database_of(definition),
        session_id or default_session(definition, owner),
        spec=state_spec(definition),
        user_id=ANY_USER if user_id is None else user_id,
        owner=owner if create and user_id is None else user_id,
        creates=create,
    )


def own_call(definition: Definition, session_id: str | None, user_id: str | None) -> CallState | None:
    """Return the tool call that the calling code belongs to, if it is a call in this session, or None.

    Raises:
        SessionOwnershipError: The session belongs to another user.
    """
    check_id("session_id", session_id)
    check_id("user_id", user_id)
    owner = user_id if user_id is not None else definition.user_id
    chosen = session_id or default_session(definition, owner)
    call = enclosing_calls.get().get((database_of(definition).identity, chosen))
    if call is not None and user_id is not None and user_id != call.owner.session.row.user_id:
        raise SessionOwnershipError(chosen)
    return call


def wait(function: Callable[[], Awaitable[T]]) -> T:
    """Await `function()` for a sync method."""
    with ShortTraceback():
        return portal.call(function)
