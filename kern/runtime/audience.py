"""Who hears the runs of one request, and how much of them: together with `out.py`, where that is decided."""

from __future__ import annotations

from collections.abc import Callable, Collection
from enum import IntEnum
from typing import Final

from kern.run.events import (
    Event,
    RunCancelledEvent,
    RunContentEvent,
    RunErrorEvent,
    RunPausedEvent,
)
from kern.runtime.stream import EventBuffer


class Listen(IntEnum):
    """How much of a run its consumer wants to hear."""

    nothing = 0
    content = 1
    """The top-level run's content, and its terminal event when that is no plain completion."""
    everything = 2


class Audience:
    """Everybody who hears the runs of one request: the consumer of the stream, and observers, such as the
    record of `store_events`.

    Args:
        buffer: The queue of the stream's consumer; None if the run is not streamed.
        listen: How much the consumer wants to hear.
        skip_events: Names of events that are not recorded; None to record nothing.
    """

    __slots__ = ("_buffer", "_listen", "follows", "hears_events", "queue", "recorded")

    def __init__(
        self, buffer: EventBuffer | None, listen: Listen, skip_events: Collection[str] | None
    ) -> None:
        self._listen = listen if buffer is not None else Listen.nothing
        self.recorded: list[Event] | None = None
        """The events so far, for `store_events`."""
        if skip_events is not None:
            self.recorded, record = _record(frozenset(skip_events))
            buffer = buffer or EventBuffer()
            buffer.observers = (*buffer.observers, record)
        self._buffer = buffer
        self.hears_events: bool = self._listen is Listen.everything or bool(buffer and buffer.observers)
        """Somebody hears every event: the consumer or an observer."""
        self.follows: bool = self._listen is not Listen.nothing
        """A consumer reads the run as a stream."""
        self.queue: EventBuffer | None = self._buffer if self.follows else None
        """Where events for the consumer go that it is known to want; None without one."""

    @property
    def reads_text(self) -> bool:
        """A consumer reads the answer as it comes, and hears of nothing else."""
        return self._listen is Listen.content

    def put(self, event: Event) -> None:
        """Tell the observers, and the consumer if it wants to hear it; never waits; from any thread."""
        if self._buffer is not None:
            self._buffer.put(event, deliver=self._wanted(event))

    def _wanted(self, event: Event) -> bool:
        if self._listen is Listen.content:
            kinds = (RunContentEvent, RunPausedEvent, RunCancelledEvent, RunErrorEvent)
            return event.source.nested_depth == 0 and isinstance(event, kinds)
        return self._listen is Listen.everything

    @property
    def gone(self) -> bool:
        """The consumer has closed its stream."""
        return self._buffer is not None and self._buffer.closed

    @property
    def full(self) -> bool:
        """The consumer is behind."""
        return self._buffer is not None and self._buffer.full

    async def drain(self) -> None:
        """Wait until the consumer has caught up."""
        if self._buffer is not None:
            await self._buffer.drain()

    def number_after(self, events: int) -> int:
        """The number that the newest event has after so many more; 0 where nobody is told of events."""
        return 0 if self._buffer is None else self._buffer.seq + events

    def go_on_after(self, number: int) -> None:
        """Number the next events from there on."""
        if self._buffer is not None:
            self._buffer.seq = number


def _record(skipped: Collection[str]) -> tuple[list[Event], Callable[[Event], None]]:
    """A list, and an observer that adds events to it, but for those of the names that are skipped."""
    recorded: list[Event] = []

    def record(event: Event) -> None:
        if event.event not in skipped:
            recorded.append(event)

    return recorded, record


NOBODY: Final = Audience(None, Listen.nothing, None)
"""For all runs that nobody hears: there is nothing in it that changes."""
