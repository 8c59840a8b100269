"""One wait for a busy database serves all runs of a session that want the same of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from kern.errors import StoreBusyError


class BusyWatch:
    """Remembers that the database was busy for all of its `busy_timeout`.

    The runs of a session load and commit one after the other. Those that had come before such an attempt
    began have waited as long as it did: each would wait for the whole time again, one after the other.
    """

    __slots__ = ("_began", "_failure")

    def __init__(self) -> None:
        self._began = 0.0
        self._failure: StoreBusyError | None = None

    @contextmanager
    def attempt(self, asked: float) -> Iterator[None]:
        """Round one attempt, of somebody who has waited for it since `asked`, by `time.monotonic`.

        Raises:
            StoreBusyError: The database was busy, or is, as an attempt has found that began since.
        """
        if self._failure is not None and self._began >= asked:
            raise StoreBusyError(str(self._failure)) from self._failure
        began, self._failure = time.monotonic(), None
        try:
            yield
        except StoreBusyError as error:
            self._began, self._failure = began, error
            raise
