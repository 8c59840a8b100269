"""The states that calls lock and commit to: the live state of a session, or the copy of an enclosing call.

A shared state has the committed state as JSON text, a lock, and one way to change the text: `commit`, for the
holder of the lock. Readers use `text` without the lock; they never see an unfinished edit.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, TypeVar

from kern._sync.lock import FairLock
from kern.errors import UsageError
from kern.state.codec import decode, encode, encode_edited
from kern.state.merge import Conflict, Merged, merge
from kern.state.patch import Operation, apply, diff
from kern.state.pointer import MISSING, lookup
from kern.state.state_spec import StateSpec, Upgrade

T = TypeVar("T")


@dataclass(slots=True, frozen=True)
class Author:
    """Who made a commit: the run, the agent and the tool call.

    Args:
        run_id: The run; None for the application itself.
        agent_path: The names from the top-level run down; empty for the application itself.
        tool: The tool or function that was called.
        tool_call_id: The model's id of the call.
    """

    run_id: str | None = None
    agent_path: tuple[str, ...] = ()
    tool: str | None = None
    tool_call_id: str | None = None

    def __str__(self) -> str:
        where = " > ".join(self.agent_path)
        return f"{self.tool or 'the application'} of {where}" if where else self.tool or "the application"


MERGE = Author(tool="merge")
"""The author of a change that brings in what other processes have committed."""


TAKEN_BACK = Author(tool="not_saved")
"""The author of a change that removes what could not be saved."""


@dataclass(slots=True, frozen=True)
class Change:
    """One commit to a session state.

    Args:
        revision: The revision that the commit made.
        patch: RFC 6902 operations, each with the value that it replaced as "old".
        author: Who made the commit.
        created_at: Seconds since the epoch.
        automatic: No call made it: a migration or a new default brought the state up to date.
    """

    revision: int
    patch: list[Operation]
    author: Author
    created_at: float = field(default_factory=time.time)
    automatic: bool = False


class Snapshot(NamedTuple):
    """A live state at one moment.

    Args:
        text: The state as JSON text.
        revision: Its revision.
        changes: The commits that led to `text` and that the database does not have yet.
    """

    text: bytes
    revision: int
    changes: list[Change]


class SharedState(Protocol):
    """What a call needs of the state that it locks, copies and commits to."""

    lock: FairLock
    holder: str
    """Who holds the lock, for the error of a call that waits too long."""

    @property
    def text(self) -> bytes:
        """The state as JSON text, as of the last commit."""
        ...

    def commit(self, value: Any, author: Author, base: bytes) -> None:
        """Make `value`, which was edited from the text `base`, the state. The caller holds the lock.

        Raises:
            InvalidStateError: `value` is not JSON; the state stays as it was.
        """


class LiveState:
    """The state of a session that is in use: one object per session and process.

    All readers see `text`. `changes` holds the commits that the database does not have yet; `conflicts` holds
    the conflicts found in merging. Both are kept until a run stores them.

    Args:
        text: The state to start from, as JSON text.
        revision: Its revision.
        spec: How the state is merged with what other processes commit.
    """

    def __init__(self, text: bytes, *, revision: int = 0, spec: StateSpec | None = None) -> None:
        self.lock: FairLock = FairLock()
        self.holder = ""
        self.changes: list[Change] = []
        self.conflicts: list[Conflict] = []
        self.spec: StateSpec = spec or StateSpec()
        self.revision: int = revision
        self._mutex = threading.Lock()
        self._subscribers: list[Callable[[Change], None]] = []
        self.text: bytes = text
        self._tree: dict[str, Any] | None = decode(text)

    def commit(self, value: Any, author: Author, base: bytes) -> None:
        """Make `value`, which was edited from the text `base`, the state, and notify the subscribers.

        Nothing happens if the value has not changed. If the commit of another process was merged in since
        `base`, `value` is merged as well.
        """
        with self._mutex:
            known, tree = self.text, self._parsed()
        text, tree = encode_edited(value, known, tree) if base == known else encode(value)
        with self._mutex:
            if text == base:
                return
            if base != self.text:
                text, tree = self._merged(decode(base), self._parsed(), tree)
            self._advance(text, tree, author)

    def upgrade(self, step: Upgrade) -> None:
        """Make the outcome of a migration step the state. The commit is recorded even if it changes nothing,
        since the log counts migrations.
        """
        text, tree = encode(step.tree)
        with self._mutex:
            self._advance(text, tree, Author(tool=step.name), automatic=True)

    def snapshot(self) -> Snapshot:
        """The text, its revision and the changes that led to it, taken at one moment."""
        with self._mutex:
            return Snapshot(self.text, self.revision, list(self.changes))

    def take_tree(self) -> dict[str, Any] | None:
        """Hand the parsed state over to the caller; None if something else still refers to it.

        A run calls this at its end. Usually this object ends then, too, so that no copy is needed.
        """
        with self._mutex:
            if self.changes or self.conflicts:  # their patches share values with the tree
                return None
            tree, self._tree = self._tree, None
            return tree

    def mark_stored(self, snapshot: Snapshot, text: bytes, revision: int) -> None:
        """Note that the database has the changes of `snapshot` and now holds `text` under `revision`.

        If `text` differs from the snapshot's, another process has committed as well. Its changes are merged
        in, and the changes made here since the snapshot are replayed on top with new revisions.
        """
        with self._mutex:
            since = self.changes[len(snapshot.changes) :]
            self.revision = revision + len(since)
            if text == snapshot.text:
                self.changes = numbered(since, revision) if since else []
                return
            start, theirs = decode(snapshot.text), decode(text)
            merged, tree = (text, theirs) if not since else self._merged(start, theirs, self._parsed())
            self.changes = numbered(replayed(since, start, theirs, tree, self.spec), revision)
            self._publish(merged, tree, MERGE)

    def take_back(self, base: bytes, revision: int, gone: Callable[[Change], bool]) -> None:
        """Undo some of the changes that the database does not have yet, and keep the others.

        Args:
            base: The stored text, which the first change starts from.
            revision: The revision of `base`.
            gone: True for a change that is to be undone.
        """
        with self._mutex:
            if not any(map(gone, self.changes)):
                return
            before = current = decode(base)
            kept = []
            for change in self.changes:
                after = apply(before, change.patch)
                if not gone(change):
                    merged = _without(self.spec.merge(before, current, after))
                    self.conflicts += merged.conflicts
                    kept.append(replace(change, patch=diff(current, merged.value)))
                    current = merged.value
                before = after
            self.changes, self.revision = numbered(kept, revision), revision + len(kept)
            self._publish(*encode(current), TAKEN_BACK)

    def reset(self, text: bytes, revision: int) -> None:
        """Make `text`, which the database holds, the state; for the beginning of a run."""
        with self._mutex:
            self.text, self._tree = text, decode(text)
            self.revision, self.changes, self.conflicts = revision, [], []

    def replay(self, change: Change, *, stored: bool, except_for: Callable[[Change], None]) -> None:
        """Apply a commit from the journal again, under the next revision.

        Args:
            change: The commit.
            stored: The database has it already.
            except_for: The subscriber that is not notified.
        """
        with self._mutex:
            text, tree = encode(apply(decode(self.text), change.patch))
            self.revision += 1
            made = replace(change, revision=self.revision)
            if not stored:
                self.changes.append(made)
            self.text, self._tree = text, tree
            for subscriber in self._subscribers:
                if subscriber != except_for:
                    subscriber(made)

    def look(self, read: Callable[[bytes], T]) -> T:
        """Call `read` with the text while no commit can be made; `read` must not wait."""
        with self._mutex:
            return read(self.text)

    def subscribe(self, subscriber: Callable[[Change], None], opened: Callable[[bytes, int], None]) -> None:
        """Call `opened` with the present text and revision, and `subscriber` with every change after that.

        The committing thread, which may be any, calls `subscriber` while it holds the mutex: neither function
        may wait.
        """
        with self._mutex:
            opened(self.text, self.revision)  # under the mutex, so that no change comes in between
            self._subscribers.append(subscriber)

    def unsubscribe(self, subscriber: Callable[[Change], None]) -> None:
        """Undo `subscribe`. A second time does nothing."""
        with self._mutex:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

    def _parsed(self) -> dict[str, Any]:
        if self._tree is None:
            self._tree = decode(self.text)
        return self._tree

    def _merged(self, base: Any, theirs: Any, ours: Any) -> tuple[bytes, dict[str, Any]]:
        merged = self.spec.merge(base, theirs, ours)
        self.conflicts += merged.conflicts
        return encode(merged.value)

    def _advance(self, text: bytes, tree: Any, author: Author, *, automatic: bool = False) -> None:
        self.revision += 1
        self.changes.append(self._publish(text, tree, author, automatic=automatic))

    def _publish(self, text: bytes, tree: Any, author: Author, *, automatic: bool = False) -> Change:
        """Show the new text to readers and the change to subscribers, under the present revision."""
        change = Change(self.revision, diff(self._parsed(), tree), author, automatic=automatic)
        self.text, self._tree = text, tree
        for subscriber in self._subscribers:
            subscriber(change)
        return change


def numbered(changes: list[Change], after: int) -> list[Change]:
    """The changes, renumbered with the revisions that follow `after`."""
    return [
        change if change.revision == n else replace(change, revision=n)
        for n, change in enumerate(changes, after + 1)
    ]


def replayed(changes: list[Change], base: Any, theirs: Any, merged: Any, spec: StateSpec) -> list[Change]:
    """Rebase changes that were made on `base`: their patches lead, one by one, from `theirs` to `merged`.

    Args:
        changes: The changes, oldest first, not empty.
        base: The state that the first one was made on.
        theirs: The state that the first one is made on now.
        merged: The state after the last one.
        spec: How states are merged.
    """
    ours, current, made = base, theirs, []
    for index, change in enumerate(changes):
        before, ours = ours, apply(ours, change.patch)
        last = index == len(changes) - 1
        after = merged if last else spec.merge(before, current, ours).value
        made.append(replace(change, patch=diff(current, after)))
        current = after
    return made


def _without(merged: Merged) -> Merged:
    """Resolve the conflicts of a merge that undoes a change on which later changes were built.

    A number or a collection is computed as if the undone change had never been there; other values stay as
    they are and remain conflicts.
    """
    patch: list[Operation] = []
    conflicts = []
    for conflict in merged.conflicts:
        value = _without_base(conflict)
        if value is MISSING or lookup(merged.value, conflict.path) is not conflict.ours:
            conflicts.append(conflict)
        else:
            patch.append({"op": "replace", "path": conflict.path, "value": value})
    return Merged(apply(merged.value, patch), conflicts)


def _without_base(conflict: Conflict) -> Any:
    """Our value without the undone change; MISSING if it is neither a number nor a collection."""
    base, theirs, ours = conflict.base, conflict.theirs, conflict.ours
    if type(base) in (list, dict) and type(ours) is type(base) and theirs is MISSING:
        return merge(base, type(base)(), ours).value
    theirs = 0 if theirs is MISSING else theirs
    if all(type(value) in (int, float) for value in (base, theirs, ours)):
        return ours - base + theirs
    return MISSING


class NestedState:
    """The state for a run that a tool call starts on its own session: the copy that the call edits.

    The calls of the nested run lock this copy and commit to it. Their commits become final when the enclosing
    call returns, and are undone with it if it fails.
    """

    def __init__(self, enclosing: EnclosingCall) -> None:
        self.lock: FairLock = FairLock()
        self.holder = ""
        self._enclosing = enclosing

    @property
    def text(self) -> bytes:
        """The enclosing call's copy as it is now."""
        return encode(self._enclosing.edited())[0]

    def commit(self, value: Any, author: Author, base: bytes) -> None:
        """Put `value` into the enclosing call's copy, in place.

        If the enclosing call has edited the copy since `base`, its edits are merged with `value`.
        """
        _, tree = encode(value)
        text, current = encode(self._enclosing.edited())
        if text != base:
            _, tree = encode(merge(decode(base), current, tree).value)
        self._enclosing.replace(tree)


class EnclosingCall(Protocol):
    """What a `NestedState` needs from the call around it."""

    def edited(self) -> Any:
        """The call's copy, as plain JSON data."""

    def replace(self, tree: Any) -> None:
        """Make `tree` the content of the call's copy, in place: references into the copy stay valid."""


def ended(author: Author) -> UsageError:
    """The error for code that uses the state after its call has ended."""
    return UsageError(
        f"the call of {author} has ended, so it can no longer use session_state; "
        "use the state before the function returns, and do not keep run_context"
    )
