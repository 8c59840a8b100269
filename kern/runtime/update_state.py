"""`update_session_state(function)`: change a session's state outside runs, in one transaction."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from kern._sync.offload import off_loop
from kern._sync.threads import threads
from kern.errors import UsageError
from kern.runtime.invoke import give_up
from kern.runtime.lifecycle import rows_of
from kern.runtime.return_values import close_unused
from kern.runtime.run_tree import RunTree
from kern.runtime.session import LiveSession
from kern.state.call_state import CallState
from kern.state.enclosing_calls import inside_call
from kern.state.shared_state import Author
from kern.state.state_type import StateType
from kern.state.stepping import step
from kern.state.transaction_block import TransactionBlock
from kern.tools.signature import kind_of

StateFunction = Callable[[Any], Awaitable[None] | None]
"""Gets the session state (a dict, or the typed model), and changes it in place."""

SIGNED = "update_session_state"
"""The author's tool of these changes in the session's history."""


class _Update:
    """Takes the place of a run as the owner of the function's call: nested runs find their session here."""

    def __init__(self, session: LiveSession) -> None:
        self.session = session
        self.enclosed: list[RunTree] = []
        """The runs on this session that the function made: they are a part of the transaction."""


async def update_by(session: LiveSession, state_type: StateType, function: StateFunction) -> None:
    """Call the function with the state, and commit its changes.

    A sync function runs in a thread. Until the function returns, nothing else can change the state.

    Raises:
        UsageError: The function returned a value; nothing is changed.
        Exception: The error of the function; nothing is changed.
    """
    update, author = _Update(session), Author(tool=SIGNED)
    call = CallState(session.state, author, session=session.key, owner=update, state_type=state_type)
    try:
        with inside_call(call):
            await step(call, _called(call, function))
    except BaseException:
        call.end(commit=False)
        raise
    await off_loop(call.size, lambda: call.end(commit=True))
    await session.commit(
        lambda conflicts: [row for tree in update.enclosed for row in rows_of(tree)], author=author
    )


async def update_in(call: CallState, function: StateFunction) -> None:
    """The same inside a call in progress. An error undoes only the changes of the function."""
    call.take()
    async with TransactionBlock(call):
        await _called(call, function)


def update_in_thread(call: CallState, function: StateFunction) -> None:
    """The same inside a call in progress, in the thread of the call.

    Raises:
        UsageError: The function is async.
    """
    call.take()
    with TransactionBlock(call) as state:
        value = function(state)
        if inspect.isawaitable(value):
            close_unused(value)
            raise UsageError(
                "inside a sync tool, update_session_state needs a sync function; for an async function, "
                "await aupdate_session_state in an async tool"
            )
        _check_none(value)


async def _called(call: CallState, function: StateFunction) -> None:
    state = call.read()
    if kind_of(function) == "sync":
        value = await _in_thread(call, lambda: function(state))
    else:
        value = function(state)
    if inspect.isawaitable(value):
        value = await value
    _check_none(value)


async def _in_thread(call: CallState, function: Callable[[], Any]) -> Any:
    def body() -> Any:
        with call.thread():
            return function()

    try:
        return await threads.run(body)
    except asyncio.CancelledError:
        await give_up(call)
        raise


def _check_none(value: Any) -> None:
    if value is not None:
        raise UsageError(
            "the function for update_session_state must change the state in place and return None; it "
            f"returned a {type(value).__name__}, so nothing was changed"
        )
