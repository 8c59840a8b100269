"""Calls that a model asks for in one turn come to the state in the order in which it wrote them.

They start together, in threads that the operating system wakes in any order, so "add milk, add eggs" could
end as eggs and milk. A call therefore lets those before it go first, if they come to the state within a short
grace; one that is busy with something else for longer holds nobody up.
"""

from __future__ import annotations

import threading
import time

GRACE = 0.05
"""Seconds after the turn's start for which calls wait for those before them."""


class TurnOrder:
    """The order of one turn's calls."""

    def __init__(self, calls: int) -> None:
        self._condition = threading.Condition()
        self._passed = [False] * calls
        self._deadline = time.monotonic() + GRACE

    def slots(self) -> list[TurnSlot]:
        """One place for each call, in order."""
        return [TurnSlot(self, index) for index in range(len(self._passed))]

    def wait(self, index: int) -> None:
        """Wait in a thread until all calls before `index` have passed, or the grace is over."""
        with self._condition:
            self._condition.wait_for(
                lambda: all(self._passed[:index]), max(0.0, self._deadline - time.monotonic())
            )

    def mark_passed(self, index: int) -> None:
        """Let later calls go: this one holds the state, waits for it, or ended without touching it."""
        with self._condition:
            if not self._passed[index]:
                self._passed[index] = True
                self._condition.notify_all()


class TurnSlot:
    """One call's place in its turn."""

    __slots__ = ("_index", "_order")

    def __init__(self, order: TurnOrder, index: int) -> None:
        self._order = order
        self._index = index

    def wait(self) -> None:
        """Let the calls before this one go first; in a thread."""
        self._order.wait(self._index)

    def mark_passed(self) -> None:
        """Let the calls after this one go on."""
        self._order.mark_passed(self._index)
