"""What SQLite and the file system say, as errors of Kern's that name the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kern.errors import StoreError

_HINTS = {
    sqlite3.SQLITE_NOTADB: "the file is no SQLite database",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged",
    sqlite3.SQLITE_FULL: "the disk is full, or the database has reached its greatest size",
    sqlite3.SQLITE_READONLY: "the database cannot be written",
    sqlite3.SQLITE_PERM: "no permission to use the database",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened or made",
}


class Busy(StoreError):
    """Another process is writing; the transaction was not begun, and may be tried again."""


class Moved(Exception):
    """The file at the path is not the one that the connection has open."""


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
