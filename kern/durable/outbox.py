"""The events of a run with a journal, on their way to the database, where they are written with the steps.

The event that completes a turn or a call is emitted before its step is stored, and both are written in one
transaction: other processes that read the events have the whole turn if its step is on record. A run that is
resumed emits the events of its recorded steps again; those that are stored already are skipped.
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
"""How far the `seq` of live events may be ahead of the last one in the database. When another process takes
the run over, its events are numbered from above that, so that followers who got live events that were never
stored still get the following ones."""

_COMPLETING = (ModelRequestCompletedEvent, ToolCallCompletedEvent)
"""Events that are emitted right before a step is stored."""


class Outbox:
    """The events of one run that are not written yet.

    Args:
        last_seq: The `seq` of the last stored event of the run.
        read_stored: Reads the stored events of the run after a number.
    """

    def __init__(self, last_seq: int, read_stored: Callable[[int], Awaitable[Sequence[Event]]]) -> None:
        self.last_seq: int = last_seq
        self.read_stored = read_stored
        self._mutex = threading.Lock()
        self._queued: list[Event] = []
        self._known: Counter[str] = Counter()
        """By run: how many recorded steps are still to be emitted again."""
        self._begun: str | None = None
        self._revision = 0
        self._written = last_seq
        self._sent_live = last_seq
        """The `seq` of the last event that was sent, live or through the database."""
        self._live = 0
        """How many of the events were sent live."""

    @property
    def waiting(self) -> bool:
        """Whether there are events to write."""
        return bool(self._queued)

    def resume(self, continued: RunContinuedEvent, kept: Iterable[Event]) -> None:
        """Begin with a run that this process has taken over.

        Args:
            continued: The event that says so, with the state after the commits on record.
            kept: The stored events of this part of the run.
        """
        with self._mutex:
            for event in kept:
                if isinstance(event, _COMPLETING):
                    self._known[event.source.run_id] += 1
            self._begun, self._revision = continued.source.run_id, continued.revision or 0
            self._queued.append(continued)

    def put(self, event: Event) -> None:
        """Add an event of the run. May be called from any thread."""
        with self._mutex:
            if not self._is_known(event):
                self._queued.append(event)

    def _is_known(self, event: Event) -> bool:
        run_id = event.source.run_id
        if isinstance(event, SessionStateChangedEvent):
            return event.revision <= self._revision
        if isinstance(event, RunStartedEvent | RunContinuedEvent) and run_id == self._begun:
            return True  # `resume` has queued the event that says so
        left = self._known[run_id] if self._known else 0
        if left and isinstance(event, _COMPLETING):
            self._known[run_id] = left - 1
        return left > 0

    def take(self, *, between: bool = False) -> list[EventRow]:
        """Take the events, to write them now.

        Args:
            between: No step is written with them, so an event that completes one stays, with all after it.
        """
        with self._mutex:
            count = self._until_completing() if between else len(self._queued)
            taken, self._queued = self._queued[:count], self._queued[count:]
            self._live = max(0, self._live - count)
            if not taken:
                return []
            sent_live, self.last_seq = self._sent_live, taken[-1].seq
            self._sent_live = max(sent_live, self.last_seq)
        return [EventRow(last_seq=taken[-1].seq, data=written(joined(taken, sent_live)))]

    def written_up_to(self, seq: int) -> None:
        """Note that the database has the events up to that number."""
        self._written = max(self._written, seq)

    @property
    def stuck(self) -> bool:
        """Whether live events are as far ahead of the database as they may be."""
        return bool(self._queued) and self._queued[-1].seq > self._written + AHEAD

    def live(self) -> Delta | None:
        """The events since the last call, for live followers. They stay in the outbox until they are written.

        An event that completes a step, and all after it, are held back until the step is stored.
        """
        with self._mutex:
            count = self._until_completing()
            fresh = self._queued[self._live : count]
            if not fresh or fresh[-1].seq > self._written + AHEAD:
                return None
            pieces = joined(fresh)
            self._queued[self._live : count] = [piece.event for piece in pieces]
            self._live += len(pieces)
            before, self._sent_live = self._sent_live, fresh[-1].seq
        return Delta(after=before, last_seq=fresh[-1].seq, data=written(pieces))

    def _until_completing(self) -> int:
        completing = (n for n, event in enumerate(self._queued) if isinstance(event, _COMPLETING))
        return next(completing, len(self._queued))
