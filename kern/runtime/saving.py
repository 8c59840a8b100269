"""How a live state gets into the database: with the rows of the run that ends, once, or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from kern._sync.lock import FairLock
from kern._sync.offload import LARGE, off_loop
from kern.db.base import Commit, Committed, Db, SessionRow
from kern.db.in_memory import InMemoryDb
from kern.db.journals import RunClaim
from kern.errors import (
    InvalidStateError,
    RunLostError,
    SessionDeletedError,
    SessionOwnershipError,
    StoreBusyError,
    StoreError,
)
from kern.runtime.busy_watch import BusyDatabase
from kern.runtime.commit_attempt import CommitAttempt, Doubt
from kern.runtime.debug import log
from kern.runtime.reconcile import Reconciler, RowsWithConflicts
from kern.state.merge import Conflict
from kern.state.shared_state import Author, LiveState
from kern.state.state_spec import StateSpec


class SavedSession:
    """A session's live state, and the session as it is stored.

    Args:
        db: Where it is kept.
    """

    row: SessionRow
    """The session as this process last saw it stored, or what it would be stored as."""
    stored: bool
    """There is such a session in the database, as far as this process knows."""
    forget: Callable[[], None]
    """Called when the session turns out to be deleted."""

    def __init__(self, db: Db, session_id: str) -> None:
        self.db = db
        self.session_id = session_id
        self.version: int = 0
        """The version of the live state, in the count of the application's migrations."""
        self.summary: str | None = None
        """A new summary, to be written with the next commit."""
        self._spec: StateSpec
        self._state: LiveState | StoreError
        self._commit_lock = FairLock()
        self._busy_commit: BusyDatabase | None = None
        self._doubt: Doubt | None = None

    @property
    def state(self) -> LiveState:
        """The live state.

        Raises:
            StoreError: What is stored is none; the rest of the session can be read, and all of it deleted.
        """
        if isinstance(self._state, StoreError):
            raise self._state
        return self._state

    @property
    def commits_at_once(self) -> bool:
        """A commit waits for nothing: a dict is written, and no other commit is on its way."""
        if type(self.db) is not InMemoryDb:
            return False
        return (
            isinstance(self._state, LiveState)
            and len(self._state.text) < LARGE
            and not self._commit_lock.held
        )

    async def commit(
        self,
        rows: RowsWithConflicts,
        *,
        author: Author | None = None,
        unsaved: Callable[[bytes], None] = lambda text: None,
        claim: RunClaim | None = None,
    ) -> Sequence[Conflict]:
        """Write the live state as it is now, and the runs' rows, in one transaction.

        Returns where another process had changed the same values; this one's were kept. What is not saved is
        not kept either: the changes of a commit that fails are taken back from the live state.

        Args:
            rows: Makes the runs' rows.
            author: Who made the changes, if no run did.
            unsaved: Called with the state as it was, before the changes are taken back.
            claim: The claim to the run, if it has a journal.

        Raises:
            StoreError: It is not saved; or, as the message says then, it is not known whether it is.
            SessionDeletedError: There is no such session any more; nothing is written.
            InvalidStateError: It cannot be merged with what another process has written; nothing is.
        """
        asked = time.monotonic()
        if not self._commit_lock.try_acquire():
            await self._commit_lock.acquire()
        try:
            attempt = None
            try:
                if self._doubt is not None:
                    await self._clear_doubt(self._doubt)
                attempt = self._attempt(rows, author, claim)
                committed = await self._write(attempt, asked)
            except Exception as error:  # noqa: BLE001 - raised again, unless only the answer was lost
                unsaved(self.state.text)
                attempt = attempt or self._attempt(rows, author, claim)
                committed = await self._after_failure(attempt, error)
            except BaseException:  # `asyncio.run` cancels all at its end; a run's end is then written again
                if self._doubt is None and attempt is not None:
                    self._doubt = Doubt(attempt)
                raise
            await self._note(attempt, committed)
        finally:
            self._commit_lock.release()
        conflicts = () if committed.repeated else attempt.reconciler.conflicts
        for conflict in conflicts:
            log.warning("session %s: conflict at %s, ours kept", self.session_id, conflict.path or "the root")
        return conflicts

    def _attempt(
        self, rows: RowsWithConflicts, author: Author | None, claim: RunClaim | None
    ) -> CommitAttempt:
        state = self.state
        snapshot, known = state.snapshot(), list(state.conflicts)
        reconciler = Reconciler(self.row, snapshot, self.version, self._spec, known, rows)
        commit = Commit(
            session_id=self.session_id,
            user_id=self.row.user_id,
            resolve=reconciler,
            runs=rows(known),
            summary=self.summary,
            known=self.row if self.stored else None,
            claim=claim,
            now=time.time(),
        )
        return CommitAttempt(commit, self.row, snapshot, reconciler, author, len(known))

    async def _write(self, attempt: CommitAttempt, asked: float) -> Committed:
        if self._busy_commit is not None:
            self._busy_commit.check(asked)
        began = time.monotonic()
        try:
            committed = await self.db.commit(attempt.commit)
        except StoreBusyError as error:
            self._busy_commit = BusyDatabase(began, error)
            raise
        self._busy_commit = None
        if committed.repeated and attempt.commit.runs and not await attempt.is_stored(self.db):
            raise StoreError(
                f"run id {attempt.commit.runs[0].run_id!r} is already stored, with another result; "
                "this run was not saved"
            )
        return committed

    async def _after_failure(self, attempt: CommitAttempt, error: Exception) -> Committed:
        """What was written all the same, since only the answer was lost; else the changes are taken back.

        Raises:
            Exception: The error; or one that says that it cannot be found out.
        """
        doubt = self._doubt
        if isinstance(error, SessionDeletedError):
            self.forget()
        elif doubt is not None:  # the database does not say what became of a commit before this one
            doubt.since.append(attempt)
        elif not attempt.has_author:
            self._doubt = Doubt(attempt)
        elif not isinstance(error, SessionOwnershipError | InvalidStateError | RunLostError):
            try:
                if await attempt.is_stored(self.db):
                    row = await self.db.load_session(self.session_id)
                    if row is not None:
                        return Committed(row, repeated=True)
            except StoreError as silent:
                self._doubt = Doubt(attempt, [attempt])
                self.summary = None
                raise StoreError(
                    f"{error}; it is unknown whether the commit was written: {silent}"
                ) from error
        self.summary = None
        if self._doubt is None:
            await self._take_back(attempt)
        raise error

    async def _clear_doubt(self, doubt: Doubt) -> None:
        """Find out whether a commit whose end is not known was written."""
        gone = list(doubt.since)
        if await doubt.attempt.is_stored(self.db):
            row = await self.db.load_session(self.session_id)
            if row is not None:
                await self._note(doubt.attempt, Committed(row, repeated=True))
                gone = [attempt for attempt in gone if attempt is not doubt.attempt]
        self._doubt = None
        for attempt in gone:
            await self._take_back(attempt)

    async def _take_back(self, attempt: CommitAttempt) -> None:
        row, size = self.row, len(self.state.text)
        await off_loop(size, lambda: self.state.take_back(row.state, row.revision, attempt.owns))

    async def _note(self, attempt: CommitAttempt, committed: Committed) -> None:
        """The database has the changes of the attempt, and maybe more by now."""
        row = committed.row
        snapshot, text = attempt.snapshot, attempt.reconciler.text
        if committed.repeated:
            snapshot, text = await attempt.stored_part(self.db), row.state
        self.row, self.version, self.stored = row, row.state_version, True
        if self.summary == row.summary:
            self.summary = None
        state = self.state
        if text == snapshot.text or len(text) < LARGE:
            state.mark_stored(snapshot, text, row.revision)
        else:
            await off_loop(len(text), lambda: state.mark_stored(snapshot, text, row.revision))
        del state.conflicts[: attempt.conflicts]
