"""Errors of a database at a commit: the runs of a session share one wait for a busy database."""

from __future__ import annotations

from dataclasses import dataclass

from kern._error_text import error_text
from kern.db.base import Db
from kern.errors import KernError, StoreBusyError, StoreError


@dataclass(slots=True, frozen=True)
class BusyDatabase:
    """An attempt failed because the database was busy for its whole `busy_timeout`.

    The runs of a session load and commit one after another. A run that came before this attempt began has
    waited as long as the attempt: it fails, too, so that the runs do not wait for the whole time in turn.

    Args:
        began: When the attempt began, by `time.monotonic`.
        failure: The error of the attempt.
    """

    began: float
    failure: StoreBusyError

    def check(self, asked: float) -> None:
        """Check whether a run that has waited since `asked` may try again.

        Raises:
            StoreBusyError: The attempt began after `asked`.
        """
        if self.began >= asked:
            raise StoreBusyError(str(self.failure)) from self.failure


def as_store_error(db: Db, error: Exception) -> Exception:
    """Return an error of Kern's as it is, and anything else that a database raises as a `StoreError`."""
    if isinstance(error, KernError):
        return error
    made = StoreError(f"{db!r} raised {error_text(error)}")
    made.__cause__ = error
    return made
