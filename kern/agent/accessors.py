"""What programs ask of a session beside running it: state, runs, messages, name.

Each has a sync face and an `a` form; both are one line over one implementation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from pydantic_core import from_json

from kern.agent.definition import Definition
from kern.db.base import SessionRow
from kern.errors import UsageError
from kern.messages import Message
from kern.run.output import RunOutput, TeamRunOutput, output_from_dict
from kern.runtime.portal import portal
from kern.runtime.session import ANY_USER, LiveSession, live_sessions
from kern.state.call import CallState, enclosing_call
from kern.state.codec import decode, encode
from kern.state.scope import Writer

T = TypeVar("T")
Output = RunOutput | TeamRunOutput


class SessionAccess(Definition):
    """The accessors, for agents and teams alike.

    `session_id` None means the default session (of `user_id`, where that is given). A `user_id` that is given
    must be the owner's, otherwise `SessionOwnershipError`; None is trusted code, and not checked.
    """

    __slots__ = ()

    # State.

    async def aget_session_state(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> dict[str, Any]:
        """The last committed state; of a session that does not exist yet, what it would start from."""
        async with self._use(session_id, user_id) as session:
            return decode(session.state.text)

    async def aupdate_session_state(
        self, updates: Mapping[str, Any], session_id: str | None = None, *, user_id: str | None = None
    ) -> dict[str, Any]:
        """Set the keys of `updates`, write the session to the database, and return the new state.

        Creates the session if there is none. Inside a tool of that session it works in its transaction.

        Raises:
            InvalidStateError: A value is not JSON; nothing is changed.
        """
        call = self._own_call(session_id, user_id)
        if call is not None:
            return _update_in_call(call, updates)
        async with self._use(session_id, user_id, create=True) as session:
            edit = CallState(session.state, Writer(tool="update_session_state"), session=session.key)
            async with edit.transaction() as state:
                state.update(updates)
            await session.commit(lambda conflicts: [])
            return decode(session.state.text)

    # Sessions and runs.

    async def aget_session(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> SessionRow | None:
        """The session as it is stored, or None."""
        async with self._use(session_id, user_id) as session:
            return await session.db.load_session(session.session_id)

    async def aget_run_output(self, run_id: str, *, user_id: str | None = None) -> Output | None:
        """A run as it is stored, a member's too, or None."""
        row = await self.database().load_run(run_id)
        if row is None:
            return None
        async with self._use(row.session_id, user_id):
            return output_from_dict(from_json(row.data))

    async def aget_last_run_output(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> Output | None:
        """The newest run of the session that the application started, or None."""
        async with self._use(session_id, user_id) as session:
            rows = await session.db.load_runs(session.session_id, limit=1)
            return output_from_dict(from_json(rows[0].data)) if rows else None

    async def aget_session_messages(
        self, session_id: str | None = None, *, user_id: str | None = None, limit: int | None = None
    ) -> list[Message]:
        """What was said in the newest `limit` runs (None: all), oldest first, without system messages."""
        async with self._use(session_id, user_id) as session:
            rows = await session.db.load_runs(session.session_id, limit=limit)
        outputs = [output_from_dict(from_json(row.data)) for row in rows]
        return [
            message
            for output in outputs
            for message in output.messages
            if message.role not in ("system", "developer")
        ]

    async def aget_chat_history(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> list[Message]:
        """What was said between user and answer, tool calls left out, oldest first."""
        messages = await self.aget_session_messages(session_id, user_id=user_id)
        return [
            message
            for message in messages
            if message.role == "user" or (message.role == "assistant" and message.content)
        ]

    async def adelete_session(self, session_id: str | None = None, *, user_id: str | None = None) -> bool:
        """Delete the session with all its runs; False if there is none.

        Raises:
            UsageError: A run of the session is going on.
        """
        async with self._use(session_id, user_id) as session:
            if session.busy:
                raise UsageError(f"session {session.session_id!r} has a run that goes on; cancel it first")
            return await session.db.delete_session(session.session_id)

    async def aset_session_name(
        self, name: str, session_id: str | None = None, *, user_id: str | None = None
    ) -> bool:
        """Give the session a name for people; False if there is no such session."""
        async with self._use(session_id, user_id) as session:
            return await session.db.describe_session(session.session_id, name=name)

    async def aget_session_name(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> str | None:
        """The session's name for people, or None."""
        row = await self.aget_session(session_id, user_id=user_id)
        return row.name if row is not None else None

    # The sync faces.

    def get_session_state(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> dict[str, Any]:
        """See `aget_session_state`."""
        return _wait(lambda: self.aget_session_state(session_id, user_id=user_id))

    def update_session_state(
        self, updates: Mapping[str, Any], session_id: str | None = None, *, user_id: str | None = None
    ) -> dict[str, Any]:
        """See `aupdate_session_state`."""
        call = self._own_call(session_id, user_id)
        if call is not None:  # in this thread, whose call it is
            return _update_in_call(call, updates)
        return _wait(lambda: self.aupdate_session_state(updates, session_id, user_id=user_id))

    def get_session(self, session_id: str | None = None, *, user_id: str | None = None) -> SessionRow | None:
        """See `aget_session`."""
        return _wait(lambda: self.aget_session(session_id, user_id=user_id))

    def get_run_output(self, run_id: str, *, user_id: str | None = None) -> Output | None:
        """See `aget_run_output`."""
        return _wait(lambda: self.aget_run_output(run_id, user_id=user_id))

    def get_last_run_output(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> Output | None:
        """See `aget_last_run_output`."""
        return _wait(lambda: self.aget_last_run_output(session_id, user_id=user_id))

    def get_session_messages(
        self, session_id: str | None = None, *, user_id: str | None = None, limit: int | None = None
    ) -> list[Message]:
        """See `aget_session_messages`."""
        return _wait(lambda: self.aget_session_messages(session_id, user_id=user_id, limit=limit))

    def get_chat_history(self, session_id: str | None = None, *, user_id: str | None = None) -> list[Message]:
        """See `aget_chat_history`."""
        return _wait(lambda: self.aget_chat_history(session_id, user_id=user_id))

    def delete_session(self, session_id: str | None = None, *, user_id: str | None = None) -> bool:
        """See `adelete_session`."""
        return _wait(lambda: self.adelete_session(session_id, user_id=user_id))

    def set_session_name(
        self, name: str, session_id: str | None = None, *, user_id: str | None = None
    ) -> bool:
        """See `aset_session_name`."""
        return _wait(lambda: self.aset_session_name(name, session_id, user_id=user_id))

    def get_session_name(self, session_id: str | None = None, *, user_id: str | None = None) -> str | None:
        """See `aget_session_name`."""
        return _wait(lambda: self.aget_session_name(session_id, user_id=user_id))

    # Below the faces.

    def _use(
        self, session_id: str | None, user_id: str | None, *, create: bool = False
    ) -> AbstractAsyncContextManager[LiveSession]:
        owner = user_id if user_id is not None else self.user_id
        chosen = session_id or self.default_session_id(owner)
        claimed = owner if create and user_id is None else user_id
        return live_sessions.use(
            self.database(),
            chosen,
            spec=self.state_spec(),
            user_id=ANY_USER if user_id is None else user_id,
            owner=claimed,
        )

    def _own_call(self, session_id: str | None, user_id: str | None) -> CallState | None:
        """The call that this code belongs to, if it is one of the session's."""
        chosen = session_id or self.default_session_id(user_id if user_id is not None else self.user_id)
        return enclosing_call((self.database().identity, chosen))


def _update_in_call(call: CallState, updates: Mapping[str, Any]) -> dict[str, Any]:
    state = call.read()
    state.update(updates)
    return decode(encode(call.edited())[0])


def _wait(function: Callable[[], Awaitable[T]]) -> T:
    return portal.call(function)
