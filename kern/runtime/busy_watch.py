"""One wait for a busy database serves all runs of a session that want the same of it."""

from __future__ import annotations

from dataclasses import dataclass

from kern.errors import StoreBusyError


@dataclass(slots=True, frozen=True)
class BusyDatabase:
    """The database was busy for all of its `busy_timeout`.

    The runs of a session load and commit one after the other. Those that had come before such an attempt
    began have waited as long as it did: each would wait for the whole time again, one after the other.

    Args:
        began: When the attempt began, by `time.monotonic`.
        failure: What it came to.
    """

    began: float
    failure: StoreBusyError

    def check(self, asked: float) -> None:
        """See that somebody who has waited since `asked` may try again.

        Raises:
            StoreBusyError: The attempt began after that.
        """
        if self.began >= asked:
            raise StoreBusyError(str(self.failure)) from self.failure
