"""Writes a live state to the database, together with the rows of the run that ends, in one transaction.

`Reconciler` merges the live state with the stored one; `CommitAttempt` finds out if a commit was written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import dropwhile, takewhile
from typing import Any

from pydantic_core import from_json

from kern._sync.lock import FairLock
from kern._sync.offload import LARGE, off_loop
from kern.db.base import ChangeRow, Commit, Committed, Db, RunRow, SessionRow, StateWrite
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
from kern.runtime.busy_watch import BusyDatabase, as_store_error
from kern.runtime.change_rows import change_row
from kern.runtime.debug import log
from kern.runtime.new_summary import NO_SUMMARY, NewSummary
from kern.state.codec import decode, encode
from kern.state.merge import Conflict
from kern.state.patch import apply, diff
from kern.state.shared_state import Author, Change, LiveState, Snapshot, numbered, replayed
from kern.state.state_spec import StateSpec

RowsWithConflicts = Callable[[Sequence[Conflict]], Sequence[RunRow]]
"""Makes the rows of a commit, given the conflicts with changes of other processes."""


class Reconciler:
    """Decides, inside the database transaction, which state a commit writes, given the stored one.

    If the stored state is not the one that this process started from, another process has committed in
    between: the two are merged, with a three-way merge. The log gets one row for each change of this process,
    numbered from the stored revision on. Their patches are made again, so that they lead from the stored
    state to the merged one.

    Args:
        base: The session as this process last saw it stored; version 0 if it was not stored.
        snapshot: The live state.
        version: The version of the state.
        spec: The declaration of the state.
        known: The conflicts so far.
        rows: Makes the rows of the runs again if there are conflicts.
    """

    def __init__(
        self,
        base: SessionRow,
        snapshot: Snapshot,
        version: int,
        spec: StateSpec,
        known: Sequence[Conflict],
        rows: RowsWithConflicts,
    ) -> None:
        self._base = base
        self._taken = snapshot
        self._version = version
        self._spec = spec
        self._known = known
        self._rows = rows
        self.conflicts: Sequence[Conflict] = known
        self.text: bytes = snapshot.text
        """The state that the last call decided to store, as JSON."""

    def __call__(self, stored: SessionRow | None) -> StateWrite:
        """The resolver of the commit; the database may call it again."""
        base, snapshot = self._base, self._taken
        self.text, self.conflicts = snapshot.text, self._known
        changes, version = snapshot.changes, self._version
        if stored is not None and (stored.state, stored.state_version) != (base.state, base.state_version):
            changes = self._merge(stored)
            version = max(version, stored.state_version)
        start = base.revision if stored is None else stored.revision
        rows: list[ChangeRow] = []
        if changes:
            rows = [change_row(base.session_id, change) for change in numbered(changes, start)]
        unchanged = stored is not None and stored.state == self.text and stored.state_version == version
        return StateWrite(
            None if unchanged else self.text,
            start + len(rows),
            version,
            rows,
            self._rows(self.conflicts) if self.conflicts else None,
        )

    def _merge(self, stored: SessionRow) -> list[Change]:
        spec, snapshot = self._spec, self._taken
        start, theirs, ours = decode(self._base.state), decode(stored.state), decode(snapshot.text)
        # Migrations are not edits of this process: apply them to both sides before merging.
        own = list(dropwhile(lambda change: change.automatic, snapshot.changes))
        for change in snapshot.changes[: len(snapshot.changes) - len(own)]:
            start = apply(start, change.patch)
        upgrades = []
        for step in spec.upgrades(theirs, stored.state_version):
            patch = diff(theirs, step.tree)
            upgrades.append(Change(0, patch, Author(tool=step.name), automatic=True))
            theirs = step.tree
        result = spec.merge(start, theirs, ours)
        self.text, merged = encode(result.value)
        self.conflicts = [*self._known, *result.conflicts]
        return upgrades + replayed(own, start, theirs, merged, spec)


_Mark = tuple[float, str | None, str | None, str | None]
"""Identifies a change in the log: time, run id, tool, tool call id."""


@dataclass(slots=True, frozen=True, eq=False)
class CommitAttempt:
    """A commit that is in progress, or whose result is unknown.

    Args:
        base: The session as this process last saw it stored.
        snapshot: The live state to write.
        reconciler: Decides which state is written.
        author: The author of the changes, if no run made them.
        conflicts: How many conflicts were known before.
    """

    commit: Commit
    base: SessionRow
    snapshot: Snapshot
    reconciler: Reconciler
    author: Author | None
    conflicts: int

    @property
    def has_author(self) -> bool:
        """Whether a caller learns if the commit was written: that of a run, or of an update."""
        return self.author is not None or bool(self.commit.runs)

    def owns(self, change: Change) -> bool:
        """Whether the change was made by the runs of this commit, or by its author."""
        runs = {row.run_id for row in self.commit.runs}
        return change.author is self.author or change.author.run_id in runs

    async def is_stored(self, db: Db) -> bool:
        """Whether the commit was written: the stored run has this result, or the log has the changes."""
        if self.commit.runs:
            stored = await db.load_run(self.commit.runs[0].run_id)
            return stored is not None and _same_end(stored, self.commit.runs[0])
        own = {_mark(change) for change in self.snapshot.changes if not change.automatic}
        return bool(own) and not own.isdisjoint(await self._logged(db))

    async def stored_part(self, db: Db) -> Snapshot:
        """Return the part of the snapshot that is stored: the changes up to the first one not in the log."""
        snapshot, logged = self.snapshot, await self._logged(db)
        part = list(takewhile(lambda change: change.automatic or _mark(change) in logged, snapshot.changes))
        if len(part) == len(snapshot.changes):
            return snapshot
        tree = decode(self.base.state)
        for change in part:
            tree = apply(tree, change.patch)
        return Snapshot(encode(tree)[0], snapshot.revision, part)

    async def _logged(self, db: Db) -> set[_Mark]:
        known = self.commit.known
        rows = await db.load_changes(self.commit.session_id, after=0 if known is None else known.revision)
        return {(row.created_at, row.run_id, row.tool, row.tool_call_id) for row in rows}


@dataclass(slots=True)
class Doubt:
    """A commit that may or may not have been written.

    Args:
        since: The attempts that were reported as failed. Their changes are taken back, except those of
            `attempt` if it turns out to be written.
    """

    attempt: CommitAttempt
    since: list[CommitAttempt] = field(default_factory=list)


def _mark(change: Change) -> _Mark:
    author = change.author
    return change.created_at, author.run_id, author.tool, author.tool_call_id


def _same_end(stored: RunRow, row: RunRow) -> bool:
    if (stored.generation, stored.session_id, stored.status) != (row.generation, row.session_id, row.status):
        return False
    try:
        return bool(_without_conflicts(stored) == _without_conflicts(row))
    except (ValueError, AttributeError):  # a damaged row is not this one
        return False


def _without_conflicts(row: RunRow) -> Any:
    data = from_json(row.data)
    data.pop("state_conflicts", None)
    return data


class SavedSession:
    """The live state of a session, and its stored row.

    Args:
        db: The database.
    """

    row: SessionRow
    """The session as this process last saw it stored, or as it would be stored."""
    stored: bool
    """Whether the session is in the database, as far as this process knows."""
    forget: Callable[[], None]
    """Notes that the session is deleted."""

    def __init__(self, db: Db, session_id: str) -> None:
        self.db = db
        self.session_id = session_id
        self.version: int = 0
        """The version of the live state, as counted by the application's migrations."""
        self.summary: NewSummary = NO_SUMMARY
        self._spec: StateSpec
        self._state: LiveState | StoreError
        self._commit_lock = FairLock()
        self._busy_commit: BusyDatabase | None = None
        self._doubt: Doubt | None = None

    @property
    def state(self) -> LiveState:
        """The live state.

        Raises:
            StoreError: The stored state cannot be read. The session's runs can, and it can be deleted.
        """
        if isinstance(self._state, StoreError):
            raise self._state
        return self._state

    @property
    def commits_at_once(self) -> bool:
        """Whether a commit never waits, except for other commits of the session: it writes to a dict."""
        if type(self.db) is not InMemoryDb:
            return False
        return isinstance(self._state, LiveState) and len(self._state.text) < LARGE

    async def commit(
        self,
        rows: RowsWithConflicts,
        *,
        author: Author | None = None,
        unsaved: Callable[[bytes], None] = lambda text: None,
        claim: RunClaim | None = None,
    ) -> Sequence[Conflict]:
        """Write the live state and the rows of runs, in one transaction.

        If the commit fails, its changes are taken back from the live state.

        Args:
            rows: Makes the rows of the runs.
            author: The author of the changes, if no run made them.
            unsaved: Called with the live state, as JSON, before the changes are taken back.
            claim: The claim to the run, if it has a journal.

        Returns:
            The conflicts: values that another process had changed, too. This process's values were kept.

        Raises:
            StoreError: The commit was not written, or it is unknown whether it was; the message says which.
            SessionDeletedError: The session was deleted; nothing is written.
            InvalidStateError: The merge with another process's state does not fit; nothing is written.
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
                committed = await self._after_failure(attempt, as_store_error(self.db, error))
            except BaseException:  # `asyncio.run` cancels all tasks at its end: the caller commits again
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
            summary=self.summary.text,
            summary_bases=self.summary.bases,
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
        """Return what was written, if only the database's response was lost; otherwise take the changes back.

        Raises:
            Exception: The error, or one that says that the result of the commit is unknown.
        """
        doubt = self._doubt
        if isinstance(error, SessionDeletedError):
            self.forget()
        elif doubt is not None:  # the result of an earlier commit is still unknown
            doubt.since.append(attempt)
        elif not attempt.has_author:
            self._doubt = Doubt(attempt)
        elif not isinstance(error, SessionOwnershipError | InvalidStateError | RunLostError):
            try:
                if await attempt.is_stored(self.db):
                    row = await self.db.load_session(self.session_id)
                    if row is not None:
                        return Committed(row, repeated=True)
            except Exception as silent:  # noqa: BLE001 - raised below
                self._doubt = Doubt(attempt, [attempt])
                self.summary.undo(attempt.commit.runs)
                unknown = f"{error}; it is unknown whether the commit was written: {silent}"
                raise StoreError(unknown) from error
        self.summary.undo(attempt.commit.runs)
        if self._doubt is None:
            await self._take_back(attempt)
        raise error

    async def _clear_doubt(self, doubt: Doubt) -> None:
        """Find out whether a commit with an unknown result was written."""
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
        """Note that the database has the changes of the attempt, and maybe later ones."""
        row = committed.row
        snapshot, text = attempt.snapshot, attempt.reconciler.text
        if committed.repeated:
            snapshot, text = await attempt.stored_part(self.db), row.state
        self.row, self.version, self.stored = row, row.state_version, True
        if self.summary.text is not None:
            self.summary.written(attempt.commit.summary)
        state = self.state
        if text == snapshot.text or len(text) < LARGE:
            state.mark_stored(snapshot, text, row.revision)
        else:
            await off_loop(len(text), lambda: state.mark_stored(snapshot, text, row.revision))
        del state.conflicts[: attempt.conflicts]
