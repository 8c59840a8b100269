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
from typing import Any, Protocol

from kern.errors import UsageError
from kern.state.codec import decode, encode
from kern.state.lock import FairLock
from kern.state.merge import Policies, merge
from kern.state.patch import Operation, diff


@dataclass(slots=True, frozen=True)
class Writer:
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


MERGE = Writer(tool="merge")
"""The writer of what other processes had committed."""


@dataclass(slots=True, frozen=True)
class Change:
    """One commit: the operations (each with the value that it replaced as "old") and who made it."""

    revision: int
    patch: list[Operation]
    writer: Writer
    created_at: float = field(default_factory=time.time)


class Scope(Protocol):
    """Where a call takes its turn."""

    lock: FairLock
    holder: str
    """Who has the lock, for the error of one who waits too long."""

    @property
    def text(self) -> bytes:
        """The state as JSON text, as of the last commit."""

    def commit(self, value: Any, writer: Writer, base: bytes) -> None:
        """Make `value` the state, which was edited from the text `base`. The caller has the lock.

        Raises:
            InvalidStateError: It is not JSON; the state stays as it was.
        """


class LiveState:
    """The state of a session that is in use: one object per session and process.

    `text` is what all readers see; `changes` are the commits that the database does not have yet.
    """

    def __init__(self, value: Any, *, revision: int = 0, policies: Policies | None = None) -> None:
        self.lock = FairLock()
        self.holder = ""
        self.changes: list[Change] = []
        self.policies = policies
        self._mutex = threading.Lock()
        self._subscribers: list[Callable[[Change], None]] = []
        self.text, self._tree = encode(value)
        self.revision = revision

    def commit(self, value: Any, writer: Writer, base: bytes) -> None:
        """Make `value`, which was edited from `base`, the state, and tell the subscribers.

        No change is no commit. Where another process's commit was merged in meanwhile, so is `value`.
        """
        text, tree = encode(value)
        with self._mutex:
            if text == base:
                return
            if base != self.text:
                text, tree = encode(merge(decode(base), self._tree, tree, self.policies).value)
            self._advance(text, tree, self.revision + 1, writer)

    def rebase(self, ours: bytes, merged: bytes, revision: int) -> None:
        """Another process has committed too: what was `ours` is stored as `merged`, under `revision`."""
        with self._mutex:
            text, tree = merged, decode(merged)
            if self.text != ours:  # calls that have committed since
                text, tree = encode(merge(decode(ours), tree, self._tree, self.policies).value)
            self._advance(text, tree, revision, MERGE, log=False)

    def _advance(self, text: bytes, tree: Any, revision: int, writer: Writer, *, log: bool = True) -> None:
        patch = diff(self._tree, tree)
        self.text, self._tree, self.revision = text, tree, revision
        change = Change(revision, patch, writer)
        if log:
            self.changes.append(change)
        for subscriber in self._subscribers:
            subscriber(change)

    def taken(self) -> tuple[bytes, int, list[Change]]:
        """The text, its revision and the changes that led there, all of one moment."""
        with self._mutex:
            return self.text, self.revision, list(self.changes)

    def stored(self, count: int, offset: int) -> None:
        """The database has the first `count` changes, `offset` revisions later than they are counted here."""
        with self._mutex:
            del self.changes[:count]
            self.revision += offset
            self.changes = [replace(change, revision=change.revision + offset) for change in self.changes]

    def subscribe(self, subscriber: Callable[[Change], None]) -> tuple[bytes, int]:
        """Call `subscriber` with every change from now on; returns the text and revision of now.

        It is called by whoever commits, from any thread, before the state is released: it must not wait.
        """
        with self._mutex:
            self._subscribers.append(subscriber)
            return self.text, self.revision

    def unsubscribe(self, subscriber: Callable[[Change], None]) -> None:
        """The reverse of `subscribe`."""
        with self._mutex:
            self._subscribers.remove(subscriber)


class EnclosedScope:
    """The copy of a call that has touched the state and runs an agent or team on the same session.

    The nested run's calls take turns on that copy; what they commit is committed for good when the
    enclosing call returns, and undone with it when that fails.
    """

    def __init__(self, enclosing: EnclosingCall) -> None:
        self.lock = FairLock()
        self.holder = ""
        self._enclosing = enclosing

    @property
    def text(self) -> bytes:
        """The enclosing call's copy as it is now."""
        return encode(self._enclosing.edited())[0]

    def commit(self, value: Any, writer: Writer, base: bytes) -> None:
        """Put `value` into the enclosing call's copy, in place."""
        _, tree = encode(value)
        self._enclosing.replace(tree)


class EnclosingCall(Protocol):
    """What an `EnclosedScope` needs of the call round it."""

    def edited(self) -> Any:
        """The call's copy, as plain JSON data."""

    def replace(self, tree: Any) -> None:
        """Make `tree` the content of the call's copy; objects that the call keeps of it stay valid."""


def ended(writer: Writer) -> UsageError:
    """The error for a touch that comes too late."""
    return UsageError(
        f"the call of {writer} has ended, and its session_state with it; "
        "touch the state before the function returns, and do not keep run_context"
    )
