"""A database file, shared within this process: one writer at a time, one connection per event loop."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

from kern._sync.fork import after_fork_in_child
from kern._sync.lock import FairLock, LockTimeout
from kern._sync.loops import LoopLocal
from kern.db._sqlite_connection import Connection
from kern.db._sqlite_errors import Busy, Moved
from kern.db._sqlite_idle import begin_use, close, end_use
from kern.db._sqlite_open import OpenFile
from kern.db._sqlite_thread import result_when_done
from kern.errors import StoreBusyError

T = TypeVar("T")
Job = Callable[[sqlite3.Connection], T]
"""A whole transaction; it runs in the connection's thread."""

_PAUSE = 0.005
"""Seconds between two attempts while another process is writing to the file."""


class SqliteFile:
    """A database file. `SqliteFile.at` returns the same object for the same path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start_afresh()

    @classmethod
    def at(cls, path: Path) -> SqliteFile:
        """The file at `path`, which must be absolute and without symbolic links."""
        with _files_mutex:
            file = _files.get(path)
            if file is None:
                file = _files[path] = cls(path)
            return file

    async def run(
        self,
        job: Job[T],
        *,
        schema: str,
        prepare: Callable[[sqlite3.Connection], None],
        write: bool,
        wait: float,
    ) -> T:
        """Run `job` in the thread of the running loop's connection.

        A cancellation is raised after the job has ended. A job that has not begun is not begun any more.

        Args:
            job: One whole transaction. It is tried again if another process holds the file's lock.
            schema: A name for the tables that `prepare` creates.
            prepare: Called once per connection, before the first job that needs `schema`.
            write: The job writes. Jobs of this process that write run one at a time.
            wait: Seconds to wait for other writers, in this process and others.

        Raises:
            StoreError: The file cannot be opened, or the database failed.
            StoreBusyError: Other writers held the file for all of `wait`.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            connection = self._connections.get()
            begin_use(connection)
            try:
                await connection.open()
                if connection is not self._connections.get():
                    await (
                        connection.close()
                    )  # the pool dropped it while this task waited, so nothing else would close it
                    continue
                alone = write or connection.file is None or schema not in connection.file.prepared
                if alone:
                    await self._lock.acquire(max(0.0, deadline - loop.time()))
                    if connection.file is None:  # closed by another task while this one waited
                        self._lock.release()
                        continue
                # The thread releases the lock, since this task may be cancelled, and its loop stopped.
                future = connection.submit(
                    partial(_run, job, schema, prepare, write), self._lock.release if alone else None
                )
                return await result_when_done(future)
            except Moved:
                await connection.close()
            except (Busy, LockTimeout) as error:
                if loop.time() >= deadline:
                    raise StoreBusyError(
                        f"{self.path}: the database is busy: other writers have held it for "
                        f"{wait:g} s; stop the program that holds it, or wait longer with "
                        "SqliteDb(busy_timeout=...)"
                    ) from error
                await asyncio.sleep(_PAUSE)
            finally:
                end_use(connection)

    async def aclose(self) -> None:
        """Close the running loop's connection; the next job opens it again."""
        await self._connections.aclose()

    def _start_afresh(self) -> None:
        self._lock = FairLock()
        self._connections = LoopLocal(partial(Connection, self.path, self), close)

    def _after_fork_in_child(self) -> None:
        # Kept, since dropping it would make the loop, which may be the parent's, close connections.
        _of_parent.append(self._connections)
        self._start_afresh()


def _run(
    job: Job[T], schema: str, prepare: Callable[[sqlite3.Connection], None], write: bool, file: OpenFile
) -> T:
    file.check_moved()
    file.check_schema()
    if schema not in file.prepared:
        prepare(file.raw)
        file.prepared.add(schema)
    done = job(file.raw)
    if write:
        file.check_written()
    return done


_files: WeakValueDictionary[Path, SqliteFile] = WeakValueDictionary()
_files_mutex = threading.Lock()
_of_parent: list[LoopLocal[Connection]] = []


def _after_fork_in_child() -> None:
    global _files_mutex
    _files_mutex = threading.Lock()
    for file in list(_files.values()):
        file._after_fork_in_child()


after_fork_in_child(_after_fork_in_child)
