"""An open database file; detects that the file or its write-ahead log was deleted or replaced."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from kern._log import named
from kern.db._sqlite_errors import Moved, store_errors
from kern.errors import StoreError

log = named("kern")

Inode = tuple[int, int] | None

_NO_CHECKPOINT_ON_CLOSE = 1006
"""SQLite's SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, which Python names from 3.12 on."""


class OpenFile:
    """The file of an open connection.

    Args:
        path: The path of the file.
        raw: The connection.
        wal: Whether the file has a write-ahead log ("-wal") and its index ("-shm") beside it.
    """

    def __init__(self, path: Path, raw: sqlite3.Connection, *, wal: bool) -> None:
        self.path = path
        self.raw = raw
        self.prepared: set[str] = set()
        """The schemas that the file is known to have; `SqliteFile` adds them."""
        self._data_version = -1
        self._closed = False
        self._beyond_help: StoreError | None = None
        self._companions = [f"{path}-wal", f"{path}-shm"] if wal else []
        self._inode = _inode(path)
        self._inodes = [_inode(name) for name in self._companions]
        self.lock = threading.Lock()
        """Held while a job uses the connection, and while it is closed."""
        _last_seen[path] = _content(path)
        _open_files.add(self)

    def check_open(self) -> None:
        """Raise `Moved` if another thread has closed the connection."""
        if self._closed:
            raise Moved

    def check_moved(self) -> None:
        """Raise `Moved` if the file, or its log, was deleted or replaced.

        SQLite itself would continue to write to the deleted file, and the data would be lost.

        Raises:
            StoreError: Another program has begun a new log, so the content of the old one cannot be saved.
        """
        with store_errors(self.path):
            moved = _inode(self.path) != self._inode
            lost = self._log_is_lost()
        if moved:
            raise Moved
        if lost:
            self._save_log()
            raise Moved

    def check_written(self) -> None:
        """Call this after a commit: it saves the commit if the log was deleted in the meantime.

        Raises:
            StoreError: It cannot be saved.
        """
        with store_errors(self.path):
            _last_seen[self.path] = _content(self.path)
            lost = self._log_is_lost()
        if lost:
            self._save_log()

    def check_schema(self) -> None:
        """Forget the known schemas if another connection has written to the file: it may be a newer Kern."""
        with store_errors(self.path):
            version = self.raw.execute("PRAGMA data_version").fetchone()[0]
        if version != self._data_version:
            self.prepared.clear()
            self._data_version = version

    def close(self) -> None:
        """Close the connection, unless it is closed already or must stay open (see `_give_up`)."""
        with self.lock:
            self._close()

    def close_if_lost(self) -> None:
        """If the log was deleted, save its content and close the connection.

        Raises:
            StoreError: It cannot be saved.
        """
        with self.lock:
            if not self._closed and _inode(self.path) == self._inode and self._log_is_lost():
                self._save_log()
                self._close()

    def forget(self) -> None:
        """Call in a forked child, where the connection belongs to the parent."""
        _open_files.discard(self)

    def _close(self) -> None:
        if self._beyond_help is None:
            self._closed = True
            self.raw.close()
            _open_files.discard(self)

    def _log_is_lost(self) -> bool:
        return [_inode(name) for name in self._companions] != self._inodes

    def _save_log(self) -> None:
        """Copy the content of the deleted log, which is still open here, into the database file.

        As long as no program has written to the file without this log, the log's index is correct. After that
        the copy would overwrite newer data, so the log is dropped.
        """
        if self._beyond_help is not None:
            raise self._beyond_help
        with store_errors(self.path):
            has_new_log = _inode(self._companions[0]) not in (None, self._inodes[0])
            if has_new_log or _content(self.path) != _last_seen[self.path]:
                self._give_up()
            busy = self.raw.execute("PRAGMA wal_checkpoint(FULL)").fetchone()[0]
            _last_seen[self.path] = _content(self.path)
        if busy:
            raise StoreError(
                f"{self.path}: the write-ahead log was deleted while the database was in use, and "
                "its content cannot be saved while other programs read the file; stop them and "
                "try again"
            )
        log.error("%s: its write-ahead log was deleted while it was in use; its content was saved", self.path)

    def _give_up(self) -> NoReturn:
        """Drop the connection without the checkpoint that SQLite makes when the last connection is closed.

        Raises:
            StoreError: Always.
        """
        message = (
            f"{self.path}: its write-ahead log was deleted while it was in use, and another program has "
            "written without it: commits since the last checkpoint may be lost. Never delete files beside "
            "an open database"
        )
        configure = getattr(self.raw, "setconfig", None)
        if configure is not None:
            configure(_NO_CHECKPOINT_ON_CLOSE, True)
            self._close()
            raise StoreError(message)
        # Python 3.11 cannot close it without a checkpoint, nor open the file again while it is open.
        self._beyond_help = StoreError(f"{message}; restart this process to use the file")
        kept = self.raw
        threading.Thread(target=lambda: threading.Event().wait() and kept, daemon=True).start()
        raise self._beyond_help


_last_seen: dict[Path, tuple[int, int]] = {}
"""By file: the time of its last change and its size after the last write of this process."""


def _content(path: Path) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_mtime_ns, stat.st_size


_open_files: set[OpenFile] = set()
_opening = threading.Lock()


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """Wrap the opening of the file: connections whose log was deleted are closed first.

    SQLite keeps the index of a log once per process. A new connection beside an old one whose log was deleted
    would use the index of the old log for the new one.
    """
    with _opening, store_errors(path):
        for file in list(_open_files):
            if file.path == path:
                file.close_if_lost()
        yield


def make_private(path: Path) -> None:
    """Create the file and its folders, unless they exist, readable by their owner only.

    SQLite gives the files that it creates beside it the same mode.
    """
    _make_folder(path.parent)
    if path.is_dir():
        raise IsADirectoryError("it is a folder; db_file must name a file")
    # An existing file is never opened here: closing it would drop this process's POSIX locks on the file.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not folder.is_dir():  # otherwise another process has created it first
            raise NotADirectoryError(f"{folder} is a file, not a folder; choose another db_file") from None


def _inode(path: Path | str) -> Inode:
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino
