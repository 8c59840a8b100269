"""Tool calls of one turn take the state in the order in which the model wrote them.

They start at the same time, in threads that the operating system wakes in any order, so "add milk, add eggs"
could end as eggs and milk. A call therefore waits for the calls before it, but no longer than a short grace
period: a call that is busy with something else does not hold up the others.
"""

from __future__ import annotations

import threading
import time

GRACE = 0.05
"""Seconds, from the start of the turn, for which a call waits for the calls before it."""


class TurnOrder:
    """The order of the calls of one turn.

    Args:
        calls: How many calls there are.
    """

    def __init__(self, calls: int) -> None:
        self._condition = threading.Condition()
        self._passed = [False] * calls
        self._deadline = time.monotonic() + GRACE

    def slots(self) -> list[TurnSlot]:
        """One slot for each call, in order."""
        return [TurnSlot(self, index) for index in range(len(self._passed))]

    def wait(self, index: int) -> None:
        """Block the thread until all calls before `index` have passed, or the grace period is over."""
        with self._condition:
            self._condition.wait_for(
                lambda: all(self._passed[:index]), max(0.0, self._deadline - time.monotonic())
            )

    def mark_passed(self, index: int) -> None:
        """Let later calls pass: this one holds the state, waits for it, or ended without touching it."""
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
        """Block the thread until the calls before this one have passed, or the grace period is over."""
        self._order.wait(self._index)

    def mark_passed(self) -> None:
        """Let the calls after this one pass."""
        self._order.mark_passed(self._index)
