"""Lets the runs of a session share one wait for a busy database."""

from __future__ import annotations

from dataclasses import dataclass

from kern.errors import StoreBusyError


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
