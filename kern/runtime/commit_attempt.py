"""One attempt to save a session, and how to find out what has become of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from pydantic_core import from_json

from kern.db.base import Commit, Db, RunRow, SessionRow
from kern.runtime.reconcile import Reconciler
from kern.state.codec import decode, encode
from kern.state.patch import apply
from kern.state.shared_state import Author, Change, Snapshot

_Mark = tuple[float, str | None, str | None, str | None]
"""What a change is known by in the log."""


@dataclass(slots=True, frozen=True, eq=False)
class CommitAttempt:
    """A commit that is made, or was, without an answer.

    Args:
        base: The session as it was known.
        snapshot: The live state that it writes.
        author: Who made the changes, if no run did.
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
        """Somebody is told whether it is saved: the caller of a run, or the author."""
        return self.author is not None or bool(self.commit.runs)

    def owns(self, change: Change) -> bool:
        """The change is of the runs that the commit is the end of, or of its author."""
        runs = {row.run_id for row in self.commit.runs}
        return change.author is self.author or change.author.run_id in runs

    async def is_stored(self, db: Db) -> bool:
        """Whether the database has it: the run with this very end, or the changes in the log."""
        if self.commit.runs:
            stored = await db.load_run(self.commit.runs[0].run_id)
            return stored is not None and _same_end(stored, self.commit.runs[0])
        own = {_mark(change) for change in self.snapshot.changes if not change.automatic}
        return bool(own) and not own.isdisjoint(await self._logged(db))

    async def stored_part(self, db: Db) -> Snapshot:
        """Of the live state, what the database has: all, or the changes up to those that came later."""
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
    """A commit of which it is not known whether it was written.

    Args:
        since: The attempts whose makers were told that they failed; their changes are to be taken back, but
            for the one in doubt if that was written.
    """

    attempt: CommitAttempt
    since: list[CommitAttempt] = field(default_factory=list)


def _mark(change: Change) -> _Mark:
    author = change.author
    return change.created_at, author.run_id, author.tool, author.tool_call_id


def _same_end(stored: RunRow, row: RunRow) -> bool:
    if stored.generation != row.generation or stored.session_id != row.session_id:
        return False
    try:
        return bool(_without_conflicts(stored) == _without_conflicts(row))
    except (ValueError, AttributeError):  # what is stored is damaged, and so it is not this one
        return False


def _without_conflicts(row: RunRow) -> Any:
    data = from_json(row.data)
    data.pop("state_conflicts", None)
    return data
