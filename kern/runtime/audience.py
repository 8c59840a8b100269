"""The audience of one request: which events its consumer and its observers get. See also `out.py`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from copy import copy as shallow
from dataclasses import fields
from enum import IntEnum
from typing import Final

from kern._json import copied
from kern.run.events import (
    Event,
    RunCancelledEvent,
    RunContentEvent,
    RunErrorEvent,
    RunPausedEvent,
)
from kern.run.tool_execution import ToolExecution
from kern.runtime.stream import EventBuffer


class Listen(IntEnum):
    """Which events the consumer of a run gets."""

    nothing = 0
    content = 1
    """The content of the top-level run, and its terminal event unless the run completes."""
    everything = 2


class Audience:
    """Receives the events of one request: for the consumer of the stream, and for observers, such as the
    record of `store_events`.

    Args:
        buffer: The queue of the stream's consumer; None if the run is not streamed.
        listen: Which events the consumer gets.
        skip_events: The names of events that are not recorded; None: no event is recorded.
    """

    __slots__ = ("_buffer", "_listen", "follows", "queue", "recorded", "wants_events")

    def __init__(
        self, buffer: EventBuffer | None, listen: Listen, skip_events: Collection[str] | None
    ) -> None:
        self._listen = listen if buffer is not None else Listen.nothing
        self.recorded: list[Event] | None = None
        """The events so far, for `store_events`."""
        if skip_events is not None:
            self.recorded, record = _record(frozenset(skip_events), shared=buffer is not None)
            buffer = buffer or EventBuffer()
            buffer.observers = (*buffer.observers, record)
        self._buffer = buffer
        self.wants_events: bool = self._listen is Listen.everything or bool(buffer and buffer.observers)
        """Whether the consumer or an observer gets every event."""
        self.follows: bool = self._listen is not Listen.nothing
        """Whether a consumer reads the run as a stream."""
        self.queue: EventBuffer | None = self._buffer if self.follows else None
        """The queue for events that the consumer is known to want; None without a consumer."""

    @property
    def reads_text(self) -> bool:
        """Whether the consumer reads only the text of the answer."""
        return self._listen is Listen.content

    def put(self, event: Event) -> None:
        """Send an event to observers, and to the consumer if it wants it, from any thread. Never waits."""
        if self._buffer is not None:
            self._buffer.put(event, deliver=self._wanted(event))

    def _wanted(self, event: Event) -> bool:
        if self._listen is Listen.content:
            kinds = (RunContentEvent, RunPausedEvent, RunCancelledEvent, RunErrorEvent)
            return event.source.nested_depth == 0 and isinstance(event, kinds)
        return self._listen is Listen.everything

    @property
    def consumer_left(self) -> bool:
        """Whether the consumer has closed its stream."""
        return self._buffer is not None and self._buffer.closed

    @property
    def full(self) -> bool:
        """Whether the consumer is behind."""
        return self._buffer is not None and self._buffer.full

    async def drain(self) -> None:
        """Wait until the consumer has caught up."""
        if self._buffer is not None:
            await self._buffer.drain()

    def number_after(self, events: int) -> int:
        """Return the `seq` of the newest event after `events` more; 0 without consumer and observers."""
        return 0 if self._buffer is None else self._buffer.seq + events

    def continue_after(self, number: int) -> None:
        """Give the next events the numbers after `number`."""
        if self._buffer is not None:
            self._buffer.seq = number


def _record(skipped: Collection[str], *, shared: bool) -> tuple[list[Event], Callable[[Event], None]]:
    """Return a list, and an observer that adds events to it, except those with skipped names.

    If the events are `shared` with a consumer, it adds copies: the consumer may change what it gets.
    """
    recorded: list[Event] = []

    def record(event: Event) -> None:
        if event.event not in skipped:
            recorded.append(_copy(event) if shared else event)

    return recorded, record


def _copy(event: Event) -> Event:
    copy: Event = shallow(event)
    for field in fields(event):
        value = getattr(event, field.name)
        if isinstance(value, dict | list):
            setattr(copy, field.name, copied(value))
        elif isinstance(value, ToolExecution):
            setattr(copy, field.name, value.copied())
    return copy


NOBODY: Final = Audience(None, Listen.nothing, None)
"""Shared by all runs without consumer and observers: it has no state that changes."""
