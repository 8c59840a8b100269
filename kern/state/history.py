"""The history of a session state, computed from its log: who changed a value, and the state at a revision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kern.errors import UsageError
from kern.state.codec import copy, same
from kern.state.patch import apply, invert, touches
from kern.state.pointer import MISSING, lookup
from kern.state.shared_state import Change
from kern.state.state_spec import migration_index


@dataclass(slots=True, frozen=True, kw_only=True)
class HistoryEntry:
    """One commit that changed a value of the session state.

    Args:
        revision: The revision that it made.
        time: Seconds since the epoch.
        agent_path: Who wrote: the names from the top-level run down; empty for the application itself.
        tool: The tool or function that wrote.
        tool_call_id: The model's id of that call.
        run_id: The run that wrote.
        old, new: The value before and after; `MISSING`, which is false, if there was none.
    """

    revision: int
    time: float
    agent_path: tuple[str, ...]
    tool: str | None
    tool_call_id: str | None
    run_id: str | None
    old: Any
    new: Any

    def to_dict(self) -> dict[str, Any]:
        """The entry as JSON. Fields that are None or `MISSING` are left out."""
        data: dict[str, Any] = {
            "revision": self.revision,
            "time": self.time,
            "agent_path": list(self.agent_path),
        }
        for name in ("tool", "tool_call_id", "run_id"):
            if (value := getattr(self, name)) is not None:
                data[name] = value
        return data | {name: v for name in ("old", "new") if (v := getattr(self, name)) is not MISSING}


def entries(tree: Any, changes: Sequence[Change], path: str) -> list[HistoryEntry]:
    """The commits that changed one value, oldest first.

    Args:
        tree: The state after the changes.
        changes: The log, oldest first.
        path: The value, as a JSON Pointer.
    """
    found = []
    for change in reversed(changes):
        before = apply(tree, invert(change.patch))
        if touches(change.patch, path):
            old, new = lookup(before, path), lookup(tree, path)
            if not same(old, new):
                found.append(_entry(change, old, new))
        tree = before
    return found[::-1]


def state_at(tree: Any, changes: Sequence[Change], revision: int) -> Any:
    """The state at a revision: the changes after it are undone, newest first.

    Args:
        tree: The state after the changes.
        changes: The log, oldest first. It must hold every change after `revision`.
        revision: The revision to go back to.
    """
    for change in reversed(changes):
        if change.revision <= revision:
            break
        tree = apply(tree, invert(change.patch))
    return tree


def version_at(version: int, changes: Sequence[Change]) -> int:
    """The migration version of a state before `changes`, after which it had `version`."""
    for change in changes:
        index = migration_index(change.author.tool)
        if index is not None:
            return index
    return version


def first_known(changes: Sequence[Change], revision: int) -> int:
    """The oldest revision that the log reaches from `revision` without a gap."""
    for change in reversed(changes):
        if change.revision != revision:
            break
        revision -= 1
    return revision


def unknown_revision(session_id: str, revision: int, first: int, last: int) -> UsageError:
    """The error for a revision that the log does not reach."""
    return UsageError(
        f"session {session_id!r} has no revision {revision}; its revisions are {first} to {last}"
    )


def _entry(change: Change, old: Any, new: Any) -> HistoryEntry:
    author = change.author
    return HistoryEntry(
        revision=change.revision,
        time=change.created_at,
        agent_path=author.agent_path,
        tool=author.tool,
        tool_call_id=author.tool_call_id,
        run_id=author.run_id,
        old=old if old is MISSING else copy(old),
        new=new if new is MISSING else copy(new),
    )
