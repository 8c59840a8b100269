"""What SQLite and the file system say, as errors of Kern's that name the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Turn what the database raises inside the block into `StoreError`s that name `path`."""
    try:
        yield
    except sqlite3.Error as error:
        # The low byte is the kind; what an extended code adds above it makes no difference here.
        kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Busy(f"{path}: {error}") from error
        hint = _HINTS.get(kind)
        raise StoreError(f"{path}: {hint} ({error})" if hint else f"{path}: {error}") from error
    except OSError as error:
        raise StoreError(f"{path}: {error}") from error
    except (UnicodeError, OverflowError) as error:
        raise StoreError(f"{path}: a value cannot be stored: {error}") from error
