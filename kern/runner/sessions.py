"""The methods for stored sessions: list, read, name and delete them, and read their runs and messages.

Each method has a sync form and an async form, whose name begins with `a`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn

from kern._ids import check_given_id, check_text
from kern.db.base import SessionInfo, SessionRow
from kern.errors import StoreError, UsageError
from kern.messages import Message
from kern.run.output import AnyRunOutput, RunStatus
from kern.runner.access import use, wait
from kern.runner.checks import check_limit, check_page
from kern.runner.compile import database_of, state_spec
from kern.runner.definition import Definition
from kern.runner.options import check_id
from kern.runner.session_view import Session
from kern.runner.transcript import transcript_of
from kern.runtime.deleting import delete_session, delete_user
from kern.runtime.following import running_output, running_outputs
from kern.runtime.known_runs import known_run
from kern.runtime.session import LiveSession
from kern.runtime.stored_runs import load_metrics, load_output, load_outputs
from kern.state.codec import decode
from kern.state.state_spec import StateSpec
from kern.usage import Metrics

Output = AnyRunOutput

_PAGE = 100
"""How many rows to read at a time when all runs of a session are read."""


class SessionAccess(Definition):
    """The accessors of sessions and runs of agents and teams; `session_id` and `user_id` as in
    `StateAccess`."""

    __slots__ = ()

    async def aget_session(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> Session[Any] | None:
        """Return the session, or None if it is not stored. A session is stored when its first run ends."""
        async with use(self, session_id, user_id) as session:
            row = await session.db.load_session(session.session_id)
            if row is None:
                return None
            row, state = _with_state(row, session, state_spec(self))

        async def runs(limit: int | None) -> list[Output]:
            check_limit(limit)
            async with use(self, row.session_id, user_id) as session:
                rows = await session.db.load_runs(session.session_id, limit=limit)
                return await load_outputs(session.db, rows)

        return Session(row, state, runs)

    async def alist_sessions(
        self, *, user_id: str | None = None, limit: int = 100, before: int | None = None
    ) -> list[SessionInfo]:
        """List the sessions in this database, without their states, the one with the latest commit first.

        The order is that of commits, and does not depend on clocks.

        Args:
            user_id: Return only this user's sessions. None is trusted code: the sessions of all users.
            limit: The maximum number of sessions to return.
            before: For the next page: the `position` of the last session of this page. A session that is
                used in between moves to the front, and is not listed twice.
        """
        check_id("user_id", user_id)
        check_page(limit, before, int)
        return await database_of(self).list_sessions(user_id=user_id, limit=limit, before=before)

    async def alist_runs(
        self,
        *,
        session_id: str | None = None,
        status: RunStatus | str | None = None,
        user_id: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[Output]:
        """List the stored runs of agents and teams, the newest first, without the runs of team members.

        `list_runs(status="PAUSED")` returns all runs that wait for a person, with their `requirements`. A run
        is stored when it ends or pauses, and keeps its place when it is continued. Status "RUNNING" returns
        the runs with a journal that have begun and not ended, in any process.

        Args:
            session_id: Return only runs of this session. None: of all sessions, not of the default session.
            status: Return only runs with this status.
            user_id: Return only runs in this user's sessions; with `session_id`, the user must own it. None
                is trusted code: the runs of all users.
            limit: The maximum number of runs to return. Runs that cannot be read are logged and left out.
            before: For the next page: the `run_id` of the last run of this page.

        Raises:
            SessionOwnershipError: The session belongs to another user.
            UsageError: The run `before` is not stored, or with status "RUNNING" not in progress, any more.
        """
        check_id("session_id", session_id)
        check_id("user_id", user_id)
        check_page(limit, before, str)
        db, wanted = database_of(self), _status(status)
        if wanted == RunStatus.running.value:
            return await running_outputs(
                db, session_id=session_id, user_id=user_id, limit=limit, before=before
            )
        if session_id is not None:
            async with use(self, session_id, user_id):
                pass  # checks the owner, and waits for the end of runs whose streams were left
        rows = await db.list_runs(
            session_id=session_id, user_id=user_id, status=wanted, limit=limit, before=before
        )
        if before is not None and not rows and await db.load_run(before) is None:
            raise UsageError(
                f"list_runs: before={before!r} is not stored any more; start again from the first page"
            )
        return await load_outputs(db, rows)

    async def aget_run_output(self, run_id: str, *, user_id: str | None = None) -> Output | None:
        """Return the stored output of a run, also of a team member's run, or None.

        A structured answer is read as plain data: `content` is a dict, not an instance of `output_schema`.
        A run with a journal is found as soon as it has begun: until it ends, its status is RUNNING.
        """
        check_given_id("run_id", run_id)
        check_id("user_id", user_id)
        db = database_of(self)
        known = await known_run(db, run_id)
        if known.running is not None:
            known.check_owner(user_id)
            return running_output(known.running)
        row = known.stored
        if row is None:
            return None
        async with use(self, row.session_id, user_id) as session:  # waits for the end of runs that were left
            row = await session.db.load_run(run_id) or row
            return await load_output(session.db, row)

    async def aget_last_run_output(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> Output | None:
        """Return the output of the newest run of the session, without runs of team members, or None."""
        async with use(self, session_id, user_id) as session:
            rows = await session.db.load_runs(session.session_id, limit=1)
            return await load_output(session.db, rows[0]) if rows else None

    async def aget_session_messages(
        self, session_id: str | None = None, *, user_id: str | None = None, limit: int | None = None
    ) -> list[Message]:
        """Return the messages of the newest `limit` runs (None: of all), oldest first, without system
        messages.
        """
        check_limit(limit)
        async with use(self, session_id, user_id) as session:
            rows = await session.db.load_runs(session.session_id, limit=limit)
            outputs = await load_outputs(session.db, rows)
        return [message for output in outputs for message in transcript_of(output).messages()]

    async def aget_chat_history(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> list[Message]:
        """Return the questions and answers of the session, without tool calls, oldest first.

        Each run has one answer message with its `content`, whether the model, a team member or a tool gave
        it. For a run that was cut short, that is the text shown before. Answers that a check refused are left
        out.
        """
        async with use(self, session_id, user_id) as session:
            rows = await session.db.load_runs(session.session_id)
            outputs = await load_outputs(session.db, rows)
        return [message for output in outputs for message in transcript_of(output).chat()]

    async def aget_session_metrics(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> Metrics:
        """Return the total usage of all stored runs of the session, with the runs of team members.

        `duration` is the sum of the runs' durations; `details` splits the counts by model.
        """
        total = Metrics()
        async with use(self, session_id, user_id) as session:
            before: str | None = None
            while rows := await session.db.list_runs(
                session_id=session.session_id, limit=_PAGE, before=before
            ):
                for metrics in load_metrics(rows):
                    total.include(metrics)
                    if metrics.duration is not None:
                        total.duration = (total.duration or 0.0) + metrics.duration
                before = rows[-1].run_id
        return total

    async def adelete_session(
        self, session_id: str | None = None, *, user_id: str | None = None, cancel: bool = False
    ) -> bool:
        """Delete the session with its runs, media and state history. Return False if there is none.

        A run in another process that ends afterwards is not saved: it fails with `SessionDeletedError`.

        Args:
            cancel: Cancel the session's runs in this process, and wait until they have ended.

        Raises:
            RunConflictError: A run of the session is in progress; nothing is deleted.
        """
        async with use(self, session_id, user_id) as session:
            if user_id is not None and not session.exists:
                return False  # it may be stored in a moment, for another user
            return await delete_session(session, cancel=cancel)

    async def adelete_user(self, user_id: str, *, cancel: bool = False) -> int:
        """Delete all sessions of the user in this database, of all agents and teams, in one transaction.

        Args:
            cancel: Cancel the user's runs in this process, and wait until they have ended.

        Returns:
            The number of deleted sessions.

        Raises:
            RunConflictError: A run of the user is in progress; nothing is deleted.
        """
        check_given_id("user_id", user_id)
        return await delete_user(database_of(self), user_id, cancel=cancel)

    async def aset_session_name(
        self, name: str, session_id: str | None = None, *, user_id: str | None = None
    ) -> bool:
        """Set the display name of the session. Return False if there is no such session."""
        check_text("name", name)
        async with use(self, session_id, user_id) as session:
            if user_id is not None and not session.exists:
                return False  # it may be stored in a moment, for another user
            return await session.db.describe_session(session.session_id, name=name)

    async def aget_session_name(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> str | None:
        """Return the display name of the session, or None."""
        async with use(self, session_id, user_id) as session:
            row = await session.db.load_session(session.session_id)
            return row.name if row is not None else None

    # The sync forms.

    def get_session(
        self, session_id: str | None = None, *, user_id: str | None = None
    ) -> Session[Any] | None:
        """See `aget_session`."""
        return wait(lambda: self.aget_session(session_id, user_id=user_id))

    def list_sessions(
        self, *, user_id: str | None = None, limit: int = 100, before: int | None = None
    ) -> list[SessionInfo]:
        """See `alist_sessions`."""
        return wait(lambda: self.alist_sessions(user_id=user_id, limit=limit, before=before))

    def list_runs(
        self,
        *,
        session_id: str | None = None,
        status: RunStatus | str | None = None,
        user_id: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[Output]:
        """See `alist_runs`."""
        return wait(
            lambda: self.alist_runs(
                session_id=session_id, status=status, user_id=user_id, limit=limit, before=before
            )
        )

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

    def get_session_metrics(self, session_id: str | None = None, *, user_id: str | None = None) -> Metrics:
        """See `aget_session_metrics`."""
        return wait(lambda: self.aget_session_metrics(session_id, user_id=user_id))

    def delete_session(
        self, session_id: str | None = None, *, user_id: str | None = None, cancel: bool = False
    ) -> bool:
        """See `adelete_session`."""
        return wait(lambda: self.adelete_session(session_id, user_id=user_id, cancel=cancel))

    def delete_user(self, user_id: str, *, cancel: bool = False) -> int:
        """See `adelete_user`."""
        return wait(lambda: self.adelete_user(user_id, cancel=cancel))

    def set_session_name(
        self, name: str, session_id: str | None = None, *, user_id: str | None = None
    ) -> bool:
        """See `aset_session_name`."""
        return wait(lambda: self.aset_session_name(name, session_id, user_id=user_id))

    def get_session_name(self, session_id: str | None = None, *, user_id: str | None = None) -> str | None:
        """See `aget_session_name`."""
        return wait(lambda: self.aget_session_name(session_id, user_id=user_id))


def _with_state(
    row: SessionRow, session: LiveSession, spec: StateSpec
) -> tuple[SessionRow, Callable[[], Any]]:
    """Return the row with the live revision, and a function that loads the state of that revision."""
    try:
        text, version, revision = session.state.text, session.version, session.state.revision
    except StoreError as error:
        return row, partial(_fail, error)
    return (
        replace(row, revision=revision),
        lambda: spec.state_type.load_tree(spec.upgraded(decode(text), version)),
    )


def _fail(error: StoreError) -> NoReturn:
    raise error


def _status(status: RunStatus | str | None) -> str | None:
    if status is None:
        return None
    try:
        return RunStatus(status).value
    except ValueError:
        known = ", ".join(repr(known.value) for known in RunStatus)
        raise UsageError(f"list_runs: status {status!r} does not exist; the statuses are: {known}") from None
