"""What SQLite and the file system say, as errors of Kern's that name the file."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import TracebackType

from kern.errors import StoreError

_LET_WRITE = "let this user write the file and its folder"
_HINTS = {
    sqlite3.SQLITE_NOTADB: "the file is no SQLite database; choose another db_file",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged; restore a copy of it, or save what is left with "
    "`sqlite3 FILE .recover`",
    sqlite3.SQLITE_FULL: "the disk is full, or the database has reached its greatest size; make room",
    sqlite3.SQLITE_IOERR: "the system cannot read or write the file; see that the disk is sound, has room, "
    "and no limit on the size of files is reached",
    sqlite3.SQLITE_READONLY: f"the database cannot be written; {_LET_WRITE}",
    sqlite3.SQLITE_PERM: f"no permission to use the database; {_LET_WRITE}",
    sqlite3.SQLITE_CANTOPEN: f"the database file cannot be opened or made; {_LET_WRITE}",
}


class Busy(StoreError):
    """Another process is writing; the transaction was not begun, and may be tried again."""


class Moved(Exception):
    """The file at the path, or its log, is not the one that the connection has open."""


class store_errors:
    """Turn what the database raises inside the block into `StoreError`s that name `path`.

    A class, since every run comes here ten times: a generator costs several times as much.
    """

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and (told := _told(self._path, error)) is not None:
            raise told from error


def _told(path: Path, error: BaseException) -> StoreError | None:
    """The error for what the database or the file system has raised; None for what somebody else has."""
    if isinstance(error, sqlite3.Error):
        # The low byte is the kind; what an extended code adds above it makes no difference here.
        kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Busy(f"{path}: {error}")
        hint = _HINTS.get(kind)
        return StoreError(f"{path}: {hint} ({error})" if hint else f"{path}: {error}")
    if isinstance(error, OSError):
        return StoreError(f"{path}: {error}")
    if isinstance(error, UnicodeError | OverflowError):
        return StoreError(f"{path}: a value cannot be stored: {error}")
    return None
