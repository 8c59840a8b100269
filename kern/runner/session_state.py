"""The methods for the session state outside runs: read it, change it, its history, and a fork of it.

Each method has a sync form and an async form, whose name begins with `a`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

from kern._ids import check_text
from kern._numbers import MOST, check_whole
from kern._sync.threads import own_threads
from kern.db.base import Commit, StateWrite
from kern.errors import UsageError
from kern.runner.access import own_call, use, wait
from kern.runner.compile import state_spec
from kern.runner.definition import Definition
from kern.runtime.session import LiveSession
from kern.runtime.update_state import SIGNED, StateFunction, update_by, update_in, update_in_thread
from kern.state.call_state import CallState
from kern.state.codec import decode, encode
from kern.state.history import HistoryEntry, entries, first_known, state_at, unknown_revision, version_at
from kern.state.merge import policy_path
from kern.state.shared_state import Author, Change, Snapshot
from kern.state.transaction_block import TransactionBlock


class StateAccess(Definition):
    """The accessors of the session state of agents and teams.

    `session_id=None` means the default session, of `user_id` if that is given. A `user_id` must be the owner
    of the session, or `SessionOwnershipError` is raised. None is trusted code: no check.

    The state that these methods return is JSON, also for a typed state: `MyState.model_validate(state)` makes
    a model of it (with `by_name=True` if fields have aliases).
    """

    __slots__ = ()

    async def aget_session_state(
        self, session_id: str | None = None, *, revision: int | None = None, user_id: str | None = None
    ) -> dict[str, Any]:
        """Return the last committed state, or the initial state if the session does not exist yet.

        Args:
            revision: Return the state after this number of commits; 0 is the initial state.

        Raises:
            UsageError: The session has no such revision; the message says which ones it has.
            InvalidStateError: The stored state does not fit the declared type.
        """
        async with use(self, session_id, user_id) as session:
            if revision is None:
                return state_spec(self).upgraded(decode(session.state.text), session.version)
            state, _ = await _past(session, revision)
            return state

    async def aupdate_session_state(
        self,
        updates: Mapping[str, Any] | StateFunction,
        session_id: str | None = None,
        *,
        user_id: str | None = None,
    ) -> dict[str, Any]:
        """Change the session state, write the session to the database, and return the new state.

        Creates the session if there is none. Inside a tool of the same session, the change is part of the
        tool's transaction.

        Args:
            updates: The top-level keys to set; or a function that gets the state, as a tool does, and changes
                it in place. Until the function returns, nothing else can change the state. It may be async; a
                sync function runs in a thread. If it raises, its changes are undone and the error is raised
                here.

        Raises:
            InvalidStateError: A value is not JSON, or does not fit a typed state; nothing is changed.
        """
        call = own_call(self, session_id, user_id)
        if call is not None:
            if callable(updates):
                await update_in(call, updates)
                return _edited(call)
            return _update_in_call(call, updates)
        spec = state_spec(self)
        async with use(self, session_id, user_id, create=True) as session:
            await session.migrate(spec)
            if callable(updates):
                await update_by(session, spec.state_type, updates)
                return decode(session.state.text)
            author = Author(tool=SIGNED)
            edit = CallState(session.state, author, session=session.key, state_type=spec.state_type)
            async with TransactionBlock(edit) as state:
                spec.state_type.update(state, updates)
            await session.commit(lambda conflicts: [], author=author)
            return decode(session.state.text)

    async def asession_state_history(
        self, session_id: str | None = None, path: str = "", *, user_id: str | None = None
    ) -> list[HistoryEntry]:
        """Return the commits that changed the value at `path`, with their authors, oldest first.

        Commits of a run in progress are included. Reads the whole log of the session.

        Args:
            path: A top-level key ("count"), a dotted path ("cart.total") or a JSON Pointer ("/cart/items/0");
                "" is the whole state: all commits.
        """
        check_text("path", path)
        pointer = policy_path(path) if path else ""
        async with use(self, session_id, user_id) as session:
            snapshot, changes = await session.log()
            return await own_threads.run(lambda: entries(decode(snapshot.text), changes, pointer))

    async def afork_session(
        self, session_id: str | None = None, revision: int | None = None, *, user_id: str | None = None
    ) -> str:
        """Make a new session that starts from the state of this one, and return its id.

        Only the state is copied. The new session has the same owner, no runs, and its own history.

        Args:
            revision: The revision of the state to start from; None: the last committed one.

        Raises:
            UsageError: There is no such session, or no such revision of it.
        """
        async with use(self, session_id, user_id) as session:
            if not session.stored and not session.busy:
                raise UsageError(f"there is no session {session.session_id!r} to fork")
            if revision is None:
                text, version = session.state.text, session.version
            else:
                state, changes = await _past(session, revision)
                text, version = encode(state)[0], version_at(session.version, changes)
            fork = str(uuid.uuid4())
            await session.db.commit(
                Commit(
                    session_id=fork,
                    user_id=session.row.user_id,
                    resolve=lambda stored: StateWrite(text, 0, version),
                    now=time.time(),
                )
            )
            return fork

    # The sync forms.

    def get_session_state(
        self, session_id: str | None = None, *, revision: int | None = None, user_id: str | None = None
    ) -> dict[str, Any]:
        """See `aget_session_state`."""
        return wait(lambda: self.aget_session_state(session_id, revision=revision, user_id=user_id))

    def update_session_state(
        self,
        updates: Mapping[str, Any] | StateFunction,
        session_id: str | None = None,
        *,
        user_id: str | None = None,
    ) -> dict[str, Any]:
        """See `aupdate_session_state`."""
        call = own_call(self, session_id, user_id)
        if call is None:
            return wait(lambda: self.aupdate_session_state(updates, session_id, user_id=user_id))
        if callable(updates):  # in this thread, which belongs to the call
            update_in_thread(call, updates)
            return _edited(call)
        return _update_in_call(call, updates)

    def session_state_history(
        self, session_id: str | None = None, path: str = "", *, user_id: str | None = None
    ) -> list[HistoryEntry]:
        """See `asession_state_history`."""
        return wait(lambda: self.asession_state_history(session_id, path, user_id=user_id))

    def fork_session(
        self, session_id: str | None = None, revision: int | None = None, *, user_id: str | None = None
    ) -> str:
        """See `afork_session`."""
        return wait(lambda: self.afork_session(session_id, revision, user_id=user_id))


async def _past(session: LiveSession, revision: int) -> tuple[dict[str, Any], list[Change]]:
    """Return the state at a revision, and the changes since."""
    check_whole("revision", revision, 0, MOST)
    snapshot, changes = await session.log(after=revision)
    if not first_known(changes, snapshot.revision) <= revision <= snapshot.revision:
        snapshot, changes = await session.log()
        first = first_known(changes, snapshot.revision)
        raise unknown_revision(session.session_id, revision, first, snapshot.revision)
    state = await own_threads.run(partial(_undone, snapshot, changes, revision))
    return state, changes


def _undone(snapshot: Snapshot, changes: list[Change], revision: int) -> dict[str, Any]:
    state: dict[str, Any] = state_at(decode(snapshot.text), changes, revision)
    return decode(encode(state)[0])


def _update_in_call(call: CallState, updates: Mapping[str, Any]) -> dict[str, Any]:
    call.state_type.update(call.take().copy, updates)
    return _edited(call)


def _edited(call: CallState) -> dict[str, Any]:
    return decode(encode(call.take().edited())[0])
