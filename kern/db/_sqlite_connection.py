"""An SQLite connection of one event loop. It is opened on first use and never shared with a forked child."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from kern._sync.fork import around_fork
from kern.db._sqlite_numbered import CONNECTION
from kern.db._sqlite_open import OpenFile, make_private, opening
from kern.db._sqlite_thread import SqliteThread, Uncancellable, result_when_done

T = TypeVar("T")

BUSY_SLICE = 0.1
"""Seconds that SQLite itself waits for another process. This blocks the thread, so it is short: `SqliteFile`
waits for the rest of the time without a thread, and tries again."""

PAGE_BYTES = 2048
"""The page size of new files. A commit writes every page that it changes as a whole: a leaf of each index,
and the pages of the rows. Half of SQLite's default halves the bytes per commit; a state of 100 kB costs the
same."""

LOG_PAGES = 2000
"""The number of pages at which the log is copied into the file: 4 MB, as by SQLite's default."""


class Connection:
    """A connection that is opened on first use, and opened again if it is used after it was closed.

    It belongs to the event loop that is running when it is created.

    Args:
        path: The file; its folders are created.
        owner: An object that is kept alive while the connection is open.
    """

    def __init__(self, path: Path, owner: object) -> None:
        self._path = path
        self._owner = owner
        self.loop = asyncio.get_running_loop()
        self.users = 0
        """How many jobs are running or queued."""
        self._thread: SqliteThread | None = None
        self._file: OpenFile | None = None
        self._opening: tuple[SqliteThread, Uncancellable[None]] | None = None
        # Held while SQLite code runs, so that a fork can wait until none does.
        self._at_work = threading.Lock()

    @property
    def file(self) -> OpenFile | None:
        """The open file, to which jobs can be submitted; None while it is closed."""
        return self._file if self._thread is not None else None

    async def open(self) -> None:
        """Open the file, unless it is open already.

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
        """Close the connection once the submitted jobs are done."""
        if self._opening is not None:
            with suppress(Exception):  # the tasks that wait for the connection get the error
                await self._wait_for(*self._opening)
        closing = self.begin_close()
        if closing is not None:
            await result_when_done(closing)

    def begin_close(self) -> Uncancellable[None] | None:
        """Begin to close the connection; it closes once the submitted jobs are done. The next job reopens it.

        Returns:
            A future that is done when the connection is closed, for callers that want to wait.
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
        """Queue `job` on the open connection. It runs to its end even if the task is cancelled or the loop
        stops.

        Args:
            job: Called in the connection's thread.
            finished: Called in that thread after the job, also if it fails.
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
        """Wait until the thread has opened the file, or failed; the first task to wake up records it."""
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
                self._path,
                timeout=BUSY_SLICE,
                isolation_level=None,
                check_same_thread=False,
                factory=CONNECTION,
            )
            raw.text_factory = _text
            try:
                wal = _configure(raw)
                self._file = OpenFile(self._path, raw, wal=wal)
            except BaseException:
                raw.close()
                raise

    def _close_if_abandoned(self) -> bool:
        """Close the connection if its loop was closed without doing so; returns whether that is the case."""
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
        """Close the connection that was inherited from the parent, and forget its thread, which does not
        exist here.

        The connection is idle. If it stayed open, writes of the child would be lost. SQLite keeps a process's
        file locks in memory, so a new connection of the child would believe to hold a lock that only the
        parent has. And when the parent closes the file, it deletes the log that the child writes to. See "How
        To Corrupt An SQLite Database File" on sqlite.org.
        """
        if self._file is not None:
            self._file.raw.close()
            self._file.forget()
        self._thread = self._file = self._opening = None
        self._at_work.release()


def _text(data: bytes) -> str:
    """Decode a text; invalid UTF-8 is replaced, so that a damaged text does not make its row unreadable."""
    return data.decode("utf-8", "replace")


def _configure(raw: sqlite3.Connection) -> bool:
    """Switch to a write-ahead log if the file system supports it; returns whether it does.

    With a write-ahead log, readers and the writer do not wait for each other. With synchronous=NORMAL a
    commit survives the death of the process (kill -9); a power failure may undo the last commits, but never
    leaves half of one. FULL would keep those as well, at the price of an fsync per commit. Without a
    write-ahead log only FULL is safe.
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
"""All connections that may be open. The reference keeps the garbage collector from closing them."""
_connections_mutex = threading.Lock()
_forking: list[Connection] = []


def _keep(connection: Connection) -> None:
    """Register a connection that is about to be opened, and close those whose loops are closed."""
    with _connections_mutex:
        abandoned = {other for other in _connections if other._close_if_abandoned()}
        _connections.difference_update(abandoned)
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
