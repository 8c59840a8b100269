"""Numbered parameters (`?1`) on Python 3.12.0 to 3.12.3, which take them for named ones, and warn."""

from __future__ import annotations

import re
import sqlite3
import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final


class NumberedConnection(sqlite3.Connection):
    """A connection that passes the values of numbered parameters by name: `?1` has the name "1"."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """See `sqlite3.Connection.execute`."""
        return super().execute(sql, _by_name(sql, parameters))

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> sqlite3.Cursor:
        """See `sqlite3.Connection.executemany`."""
        return super().executemany(sql, [_by_name(sql, values) for values in parameters])


def _by_name(sql: str, values: Any) -> Any:
    if not _is_numbered(sql):
        return values
    return {str(number): value for number, value in enumerate(values, 1)}


@lru_cache(maxsize=256)
def _is_numbered(sql: str) -> bool:
    return re.search(r"\?\d", sql) is not None


CONNECTION: Final[type[sqlite3.Connection]] = (
    NumberedConnection if (3, 12) <= sys.version_info < (3, 12, 4) else sqlite3.Connection
)
"""The class of connections whose statements have numbered parameters."""
