"""What the threads of a call wait for, and what must not outlive the call when it is given up."""

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
        """Some have not ended."""
        return bool(self._cancels)

    @contextmanager
    def cancelled_by(self, cancel: Callable[[], None]) -> Iterator[None]:
        """Call `cancel` if the call is given up in the block, from any thread; at once if it has been."""
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
        """Cancel them all, and whatever is still to come."""
        with self._mutex:
            self._given_up, cancels = True, list(self._cancels)
        for cancel in cancels:
            cancel()
