"""What a run with a journal tells, on its way to the database: there it is written with the steps.

The event that completes a turn, or a call, is told before the step is kept, and both are written at once:
who reads the events later, from another process, has a turn as a whole if it is on record. In another life
the run tells its recorded steps again; what is kept of that is passed over.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from pydantic_core import from_json

from kern._json import json_bytes
from kern._log import named
from kern.db.journals import EventRow
from kern.errors import UsageError
from kern.run.events import (
    Event,
    ModelRequestCompletedEvent,
    ReasoningContentDeltaEvent,
    RunContentEvent,
    RunContinuedEvent,
    RunStartedEvent,
    SessionStateChangedEvent,
    ToolCallCompletedEvent,
    event_from_dict,
)

log: Final = named("kern")

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
            count = len(self._told)
            if between:
                completing = (n for n, event in enumerate(self._told) if isinstance(event, _COMPLETING))
                count = next(completing, count)
            taken, self._told = self._told[:count], self._told[count:]
        if not taken:
            return []
        self.last_seq = taken[-1].seq
        return [
            EventRow(last_seq=self.last_seq, data=json_bytes([event.to_dict() for event in _joined(taken)]))
        ]


def _joined(events: Sequence[Event]) -> list[Event]:
    """The events, with neighbouring pieces of one text as one piece, under the number of the last."""
    joined: list[Event] = []
    for event in events:
        whole = _whole(joined[-1], event) if joined else None
        if whole is None:
            joined.append(event)
        else:
            whole.seq, whole.created_at = event.seq, event.created_at
            joined[-1] = whole
    return joined


def _whole(first: Event, second: Event) -> Event | None:
    """Both pieces as one, if they are of one text."""
    if type(first) is not type(second) or first.source is not second.source:
        return None
    if isinstance(first, RunContentEvent) and isinstance(second, RunContentEvent):
        texts = isinstance(first.content, str) and isinstance(second.content, str)
        if texts and first.content_type is None and second.content_type is None:
            return RunContentEvent(first.source, first.content + second.content)
    if isinstance(first, ReasoningContentDeltaEvent) and isinstance(second, ReasoningContentDeltaEvent):
        return ReasoningContentDeltaEvent(first.source, first.reasoning_content + second.reasoning_content)
    return None


def events_of(run_id: str, row: EventRow) -> list[Event]:
    """The events of a row; those that cannot be read are logged and left out."""
    try:
        items: Any = from_json(row.data)
    except ValueError as error:
        log.warning("run %s: the events up to %d cannot be read: %s", run_id, row.last_seq, error)
        return []
    events = []
    for item in items if isinstance(items, list) else [items]:
        try:
            events.append(event_from_dict(item))
        except (UsageError, ValueError, TypeError, LookupError, AttributeError) as error:
            log.warning("run %s: an event cannot be read, and is left out: %s", run_id, error)
    return events
