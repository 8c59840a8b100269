"""Converts errors of SQLite and of the file system to Kern's errors, which name the file."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import TracebackType

from kern.errors import StoreError

_LET_WRITE = "let this user write the file and its folder"
_HINTS = {
    sqlite3.SQLITE_NOTADB: "the file is not an SQLite database; choose another db_file",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged; restore a copy of it, or save what is left with "
    "`sqlite3 FILE .recover`",
    sqlite3.SQLITE_FULL: "the disk is full, or the database has reached its maximum size; free some space",
    sqlite3.SQLITE_IOERR: "the system cannot read or write the file; check that the disk works and has "
    "space, and that no limit on the size of files is reached",
    sqlite3.SQLITE_READONLY: f"the database cannot be written; {_LET_WRITE}",
    sqlite3.SQLITE_PERM: f"no permission to use the database; {_LET_WRITE}",
    sqlite3.SQLITE_CANTOPEN: f"the database file cannot be opened or created; {_LET_WRITE}",
}


class Busy(StoreError):
    """Another process is writing. The transaction has not begun, and can be tried again."""


class Moved(Exception):
    """The connection is open on a file or log that was deleted or replaced; reopen it."""


class store_errors:
    """Converts errors that the database raises inside the block to `StoreError`s that name `path`.

    A class and not a generator, which costs several times as much: every run enters it ten times.
    """

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and (converted := _store_error(self._path, error)) is not None:
            raise converted from error


def _store_error(path: Path, error: BaseException) -> StoreError | None:
    """The `StoreError` for an error of the database or the file system; None for any other error."""
    if isinstance(error, sqlite3.Error):
        # The low byte is the primary result code; extended codes add details in the higher bytes.
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
