"""What the threads of a call wait for, so that it can be cancelled when the call is given up."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Dependents:
    """Nested runs and accessors that the threads of one call wait for."""

    __slots__ = ("_cancels", "_given_up", "_mutex")

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._cancels: list[Callable[[], None]] = []
        self._given_up = False

    def __bool__(self) -> bool:
        """Whether some of them have not ended."""
        return bool(self._cancels)

    @contextmanager
    def cancelled_by(self, cancel: Callable[[], None]) -> Iterator[None]:
        """If the call is given up during the block, call `cancel`; at once if it was given up before.

        Args:
            cancel: May be called from any thread.
        """
        with self._mutex:
            self._cancels.append(cancel)
            given_up = self._given_up
        try:
            if given_up:
                cancel()
            yield
        finally:
            with self._mutex:
                self._cancels.remove(cancel)

    def give_up(self) -> None:
        """Cancel all of them, and all that are added later."""
        with self._mutex:
            self._given_up, cancels = True, list(self._cancels)
        for cancel in cancels:
            cancel()
