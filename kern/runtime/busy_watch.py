"""One wait for a busy database serves all runs of a session that want the same of it."""

from __future__ import annotations

import time
from types import TracebackType

from kern.errors import StoreBusyError


class BusyWatch:
    """Remembers that the database was busy for all of its `busy_timeout`.

    The runs of a session load and commit one after the other. Those that had come before such an attempt
    began have waited as long as it did: each would wait for the whole time again, one after the other.
    """

    __slots__ = ("_began", "_failure", "_start")

    def __init__(self) -> None:
        self._began = self._start = 0.0
        self._failure: StoreBusyError | None = None

    def attempt(self, asked: float) -> BusyWatch:
        """Round one attempt, of somebody who has waited for it since `asked`, by `time.monotonic`.

        There is one attempt at a time. The block is entered with the object itself, since every run comes
        here twice.

        Raises:
            StoreBusyError: The database was busy, or is, as an attempt has found that began since.
        """
        if self._failure is not None and self._began >= asked:
            raise StoreBusyError(str(self._failure)) from self._failure
        self._start, self._failure = time.monotonic(), None
        return self

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, StoreBusyError):
            self._began, self._failure = self._start, error
