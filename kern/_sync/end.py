"""Whether something has ended, for whoever asks; and a future of it, for whoever waits."""

from __future__ import annotations

import concurrent.futures
import threading


class End:
    """The end of something that goes on; from any thread.

    As a rule nobody waits for it. The future is made when it is first asked for: it costs more than the rest.
    """

    __slots__ = ("_done", "_future", "_mutex")

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._done = False
        self._future: concurrent.futures.Future[None] | None = None

    def done(self) -> bool:
        """It has ended."""
        return self._done

    def reached(self) -> None:
        """It ends now; once."""
        with self._mutex:
            self._done, future = True, self._future
        if future is not None:
            future.set_result(None)

    @property
    def future(self) -> concurrent.futures.Future[None]:
        """Done when it has ended; who waits for it cannot cancel it."""
        with self._mutex:
            if self._future is None:
                self._future = concurrent.futures.Future()
                self._future.set_running_or_notify_cancel()
                if self._done:
                    self._future.set_result(None)
            return self._future
