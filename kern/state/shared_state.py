"""Where calls take turns on a session's state: the live state of the session, or the copy of a call that
encloses a nested run.

A scope has the committed state as JSON text, a lock, and one way to change the text: `commit`, by whoever has
the lock. Readers take `text` as it is and never see half an edit.
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
    """Who a call works for: what a commit is signed with.

    Args:
        agent_path: The names from the top-level run down.
        tool: The tool or function that is called.
    """

    run_id: str | None = None
    agent_path: tuple[str, ...] = ()
    tool: str | None = None
    tool_call_id: str | None = None

    def __str__(self) -> str:
        where = " > ".join(self.agent_path)
        return f"{self.tool or 'the application'} of {where}" if where else self.tool or "the application"


MERGE = Author(tool="merge")
"""The author of what other processes had committed."""


TAKEN_BACK = Author(tool="not_saved")
"""The author of a state without the changes that could not be saved."""


@dataclass(slots=True, frozen=True)
class Change:
    """One commit: the operations (each with the value that it replaced as "old") and who made it.

    Args:
        automatic: Nobody's call made it: the state was brought up to date with what is declared of it.
    """

    revision: int
    patch: list[Operation]
    author: Author
    created_at: float = field(default_factory=time.time)
    automatic: bool = False


class Snapshot(NamedTuple):
    """A live state at one moment.

    Args:
        changes: The commits that led to `text` and that the database does not have yet.
    """

    text: bytes
    revision: int
    changes: list[Change]


class SharedState(Protocol):
    """Where a call takes its turn."""

    lock: FairLock
    holder: str
    """Who has the lock, for the error of one who waits too long."""

    @property
    def text(self) -> bytes:
        """The state as JSON text, as of the last commit."""
        ...

    def commit(self, value: Any, author: Author, base: bytes) -> None:
        """Make `value` the state, which was edited from the text `base`. The caller has the lock.

        Raises:
            InvalidStateError: It is not JSON; the state stays as it was.
        """


class LiveState:
    """The state of a session that is in use: one object per session and process.

    `text` is what all readers see; `changes` are the commits that the database does not have yet, `conflicts`
    those met in merging, until a run stores them.

    Args:
        text: The state to start from, as JSON text.
        revision: Its revision.
        spec: Says how it is merged with what other processes commit.
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
        """Make `value`, which was edited from `base`, the state, and tell the subscribers.

        No change is no commit. Where another process's commit was merged in meanwhile, so is `value`.
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
        """Make `step` the state; a commit of nobody's, recorded even if it changes nothing."""
        text, tree = encode(step.tree)
        with self._mutex:
            self._advance(text, tree, Author(tool=step.name), automatic=True)

    def snapshot(self) -> Snapshot:
        """The text, its revision and the changes that led there, all of one moment."""
        with self._mutex:
            return Snapshot(self.text, self.revision, list(self.changes))

    def take_tree(self) -> dict[str, Any] | None:
        """The state as a tree that is the caller's own from now on; None if others still refer to it.

        For the end of a run, which usually is the end of this object as well, and needs no copy then.
        """
        with self._mutex:
            if self.changes or self.conflicts:  # their patches share values with the tree
                return None
            tree, self._tree = self._tree, None
            return tree

    def mark_stored(self, snapshot: Snapshot, text: bytes, revision: int) -> None:
        """The database has the changes of `snapshot`, and holds `text` under `revision`.

        If `text` differs from the snapshot's, another process has committed too: its changes are merged in,
        and the changes made here since the snapshot are replayed and numbered from there.
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
        """Undo the changes that the database does not have and that `gone` is true of, and keep the others.

        Args:
            base: The text that the first of all changes starts from: the stored one.
            revision: Its revision.
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
        """Make `text` the state, with nothing that the database lacks; for the beginning of a run."""
        with self._mutex:
            self.text, self._tree = text, decode(text)
            self.revision, self.changes, self.conflicts = revision, [], []

    def replay(self, change: Change, *, stored: bool, unheard: Callable[[Change], None]) -> None:
        """Make a commit once more that was made before, under the next revision.

        Args:
            change: The commit.
            stored: The database has it already.
            unheard: The subscriber that is not told.
        """
        with self._mutex:
            text, tree = encode(apply(decode(self.text), change.patch))
            self.revision += 1
            made = replace(change, revision=self.revision)
            if not stored:
                self.changes.append(made)
            self.text, self._tree = text, tree
            for subscriber in self._subscribers:
                if subscriber != unheard:
                    subscriber(made)

    def look(self, read: Callable[[bytes], T]) -> T:
        """What `read` makes of the text, while no commit is made; it must not wait."""
        with self._mutex:
            return read(self.text)

    def subscribe(self, subscriber: Callable[[Change], None], opened: Callable[[bytes, int], None]) -> None:
        """Call `opened` with the text and revision of now, and `subscriber` with every change from now on.

        They are called by whoever commits, from any thread, before the state is released: they must not wait.
        """
        with self._mutex:
            opened(self.text, self.revision)  # in here, so that no change overtakes it
            self._subscribers.append(subscriber)

    def unsubscribe(self, subscriber: Callable[[Change], None]) -> None:
        """The reverse of `subscribe`."""
        with self._mutex:
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
        """Let readers and subscribers see the new text, under the present revision."""
        change = Change(self.revision, diff(self._parsed(), tree), author, automatic=automatic)
        self.text, self._tree = text, tree
        for subscriber in self._subscribers:
            subscriber(change)
        return change


def numbered(changes: list[Change], after: int) -> list[Change]:
    """The changes with the revisions that follow `after`."""
    return [replace(change, revision=after + n) for n, change in enumerate(changes, 1)]


def replayed(changes: list[Change], base: Any, theirs: Any, merged: Any, spec: StateSpec) -> list[Change]:
    """Changes that led on from `base`, with patches that lead, one by one, from `theirs` to `merged`."""
    ours, current, made = base, theirs, []
    for index, change in enumerate(changes):
        before, ours = ours, apply(ours, change.patch)
        last = index == len(changes) - 1
        after = merged if last else spec.merge(before, current, ours).value
        made.append(replace(change, patch=diff(current, after)))
        current = after
    return made


def _without(merged: Merged) -> Merged:
    """A merge with a state from which a change was taken back: what has counted on counts without it."""
    patch: list[Operation] = []
    conflicts = []
    for conflict in merged.conflicts:
        value = _built_on_nothing(conflict)
        if value is MISSING or lookup(merged.value, conflict.path) is not conflict.ours:
            conflicts.append(conflict)
        else:
            patch.append({"op": "replace", "path": conflict.path, "value": value})
    return Merged(apply(merged.value, patch), conflicts)


def _built_on_nothing(conflict: Conflict) -> Any:
    """Ours without what was built on; MISSING if it is no number and no collection."""
    base, theirs, ours = conflict.base, conflict.theirs, conflict.ours
    if type(base) in (list, dict) and type(ours) is type(base) and theirs is MISSING:
        return merge(base, type(base)(), ours).value
    theirs = 0 if theirs is MISSING else theirs
    if all(type(value) in (int, float) for value in (base, theirs, ours)):
        return ours - base + theirs
    return MISSING


class NestedState:
    """The copy of a call that has touched the state and runs an agent or team on the same session.

    The nested run's calls take turns on that copy; what they commit is committed for good when the
    enclosing call returns, and undone with it when that fails.
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

        Where the caller has edited the copy itself meanwhile, beside the nested run, its edits stay.
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
        """Make `tree` the content of the call's copy; objects that the call keeps of it stay valid."""


def ended(author: Author) -> UsageError:
    """The error for a touch that comes too late."""
    return UsageError(
        f"the call of {author} has ended, so it can no longer use session_state; "
        "use the state before the function returns, and do not keep run_context"
    )
