"""What a commit makes of the state that is stored right then, and the log of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import dropwhile
from typing import Any

from pydantic_core import from_json, to_json

from kern.db.base import ChangeRow, RunRow, SessionRow, StateWrite
from kern.errors import StoreError
from kern.state.codec import decode, encode
from kern.state.merge import Conflict
from kern.state.patch import apply, diff
from kern.state.shared_state import Author, Change, Snapshot, numbered, replayed
from kern.state.state_spec import StateSpec

RowsWithConflicts = Callable[[Sequence[Conflict]], Sequence[RunRow]]
"""Makes the rows of a commit, once it is known where another process had changed the same values."""


class Reconciler:
    """Decides, inside the database's transaction, what a commit makes of the state that is stored right then.

    Where that is not the state that this process started from, another process has committed in between: the
    two are merged, three ways. The log keeps one row for each change of this process's, counted on from the
    stored revision; their patches are made anew, so that they lead from what was stored to what is.

    Args:
        base: The session as this process last saw it stored; version 0 if it was not.
        snapshot: The live state.
        version: The state's version.
        spec: What is declared of the state.
        known: Conflicts that were met before.
        rows: Makes the runs' rows, if there was a conflict.
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
        """What is stored, after the call."""

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
        # Migrations are not edits of ours: apply them to both sides before merging.
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


def change_row(session_id: str, change: Change) -> ChangeRow:
    """A change as the log keeps it."""
    author = change.author
    return ChangeRow(
        session_id=session_id,
        revision=change.revision,
        patch=to_json(change.patch),
        agent_path=to_json(author.agent_path),
        run_id=author.run_id,
        tool=author.tool,
        tool_call_id=author.tool_call_id,
        created_at=change.created_at,
    )


def change_of(row: ChangeRow) -> Change:
    """The reverse of `change_row`.

    Raises:
        StoreError: The row cannot be read.
    """
    try:
        path, patch = from_json(row.agent_path), from_json(row.patch)
        if not all(isinstance(name, str) for name in path) or not all(map(_is_operation, patch)):
            raise ValueError(
                "agent_path must be a list of names, and patch a list of operations with their values"
            )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(
            f"change {row.revision} of session {row.session_id!r} cannot be read; it is damaged, "
            f"or a newer version of Kern wrote it: {error}"
        ) from error
    return Change(
        row.revision, patch, Author(row.run_id, tuple(path), row.tool, row.tool_call_id), row.created_at
    )


def _is_operation(step: dict[str, Any]) -> bool:
    texts = step["path"], step.get("before", "")
    return all(isinstance(text, str) for text in texts) and _OPERATIONS[step["op"]] <= step.keys()


_OPERATIONS = {"add": {"value"}, "remove": {"old"}, "replace": {"value", "old"}}
