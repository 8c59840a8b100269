"""What a run with a journal tells, on its way to the database: there it is written with the steps.

The event that completes a turn, or a call, is told before the step is kept, and both are written at once:
who reads the events later, from another process, has a turn as a whole if it is on record. In another life
the run tells its recorded steps again; what is kept of that is passed over.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from kern.db.journals import EventRow
from kern.durable.deltas import Delta
from kern.durable.pieces import joined, written
from kern.run.events import (
    Event,
    ModelRequestCompletedEvent,
    RunContinuedEvent,
    RunStartedEvent,
    SessionStateChangedEvent,
    ToolCallCompletedEvent,
)

AHEAD: Final = 1_000_000
"""By so much may the number of what is told live be above the last number in the database. The numbers of the
next life begin above that: whoever has heard what the database never got still hears what comes next.
"""

_COMPLETING = (ModelRequestCompletedEvent, ToolCallCompletedEvent)
"""Events that are told right before a step is kept."""


class Outbox:
    """The events of one run that are not written yet.

    Args:
        last_seq: The number of the last event that is kept of the run.
        told: Reads what is kept of what the run has told after a number.
    """

    def __init__(self, last_seq: int, told: Callable[[int], Awaitable[Sequence[Event]]]) -> None:
        self.last_seq: int = last_seq
        self.told = told
        self._mutex = threading.Lock()
        self._told: list[Event] = []
        self._known: Counter[str] = Counter()
        """How many steps of each run have yet to be told again that are on record."""
        self._begun: str | None = None
        self._revision = 0
        self._written = last_seq
        self._told_live = last_seq
        """The number of the last event that was told, live or by the database."""
        self._live = 0
        """How many of the events were told live."""

    @property
    def waiting(self) -> bool:
        """There are events to be written."""
        return bool(self._told)

    def go_on(self, continued: RunContinuedEvent, kept: Iterable[Event]) -> None:
        """The run goes on in another life.

        Args:
            continued: Tells it, with the state that the commits on record have led to.
            kept: What was told of this part of the run.
        """
        with self._mutex:
            for event in kept:
                if isinstance(event, _COMPLETING):
                    self._known[event.source.run_id] += 1
            self._begun, self._revision = continued.source.run_id, continued.revision or 0
            self._told.append(continued)

    def put(self, event: Event) -> None:
        """An event of the run; from any thread."""
        with self._mutex:
            if not self._is_known(event):
                self._told.append(event)

    def _is_known(self, event: Event) -> bool:
        run_id = event.source.run_id
        if isinstance(event, SessionStateChangedEvent):
            return event.revision <= self._revision
        if isinstance(event, RunStartedEvent) and run_id == self._begun:
            return True
        left = self._known[run_id] if self._known else 0
        if left and isinstance(event, _COMPLETING):
            self._known[run_id] = left - 1
        return left > 0

    def take(self, *, between: bool = False) -> list[EventRow]:
        """The events, to be written now.

        Args:
            between: No step is written with them: what completes one stays.
        """
        with self._mutex:
            count = self._until_completing() if between else len(self._told)
            taken, self._told = self._told[:count], self._told[count:]
            self._live = max(0, self._live - count)
            if not taken:
                return []
            told, self.last_seq = self._told_live, taken[-1].seq
            self._told_live = max(told, self.last_seq)
        return [EventRow(last_seq=taken[-1].seq, data=written(joined(taken, told)))]

    def written_up_to(self, seq: int) -> None:
        """The database has what was told up to that number."""
        self._written = max(self._written, seq)

    @property
    def stuck(self) -> bool:
        """Nothing more may be told live before the database has what was told."""
        return bool(self._told) and self._told[-1].seq > self._written + AHEAD

    def live(self) -> Delta | None:
        """What was told since the last time, for those who follow live; it is still to be written.

        What completes a step is not among it, and nothing after that: it is told once the step is kept.
        """
        with self._mutex:
            count = self._until_completing()
            fresh = self._told[self._live : count]
            if not fresh or fresh[-1].seq > self._written + AHEAD:
                return None
            pieces = joined(fresh)
            self._told[self._live : count] = [piece.event for piece in pieces]
            self._live += len(pieces)
            before, self._told_live = self._told_live, fresh[-1].seq
        return Delta(after=before, last_seq=fresh[-1].seq, data=written(pieces))

    def _until_completing(self) -> int:
        completing = (n for n, event in enumerate(self._told) if isinstance(event, _COMPLETING))
        return next(completing, len(self._told))
