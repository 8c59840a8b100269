"""Who hears a run, and what of it they hear: the one place where that is decided.

`Audience` stands for everybody who listens to the runs of one request: the consumer of the stream, and
observers, such as the record of `store_events`. `Out` is what one run says to them. The engine and the tools
say what they have: a text, an answer, the result of a tool, an event, an aside. They never ask who listens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from enum import IntEnum
from typing import Any

from kern.run.events import (
    Event,
    EventSource,
    RunCancelledEvent,
    RunContentEvent,
    RunErrorEvent,
    RunIntermediateContentEvent,
    RunPausedEvent,
)
from kern.runtime.answer_text import BREAK, AnswerText
from kern.runtime.outcome import Answer, ToolOutcome
from kern.runtime.stream import EventBuffer


class Listen(IntEnum):
    """How much of a run its consumer wants to hear."""

    nothing = 0
    content = 1
    """The top-level run's content, and its terminal event when that is no plain completion."""
    everything = 2


class Audience:
    """Everybody who hears the runs of one request.

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


class Out:
    """What one run says, to whom, and what of that is its answer.

    Args:
        audience: Who hears the runs of this request.
        source: The run, as its events name it.
        above: The run that delegated to this one.
        heard: The events of this run are part of those of the run above.
        speaks_for_above: The answer of this run is the answer of the one above.
        of_value: The answer is a structured value; texts on the way to it are no part of it.
    """

    def __init__(
        self,
        audience: Audience,
        source: EventSource,
        above: Out | None = None,
        *,
        heard: bool = True,
        speaks_for_above: bool = False,
        of_value: bool = False,
    ) -> None:
        self.audience = audience
        self._above = above
        self.source = source
        self._name = source
        """Under whose name the consumer hears the answer."""
        self.of_value = of_value
        self.hears_events: bool = audience.hears_events
        """Somebody hears every event of this run."""
        self._queue = audience.queue
        """Where the answer goes as it comes; None if the consumer does not hear it."""
        if above is not None:
            self.hears_events = above.hears_events and heard
            if audience.reads_text or not heard:
                self._queue = None
            if speaks_for_above:
                above._speaker = self
                if audience.reads_text:
                    self._queue, self._name = above._queue, above._name
        self.refused = False
        """A check has refused the input or the answer."""
        self.turn_began: float = time.perf_counter()
        """When the model was asked."""
        self.first_text_after: float | None = None
        """Seconds until the first piece of its text came; None if none has come."""
        self._spoken = AnswerText()
        self._pieces: list[str] = []  # of the text that is coming
        self._begun = False  # it has begun: more than blanks have come
        self._held = ""  # the blanks before that
        self._of_tool = False  # it is the result of a tool
        self._in_turn = False  # the text of the current turn is a part of the answer
        self._shown = False  # the consumer has heard some of it
        self._led = False  # the break before the next text was shown already
        self._speaker: Out | None = None  # the member whose answer is this run's, while it works on it

    # Events and asides.

    def event(self, event: Event) -> None:
        """Tell those who hear every event; never waits."""
        if self.hears_events:
            self.audience.put(event)

    def aside(self, text: str, tool_call_id: str | None = None) -> None:
        """Say a text that is no part of the answer."""
        if self.hears_events:
            self.audience.put(RunIntermediateContentEvent(self.source, text, tool_call_id))

    @property
    def streams(self) -> bool:
        """The consumer hears the answer as it comes."""
        return self._queue is not None

    async def wait_for_consumer(self) -> None:
        """Wait for a slow consumer. Only where the run does not have the session state."""
        buffer = self.audience._buffer
        if buffer is not None and buffer.full:
            await buffer.drain()

    # The text of a turn, or of a tool, as it comes.

    def begin_turn(self) -> None:
        """A model is asked: what comes next is the text of another turn."""
        self._shown = self._in_turn = False
        self.turn_began, self.first_text_after = time.perf_counter(), None
        self._pieces, self._begun, self._held, self._of_tool = [], False, "", False

    def begin_result(self) -> None:
        """The pieces of a tool's result come next, which are a part of the answer."""
        self._pieces, self._begun, self._held, self._of_tool = [], False, "", True

    def text_begins(self) -> None:
        """The first piece of the turn's text has come, whatever it is."""
        if self.first_text_after is None:
            self.first_text_after = time.perf_counter() - self.turn_began

    def text(self, piece: str) -> None:
        """A piece of a text that is a part of the answer; from any thread."""
        if not self._begun:
            self._begin(piece)
        elif piece:
            self._pieces.append(piece)
            if self._queue is not None:
                self._queue.put(RunContentEvent(self._name, piece))
            elif self.hears_events:
                self.audience.put(RunContentEvent(self._name, piece))

    def _begin(self, piece: str) -> None:
        """The first pieces: blanks are held back until there is a text that they belong to."""
        self.text_begins()
        text = self._held + piece
        if not text or text.isspace():
            self._held = text
            return
        self._begun = True
        lead = self._lead()
        self._pieces = self._spoken.begin()
        self._pieces.append(text)
        if self._queue is not None:
            self._shown = True
            self._queue.put(RunContentEvent(self._name, lead + text))
        elif self.hears_events:
            self.audience.put(RunContentEvent(self._name, lead + text))

    def text_ended(self, text: str) -> None:
        """The text of the turn is here as a whole: what no piece has brought is said now."""
        if not text.strip():
            return
        unheard = self._queue is None and self._above is None and not self.hears_events
        if unheard and not self._begun:
            if self.first_text_after is None:
                self.first_text_after = time.perf_counter() - self.turn_began
            self._begun = self._in_turn = True
            self._led = False
            self._spoken.add(text)
            return
        self._bring(text)
        # A model may return something else than what people have seen.
        self._spoken.add("".join(self._pieces) if self.streams else text)
        self._in_turn = True

    def text_cut(self, text: str) -> None:
        """The text of the turn breaks off after `text`, which without a stream no piece brings."""
        if not self.streams:
            self._bring(text)

    def _bring(self, text: str) -> None:
        """The rest of a text of which pieces have brought the beginning."""
        if not self._begun:
            self._held = ""
            self.text(text)
            return
        streamed = "".join(self._pieces)
        if text.startswith(streamed):
            self.text(text[len(streamed) :])

    def take_back(self) -> bool:
        """The text of the turn is void: it is made again. False if the consumer cannot be told of that."""
        if self._shown and self.audience.reads_text:
            return False
        self._spoken.drop()
        return True

    # Answers and results.

    def answer(self, answer: Answer) -> None:
        """The answer is there: it is said now, unless it is the text of the turn."""
        if not answer.is_text:
            self._show(answer.content, answer.content_type)
        elif not self._in_turn:
            self._say(answer.content)

    def answer_so_far(self, value: Any) -> None:
        """A value that is the answer as far as it is written."""
        self._show(value, "dict" if isinstance(value, dict) else type(value).__name__)

    def calls_begin(self) -> None:
        """The text of the turn has led to tool calls."""
        if self._in_turn:
            self._spoken.leads_to_call()

    def result(self, outcome: ToolOutcome) -> None:
        """A tool call has ended: its result is a part of the answer if the tool is one whose results are."""
        if not (outcome.show or outcome.stop):
            return
        if self._of_tool and self._begun and outcome.show:  # it was said as it came
            self._spoken.add(outcome.content)
            return
        self._spoken.close()  # the pieces of a generator that has stopped the run
        if self.of_value:
            self.aside(outcome.content)
            self._spoken.add(outcome.content)
        else:
            self._say(outcome.content)

    def calls_ended(self, answer: Answer | None, *, heard: bool) -> None:
        """The calls of a turn are over: what was said in them is a part of what this run says.

        Args:
            answer: The answer that they have given.
            heard: The consumer has heard it as it came.
        """
        speaker, self._speaker = self._speaker, None
        self._spoken.close()  # the pieces of a generator that has failed
        if answer is None:
            if speaker is not None and speaker._name is not speaker.source:
                if speaker.refused:
                    self._spoken.withdraw()
                self._spoken.add(speaker.words, "")
            return
        self._led = False
        if not answer.is_text:
            if not heard:
                self._show(answer.content, answer.content_type)
        elif heard or self.of_value:  # of whose text a value is made
            self._spoken.add(answer.content, answer.last_turn)
        else:
            self._say(answer.content, answer.last_turn)

    def _show(self, content: Any, content_type: str | None = None) -> None:
        if self._queue is not None:
            self._queue.put(RunContentEvent(self._name, content, content_type))

    def _say(self, text: str, last_turn: str | None = None) -> None:
        """Say a whole text as a part of the answer."""
        if text:
            self._show(self._lead() + text)
            self._spoken.add(text, last_turn)

    def _lead(self) -> str:
        """What goes before the next text of the answer: a break, if any text was shown before it."""
        if self._spoken.begun:
            led, self._led = self._led, False
            return "" if led else BREAK
        above = self._above
        if above is None or above._speaker is not self:
            return ""
        if self._name is not self.source:
            return above._lead()
        if self.streams and not above._led and (lead := above._lead()):
            above._show(lead)  # and the text comes under this run's own name
            above._led = True
        return ""

    # What was said.

    @property
    def words(self) -> str:
        """What the run has said as its answer so far, with what a member says for it."""
        if self.refused:
            return ""
        speaking = self._speaker.words if self._speaker is not None else ""
        return BREAK.join(text for text in (self._spoken.text, speaking) if text)

    @property
    def unfinished(self) -> str:
        """What was said of a text that has not come to its end, by this run or by a member for it."""
        return self._spoken.unfinished or (self._speaker.words if self._speaker is not None else "")

    @property
    def said(self) -> str:
        """The texts that are the answer."""
        return self._spoken.text

    @property
    def last_turn(self) -> str:
        """The same without what was said on the way to a call."""
        return self._spoken.last_turn

    def to_list(self) -> list[list[str]]:
        """What was said, for a pause, as JSON."""
        return self._spoken.to_list()

    def go_on_after(self, said: Sequence[Sequence[str]]) -> None:
        """Go on after what was said before a pause."""
        self._spoken = AnswerText(said)
