"""One SQLite connection of one event loop: opened on first use, and closed before a fork would share it."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from weakref import WeakSet

from kern.db._sqlite_errors import Moved, store_errors
from kern.db._sqlite_thread import SqliteThread, Uncancellable, settled

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]
"""A whole transaction; runs in the connection's thread."""

BUSY_SLICE = 0.1
"""Seconds that SQLite itself waits for another process. Short, since the thread can do nothing else
meanwhile: `SqliteFile` waits the rest of the time, and tries again."""


class Connection:
    """A connection that is opened on first use, and again after it was closed. Belongs to one event loop.

    Args:
        path: The file; its folders are made.
    """

    def __init__(self, path: Path) -> None:
        self.prepared: set[str] = set()
        """The schemas that this file is known to have; for the owner's use."""
        self._path = path
        self._thread: SqliteThread | None = None
        self._raw: sqlite3.Connection | None = None
        self._inode: tuple[int, int] | None = None
        self._opening: Uncancellable[None] | None = None
        # Held while SQLite is at work, so that a fork can wait until it is not.
        self._at_work = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Jobs can be submitted."""
        return self._thread is not None

    async def open(self) -> None:
        """Open the file if that has not been done.

        Raises:
            StoreError: It cannot be opened.
        """
        while self._thread is None:
            await settled(self._opening or self._start_opening())

    async def close(self) -> None:
        """Close, after the jobs that are submitted already."""
        if self._opening is not None:
            with suppress(Exception):  # those who wait for it are told
                await settled(self._opening)
        if self._thread is not None:
            closing = self.submit(sqlite3.Connection.close)
            thread, self._thread, self._raw = self._thread, None, None
            thread.end()
            await settled(closing)

    def submit(self, job: Job[T], finished: Callable[[], None] | None = None) -> Uncancellable[T]:
        """Queue `job` on the open connection; it runs to its end whatever becomes of the future or the loop.

        Args:
            job: Called in the connection's thread.
            finished: Called there after it, always.
        """
        raw, at_work = self._raw, self._at_work
        assert self._thread is not None
        assert raw is not None

        def run() -> T:
            with at_work:
                return job(raw)

        return self._thread.submit(run, finished)

    def check_moved(self) -> None:
        """Raise `Moved` if the file was deleted or replaced; called in the connection's thread.

        SQLite would go on writing to a deleted file, where nobody will ever find it.
        """
        if _inode(self._path) != self._inode:
            raise Moved

    def _start_opening(self) -> Uncancellable[None]:
        thread = SqliteThread(self._connect)
        with _connections_mutex:
            _connections.add(self)
        self._opening = opening = thread.start()

        def finish(_: object) -> None:
            self._opening = None
            if opening.exception() is None:
                self._thread = thread

        opening.add_done_callback(finish)
        return opening

    def _connect(self) -> sqlite3.Connection:
        with self._at_work, store_errors(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            raw = sqlite3.connect(
                self._path, timeout=BUSY_SLICE, isolation_level=None, check_same_thread=False
            )
            try:
                _configure(raw)
            except BaseException:
                raw.close()
                raise
            self.prepared.clear()
            self._inode = _inode(self._path)
            self._raw = raw
        return raw

    def __del__(self) -> None:
        """Close what nobody can use any more, where the loop had no chance to."""
        if self._thread is not None and self._raw is not None:
            self._thread.end(self._raw.close)

    def _before_fork(self) -> None:
        self._at_work.acquire()

    def _after_fork_in_parent(self) -> None:
        self._at_work.release()

    def _after_fork_in_child(self) -> None:
        """Close the parent's connection, which is at rest, and forget the thread, which is not there.

        Left open, it would lose what the child writes: SQLite counts the locks of a process in the
        process's memory, so a connection of the child's own would believe that it has the lock which only
        the parent has; and when the parent closes the file, it deletes the log that the child writes to.
        """
        if self._thread is not None:
            self._thread.forget()
        if self._raw is not None:
            self._raw.close()
        self._thread = self._raw = self._opening = None
        self._at_work.release()


def _configure(raw: sqlite3.Connection) -> None:
    """WAL: readers and the writer do not wait for each other.

    With synchronous=NORMAL a commit survives the death of the process (kill -9); a failure of the machine's
    power may undo the last ones, but never leaves half of one. FULL would keep those too, for an fsync per
    commit. Where the file system cannot do WAL, only FULL is safe.
    """
    mode = raw.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        mode = raw.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    raw.execute("PRAGMA synchronous = " + ("NORMAL" if mode == "wal" else "FULL"))


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


_connections: WeakSet[Connection] = WeakSet()
"""Every connection that may be open."""
_connections_mutex = threading.Lock()
_forking: list[Connection] = []


def _before_fork() -> None:
    _connections_mutex.acquire()
    _forking.extend(_connections)
    for connection in _forking:
        connection._before_fork()


def _after_fork_in_parent() -> None:
    for connection in _forking:
        connection._after_fork_in_parent()
    _forking.clear()
    _connections_mutex.release()


def _after_fork_in_child() -> None:
    for connection in _forking:
        connection._after_fork_in_child()
    _forking.clear()
    _connections.clear()
    _connections_mutex.release()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
