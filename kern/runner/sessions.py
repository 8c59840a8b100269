"""What programs ask of a session beside its state and running it: runs, messages, name.

Each has a sync face and an `a` form; both are one line over one implementation.
"""

from __future__ import annotations

from kern.db.base import SessionRow
from kern.errors import RunConflictError
from kern.messages import Message
from kern.run.output import RunOutput, TeamRunOutput
from kern.runner.access import use, wait
from kern.runner.definition import Definition, database_of
from kern.runner.recalled import recalled
from kern.runtime.stored import load_output, load_outputs

Output = RunOutput | TeamRunOutput


class SessionAccess(Definition):
    """The accessors of sessions and runs, for agents and teams alike; ids and users as in `StateAccess`."""

    __slots__ = ()

    async def aget_session(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> SessionRow | None:
        """The session as it is stored, or None."""
        async with use(self, session_id, user_id) as session:
            return await session.db.load_session(session.session_id)

    async def aget_run_output(self, run_id: str, *, user_id: str | None = None) -> Output | None:
        """A run as it is stored, a member's too, or None."""
        row = await database_of(self).load_run(run_id)
        if row is None:
            return None
        async with use(self, row.session_id, user_id) as session:  # whose runs that were left are over then
            row = await session.db.load_run(run_id) or row
            return await load_output(session.db, row)

    async def aget_last_run_output(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> Output | None:
        """The newest run of the session that the application started, or None."""
        async with use(self, session_id, user_id) as session:
            rows = await session.db.load_runs(session.session_id, limit=1)
            return await load_output(session.db, rows[0]) if rows else None

    async def aget_session_messages(
        self, session_id: str | None = None, *, user_id: str | None = None, limit: int | None = None
    ) -> list[Message]:
        """What was said in the newest `limit` runs (None: all), oldest first, without system messages."""
        async with use(self, session_id, user_id) as session:
            rows = await session.db.load_runs(session.session_id, limit=limit)
            outputs = await load_outputs(session.db, rows)
        return [message for output in outputs for message in recalled(output).messages()]

    async def aget_chat_history(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> list[Message]:
        """What was said between user and answer, tool calls left out, oldest first.

        Each run has one message of the answer, its `content`, whoever gave it: the model, a member, a tool.
        Of a run that was cut short that is the text that was shown; what a check refused is left out.
        """
        async with use(self, session_id, user_id) as session:
            rows = await session.db.load_runs(session.session_id)
            outputs = await load_outputs(session.db, rows)
        return [message for output in outputs for message in recalled(output).chat()]

    async def adelete_session(self, session_id: str | None = None, *, user_id: str | None = None) -> bool:
        """Delete the session with all its runs; False if there is none.

        Raises:
            RunConflictError: A run of the session is going on.
        """
        async with use(self, session_id, user_id) as session:
            if session.busy:
                raise RunConflictError(
                    f"session {session.session_id!r} has a run that goes on; cancel it first"
                )
            session.forget()  # who comes from now on finds what is stored then; who has it learns it
            return await session.db.delete_session(session.session_id)

    async def aset_session_name(
        self, name: str, session_id: str | None = None, *, user_id: str | None = None
    ) -> bool:
        """Give the session a name for people; False if there is no such session."""
        async with use(self, session_id, user_id) as session:
            return await session.db.describe_session(session.session_id, name=name)

    async def aget_session_name(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> str | None:
        """The session's name for people, or None."""
        row = await self.aget_session(session_id, user_id=user_id)
        return row.name if row is not None else None

    # The sync faces.

    def get_session(self, session_id: str | None = None, *, user_id: str | None = None) -> SessionRow | None:
        """See `aget_session`."""
        return wait(lambda: self.aget_session(session_id, user_id=user_id))

    def get_run_output(self, run_id: str, *, user_id: str | None = None) -> Output | None:
        """See `aget_run_output`."""
        return wait(lambda: self.aget_run_output(run_id, user_id=user_id))

    def get_last_run_output(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> Output | None:
        """See `aget_last_run_output`."""
        return wait(lambda: self.aget_last_run_output(session_id, user_id=user_id))

    def get_session_messages(
        self, session_id: str | None = None, *, user_id: str | None = None, limit: int | None = None
    ) -> list[Message]:
        """See `aget_session_messages`."""
        return wait(lambda: self.aget_session_messages(session_id, user_id=user_id, limit=limit))

    def get_chat_history(self, session_id: str | None = None, *, user_id: str | None = None) -> list[Message]:
        """See `aget_chat_history`."""
        return wait(lambda: self.aget_chat_history(session_id, user_id=user_id))

    def delete_session(self, session_id: str | None = None, *, user_id: str | None = None) -> bool:
        """See `adelete_session`."""
        return wait(lambda: self.adelete_session(session_id, user_id=user_id))

    def set_session_name(
        self, name: str, session_id: str | None = None, *, user_id: str | None = None
    ) -> bool:
        """See `aset_session_name`."""
        return wait(lambda: self.aset_session_name(name, session_id, user_id=user_id))

    def get_session_name(self, session_id: str | None = None, *, user_id: str | None = None) -> str | None:
        """See `aget_session_name`."""
        return wait(lambda: self.aget_session_name(session_id, user_id=user_id))
