"""Converts errors of Postgres, its driver and the network to Kern's errors, which name the server but no
password.

The codes are SQLSTATEs: "PostgreSQL Error Codes", appendix A of the PostgreSQL documentation.
"""

from __future__ import annotations

import ssl
from typing import Any

from kern.db._postgres_server import Server
from kern.errors import MissingExtraError, StoreError

READ_ONLY = "25006"
"""read_only_sql_transaction: the server is no longer the primary."""

_MAY_PASS = {
    READ_ONLY,
    "25P03",  # idle_in_transaction_session_timeout
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "53300",  # too_many_connections
    "55P03",  # lock_not_available
    "57P01",  # admin_shutdown
    "57P02",  # crash_shutdown
    "57P03",  # cannot_connect_now
    "57P05",  # idle_session_timeout
}
_CONNECTION = "08"
"""The class of connection errors."""

_KEEP = {"40001", "40P01", "55P03"}
"""After these errors the connection can still be used."""

_POOLER = (
    "a pooler such as PgBouncer in transaction mode gives every statement another connection: "
    "pass statement_cache_size=0"
)
_HINTS = {
    "26000": _POOLER,
    "42P05": _POOLER,
    "28000": "the server refuses this user; check db_url and the server's pg_hba.conf",
    "28P01": "the server refuses this user's password; check db_url",
    "3D000": "the database does not exist; create it with `createdb`, or name another one in db_url",
    "42501": "the role may not do this; create the tables with another role and `kern db migrate`, and grant "
    "this role SELECT, INSERT, UPDATE and DELETE on them, and USAGE on their sequences",
    "42P01": "the tables do not exist any more; the next call creates them, or run `kern db migrate`",
    "53100": "the server's disk is full; free some space",
    "57014": "the server has cancelled the statement; check its statement_timeout",
}
_VALUE = ("22", "54")
"""The classes of values that cannot be stored, and of limits of the server."""


_SILENT: dict[type[Exception], str] = {
    TimeoutError: "there was no answer, or no connection was free, in time"
}
"""The texts for errors that have none."""


class MayPassError(StoreError):
    """A failure that may be temporary; the same statement may be sent again."""

    reusable = False
    """Whether the connection can be used again."""

    silent = False
    """Whether there was no answer in time."""


class TryAgainError(MayPassError):
    """The transaction has to be started again."""

    reusable = True


def asyncpg() -> Any:
    """Import the driver.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import asyncpg as driver
    except ImportError:
        raise MissingExtraError("asyncpg", "postgres") from None
    return driver


def kinds() -> tuple[type[Exception], ...]:
    """All classes of errors that the driver raises."""
    driver = asyncpg()
    return (
        driver.PostgresError,
        driver.InterfaceError,
        driver.InternalClientError,
        OSError,
        TimeoutError,
        UnicodeError,
        OverflowError,
    )


def store_error(error: Exception, server: Server) -> StoreError:
    """The error to raise for an error of the driver; a `MayPassError` if it may be temporary."""
    driver = asyncpg()
    code: str = getattr(error, "sqlstate", None) or ""
    text = server.mask(str(error)) or _SILENT.get(type(error), type(error).__name__)
    misconfigured = isinstance(error, driver.exceptions.ClientConfigurationError)
    if code[:2] in _VALUE or (isinstance(error, ValueError | OverflowError) and not misconfigured):
        return StoreError(f"{server.shown}: a value cannot be stored: {text:.300}")
    hint = _HINTS.get(code)
    message = f"{server.shown}: {hint} ({text})" if hint else f"{server.shown}: {text}"
    if not _may_pass(error, code, driver):
        return StoreError(message)
    passing = MayPassError(message)
    passing.silent = type(error) is TimeoutError
    passing.reusable = code in _KEEP or passing.silent  # asyncpg cancels the statement
    return passing


def _may_pass(error: Exception, code: str, driver: Any) -> bool:
    if code:
        return code in _MAY_PASS or code.startswith(_CONNECTION)
    if isinstance(error, driver.InterfaceError):
        refused = (
            driver.exceptions.ClientConfigurationError,
            driver.exceptions.UnsupportedClientFeatureError,
            driver.exceptions.UnsupportedServerFeatureError,
        )
        return not isinstance(error, refused)
    return not isinstance(error, ssl.SSLCertVerificationError | PermissionError)
