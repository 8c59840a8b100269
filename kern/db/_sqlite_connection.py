"""One SQLite connection of one event loop: opened on first use, and never shared with a forked child."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from kern._sync.fork import around_fork
from kern.db._sqlite_open import OpenFile, make_private, opening
from kern.db._sqlite_thread import SqliteThread, Uncancellable, result_when_done

T = TypeVar("T")

BUSY_SLICE = 0.1
"""Seconds that SQLite itself waits for another process. Short, since the thread can do nothing else
meanwhile: `SqliteFile` waits the rest of the time, and tries again."""

PAGE_BYTES = 2048
"""A commit writes each page that it changes as a whole: a leaf of every index, and the pages of the rows.
Half of SQLite's default halves that; a state of 100 kB costs the same."""

LOG_PAGES = 2000
"""At how many pages the log is copied into the file: 4 MB, which is SQLite's default as well."""


class Connection:
    """A connection that is opened on first use, and again after it was closed.

    Belongs to the event loop that runs when it is made.

    Args:
        path: The file; its folders are made.
        owner: An object that lives as long as the connection is open.
    """

    def __init__(self, path: Path, owner: object) -> None:
        self._path = path
        self._owner = owner
        self.loop = asyncio.get_running_loop()
        self.users = 0
        """How many jobs are under way."""
        self._thread: SqliteThread | None = None
        self._file: OpenFile | None = None
        self._opening: tuple[SqliteThread, Uncancellable[None]] | None = None
        # Held while SQLite is at work, so that a fork can wait until it is not.
        self._at_work = threading.Lock()

    @property
    def file(self) -> OpenFile | None:
        """The open file: jobs can be submitted. None while it is not open."""
        return self._file if self._thread is not None else None

    async def open(self) -> None:
        """Open the file if that has not been done.

        Raises:
            StoreError: It cannot be opened.
        """
        while self._thread is None:
            if self._opening is None:
                _keep(self)
                thread = SqliteThread()
                self._opening = thread, thread.submit(self._connect)
            await self._wait_for(*self._opening)

    async def close(self) -> None:
        """Close, after the jobs that are submitted already."""
        if self._opening is not None:
            with suppress(Exception):  # those who wait for it are told
                await self._wait_for(*self._opening)
        closing = self.let_go()
        if closing is not None:
            await result_when_done(closing)

    def let_go(self) -> Uncancellable[None] | None:
        """Close, after the jobs that are submitted already; the next one opens the file again.

        Returns what to wait for; nobody has to.
        """
        if self._thread is None:
            return None
        file, at_work = self._file, self._at_work

        def close() -> None:
            with at_work:
                if file is not None:
                    file.close()

        thread, self._thread, self._file = self._thread, None, None
        closing = thread.submit(close)
        thread.end()
        _forget(self)
        return closing

    def submit(
        self, job: Callable[[OpenFile], T], finished: Callable[[], None] | None = None
    ) -> Uncancellable[T]:
        """Queue `job` on the open connection; it runs to its end whatever becomes of the future or the loop.

        Args:
            job: Called in the connection's thread.
            finished: Called there after it, always.
        """
        thread, file, at_work = self._thread, self._file, self._at_work
        assert thread is not None
        assert file is not None

        def run() -> T:
            with at_work, file.lock:
                file.check_open()
                return job(file)

        return thread.submit(run, finished)

    async def _wait_for(self, thread: SqliteThread, opening: Uncancellable[None]) -> None:
        """Wait until the thread has opened the file, or failed; the first to know takes note of it."""
        try:
            await result_when_done(opening)
        finally:
            if self._opening == (thread, opening) and opening.done():
                self._opening = None
                if opening.exception() is None:
                    self._thread = thread
                else:
                    thread.end()
                    _forget(self)

    def _connect(self) -> None:
        with self._at_work, opening(self._path):
            make_private(self._path)
            raw = sqlite3.connect(
                self._path, timeout=BUSY_SLICE, isolation_level=None, check_same_thread=False
            )
            raw.text_factory = _text
            try:
                wal = _configure(raw)
                self._file = OpenFile(self._path, raw, wal=wal)
            except BaseException:
                raw.close()
                raise

    def _close_if_abandoned(self) -> bool:
        """Close, without the loop, if that was closed and did not do it; True if so."""
        if not self.loop.is_closed():
            return False
        thread = self._opening[0] if self._opening is not None else self._thread
        if thread is not None:
            thread.put(self._close_file)
            thread.end()
        return True

    def _close_file(self) -> None:
        with self._at_work:
            if self._file is not None:
                self._file.close()

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
        if self._file is not None:
            self._file.raw.close()
            self._file.forget()
        self._thread = self._file = self._opening = None
        self._at_work.release()


def _text(data: bytes) -> str:
    """Text as it is stored; what is damaged in it does not make the row unreadable."""
    return data.decode("utf-8", "replace")


def _configure(raw: sqlite3.Connection) -> bool:
    """WAL, if the file system can do it: readers and the writer do not wait for each other.

    With synchronous=NORMAL a commit survives the death of the process (kill -9); a failure of the machine's
    power may undo the last ones, but never leaves half of one. FULL would keep those too, for an fsync per
    commit. Where the file system cannot do WAL, only FULL is safe.
    """
    mode = raw.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal":
        raw.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a file that is new; others keep theirs
        mode = raw.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    raw.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
    raw.execute("PRAGMA synchronous = " + ("NORMAL" if mode == "wal" else "FULL"))
    raw.execute("SELECT count(*) FROM sqlite_master").fetchone()  # which opens the log
    return bool(mode == "wal")


_connections: set[Connection] = set()
"""Every connection that may be open: kept here, so that only its loop, or its owner, closes it."""
_connections_mutex = threading.Lock()
_forking: list[Connection] = []


def _keep(connection: Connection) -> None:
    """Keep a connection that is about to be opened, and drop those whose loops are gone."""
    with _connections_mutex:
        gone = {other for other in _connections if other._close_if_abandoned()}
        _connections.difference_update(gone)
        _connections.add(connection)


def _forget(connection: Connection) -> None:
    with _connections_mutex:
        _connections.discard(connection)


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


around_fork(before=_before_fork, parent=_after_fork_in_parent, child=_after_fork_in_child)
