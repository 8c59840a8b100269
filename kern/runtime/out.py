"""The output of one run: which texts are its answer, and which events its consumer gets.

The engine and the tools report what they have: a text, an answer, the result of a tool, an event, an aside.
They do not know who listens; `Out` decides what to emit.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kern.run.events import Event, EventSource, RunContentEvent, RunIntermediateContentEvent
from kern.runtime.audience import Audience

BREAK = "\n\n"
"""Separates the texts of two turns, streamed or not."""


@dataclass(slots=True, frozen=True)
class Answer:
    """The answer of a run: a text, or a structured value with the name of its class.

    Args:
        last_turn: For the text of a team member: the part that did not precede a tool call; None: all of it.
    """

    content: Any
    content_type: str = "str"
    last_turn: str | None = None

    @property
    def is_text(self) -> bool:
        """Whether the answer is a text, not a structured value."""
        return self.content_type == "str" and isinstance(self.content, str)


@dataclass(slots=True, frozen=True)
class RetryAnswer:
    """The answer is invalid: the model gets `message`, and answers again."""

    message: str


class AnswerText:
    """The text that a run has shown as its answer: texts of turns, results of tools, answers of team members.

    Args:
        parts: The parts from before a pause. Each is a pair: the text, and the part of it that did not
            precede a tool call.
    """

    __slots__ = ("_open", "_parts", "_withdrawn")

    def __init__(self, parts: Sequence[Sequence[str]] = ()) -> None:
        self._parts = [(part[0], part[1]) for part in parts] if parts else []
        self._open: list[str] = []
        self._withdrawn = False

    def begin(self) -> list[str]:
        """Begin a part that is streamed. Return the list to which its deltas are to be added."""
        self._open = []
        return self._open

    def drop(self) -> None:
        """Drop the streamed deltas of a part: the model answers again."""
        self._open = []

    def add(self, text: str, last_turn: str | None = None) -> None:
        """Add a whole part, in place of its deltas.

        Args:
            last_turn: The part of the text that did not precede a tool call; None: all of it.
        """
        self._open = []
        if text:
            self._parts.append((text, text if last_turn is None else last_turn))

    def close(self) -> None:
        """Add the streamed deltas as a whole part."""
        self.add("".join(self._open))

    def withdraw(self) -> None:
        """Note that a check refused the text that was shown: it is not a part of the answer."""
        self._withdrawn = True

    def leads_to_call(self) -> None:
        """Note that the newest part preceded a tool call."""
        self._parts[-1] = (self._parts[-1][0], "")

    @property
    def begun(self) -> bool:
        """Whether any text was shown."""
        return bool(self._parts or self._open or self._withdrawn)

    @property
    def unfinished(self) -> str:
        """The streamed deltas of a part that has not ended."""
        return "".join(self._open)

    @property
    def text(self) -> str:
        """The whole text."""
        if len(self._parts) == 1 and not self._open:
            return self._parts[0][0]
        return BREAK.join([*(text for text, _ in self._parts), *([self.unfinished] if self._open else [])])

    @property
    def last_turn(self) -> str:
        """The text without the parts that preceded a tool call."""
        if len(self._parts) == 1:
            return self._parts[0][1]
        return BREAK.join([kept for _, kept in self._parts if kept])

    def to_list(self) -> list[list[str]]:
        """Return the parts as JSON, to be stored at a pause."""
        return [list(part) for part in self._parts]


class Out:
    """The output of one run: collects its answer, and sends its events to the audience.

    Args:
        audience: The consumer and the observers of the request.
        source: The source of the run's events.
        above: The output of the run that delegated to this one.
        emits: Whether the events of this run are emitted together with those of the run above.
        speaks_for_above: Whether the answer of this run is the answer of the run above.
        of_value: Whether the answer is a structured value; then texts are not a part of it.
    """

    def __init__(
        self,
        audience: Audience,
        source: EventSource,
        above: Out | None = None,
        *,
        emits: bool = True,
        speaks_for_above: bool = False,
        of_value: bool = False,
    ) -> None:
        self.audience = audience
        self._above = above
        self.source = source
        self._name = source
        """The source of the content events: this run, or the one that it speaks for."""
        self.of_value = of_value
        self.wants_events: bool = audience.wants_events
        """Whether a consumer or an observer gets every event of this run."""
        self._queue = audience.queue
        """The queue for the deltas of the answer; None if the consumer does not get them."""
        if above is not None:
            self.wants_events = above.wants_events and emits
            if audience.reads_text or not emits:
                self._queue = None
            if speaks_for_above:
                above._speaker = self
                if audience.reads_text:
                    self._queue, self._name = above._queue, above._name
        self.streams: bool = self._queue is not None
        """Whether the consumer gets the answer while it is written."""
        self.refused = False
        """Whether a check refused the input or the answer."""
        self.turn_began: float = time.perf_counter()
        """When the request to the model began, by `time.perf_counter`."""
        self.first_text_after: float | None = None
        """The seconds from `turn_began` to the first delta of text; None if there is none."""
        self.spoken: AnswerText = AnswerText()
        """The texts that are the answer."""
        self._pieces: list[str] = []  # the deltas of the current text
        self._begun = False  # the current text has begun: more than white space has arrived
        self._held = ""  # the white space before that
        self._of_tool = False  # the current text is the result of a tool
        self._in_turn = False  # the text of the current turn is a part of the answer
        self._shown = False  # the consumer has got a part of it
        self._led = False  # the break before the next text was sent already
        self._speaker: Out | None = None  # the team member whose answer is this run's, while it works

    # Events and asides.

    def event(self, event: Event) -> None:
        """Emit an event to those who get every event. Never waits."""
        if self.wants_events:
            self.audience.put(event)

    def aside(self, text: str, tool_call_id: str | None = None) -> None:
        """Emit a text that is not a part of the answer."""
        if self.wants_events:
            self.audience.put(RunIntermediateContentEvent(self.source, text, tool_call_id))

    async def wait_for_consumer(self) -> None:
        """Wait for a slow consumer. Call this only while the run does not hold the session state."""
        if self.audience.full:
            await self.audience.drain()

    # The text of a turn or of a tool, while it is written.

    def begin_turn(self) -> None:
        """Note that a request to a model begins: the next text belongs to a new turn."""
        self._shown = self._in_turn = False
        self.turn_began, self.first_text_after = time.perf_counter(), None
        self._pieces, self._begun, self._held, self._of_tool = [], False, "", False

    def begin_result(self) -> None:
        """Note that the next text is the streamed result of a tool, as a part of the answer."""
        self._pieces, self._begun, self._held, self._of_tool = [], False, "", True

    def text_begins(self) -> None:
        """Note the time of the first delta of the turn."""
        if self.first_text_after is None:
            self.first_text_after = time.perf_counter() - self.turn_began

    def text(self, piece: str) -> None:
        """Add a delta of a text that is a part of the answer. May be called from any thread."""
        if not self._begun:
            self._begin(piece)
        elif piece:
            self._pieces.append(piece)
            if self._queue is not None:
                self._queue.put(RunContentEvent(self._name, piece))
            elif self.wants_events:
                self.audience.put(RunContentEvent(self._name, piece))

    def _begin(self, piece: str) -> None:
        """Add the first deltas: white space is held back until there is a text after it."""
        self.text_begins()
        text = self._held + piece
        if not text or text.isspace():
            self._held = text
            return
        self._begun = True
        lead = self._lead()
        self._pieces = self.spoken.begin()
        self._pieces.append(text)
        if self._queue is not None:
            self._shown = True
            self._queue.put(RunContentEvent(self._name, lead + text))
        elif self.wants_events:
            self.audience.put(RunContentEvent(self._name, lead + text))

    def text_ended(self, text: str) -> None:
        """Add the whole text of the turn: what the deltas did not contain is emitted now."""
        if not text.strip():
            return
        # If a consumer reads the text, this run or the one above may have to send a break before it.
        unobserved = self._above is None or not self.audience.follows
        if unobserved and self._queue is None and not self.wants_events and not self._begun:
            if self.first_text_after is None:
                self.first_text_after = time.perf_counter() - self.turn_began
            self._begun = self._in_turn = True
            self._led = False
            self.spoken.add(text)
            return
        self._bring(text)
        # The whole text of a model may differ from the deltas that people have seen.
        self.spoken.add("".join(self._pieces) if self.streams else text)
        self._in_turn = True

    def text_cut(self, text: str) -> None:
        """Add the text of a turn that was cut off, unless its deltas were streamed."""
        if not self.streams:
            self._bring(text)

    def _bring(self, text: str) -> None:
        """Add the rest of a text after its deltas."""
        if not self._begun:
            self._held = ""
            self.text(text)
            return
        streamed = "".join(self._pieces)
        if text.startswith(streamed):
            self.text(text[len(streamed) :])

    def take_back(self) -> bool:
        """Drop the text of the turn: the model answers again.

        Returns:
            False if the consumer has read the text already, and would get no event about the repetition.
        """
        if self._shown and self.audience.reads_text:
            return False
        self.spoken.drop()
        return True

    # Answers and results.

    def answer(self, answer: Answer) -> None:
        """Emit the answer, unless it is the text of the turn, which is emitted already."""
        if not answer.is_text:
            self._show(answer.content, answer.content_type)
        elif not self._in_turn:
            self._say(answer.content)

    def answer_so_far(self, value: Any) -> None:
        """Emit the beginning of a structured answer that is still being written."""
        self._show(value, "dict" if isinstance(value, dict) else type(value).__name__)

    def calls_begin(self) -> None:
        """Note that the turn calls tools."""
        if self._in_turn:
            self.spoken.leads_to_call()

    def result(self, text: str, *, as_it_came: bool) -> None:
        """Add the result of a tool call as a part of the answer.

        Args:
            as_it_came: Whether the chunks of a tool that is a generator were streamed already.
        """
        if self._of_tool and self._begun and as_it_came:
            self.spoken.add(text)
            return
        self.spoken.close()  # the chunks of a generator that stopped the run
        if self.of_value:
            self.aside(text)
            self.spoken.add(text)
        else:
            self._say(text)

    def calls_ended(self, answer: Answer | None, *, streamed: bool) -> None:
        """Note that the calls of a turn have ended, and add the texts of team members.

        Args:
            answer: The answer of the run, if the calls gave one.
            streamed: Whether the consumer got that answer while it was written.
        """
        speaker, self._speaker = self._speaker, None
        self.spoken.close()  # the chunks of a generator that failed
        if answer is None:
            if speaker is not None:
                self._keep_words_of(speaker)
            return
        self._led = False
        if not answer.is_text:
            if not streamed:
                self._show(answer.content, answer.content_type)
        elif streamed or self.of_value:  # a structured answer is made from the text later
            self.spoken.add(answer.content, answer.last_turn)
        else:
            self._say(answer.content, answer.last_turn)

    def _keep_words_of(self, speaker: Out) -> None:
        """Add what a team member said before it failed: it was shown as the answer of this run."""
        if speaker.refused:
            if speaker.spoken.begun and speaker.streams:
                self.spoken.withdraw()
        elif words := speaker.words:
            if not speaker.streams:
                self._show(self._lead() + words)
            self._led = False
            self.spoken.add(words, "")

    def _show(self, content: Any, content_type: str | None = None) -> None:
        if self._queue is not None:
            self._queue.put(RunContentEvent(self._name, content, content_type))

    def _say(self, text: str, last_turn: str | None = None) -> None:
        """Emit and add a whole text as a part of the answer."""
        if text:
            self._show(self._lead() + text)
            self.spoken.add(text, last_turn)

    def _lead(self) -> str:
        """Return what precedes the next text of the answer: a break, if text was shown before."""
        if self.spoken.begun:
            led, self._led = self._led, False
            return "" if led else BREAK
        above = self._above
        if above is None or above._speaker is not self:
            return ""
        if self._name is not self.source:
            return above._lead()
        if self.streams and not above._led and (lead := above._lead()):
            above._show(lead)  # the text itself is emitted under this run's name
            above._led = True
        return ""

    # The text so far.

    @property
    def words(self) -> str:
        """The text of the answer so far, with the text of a team member that speaks for the run."""
        if self.refused:
            return ""
        speaking = self._speaker.words if self._speaker is not None else ""
        return BREAK.join(text for text in (self.spoken.text, speaking) if text)

    @property
    def unfinished(self) -> str:
        """The beginning of a text that has not ended, of this run or of a team member that speaks for it."""
        return self.spoken.unfinished or (self._speaker.words if self._speaker is not None else "")

    def to_list(self) -> list[list[str]]:
        """Return the texts of the answer as JSON, to be stored at a pause."""
        return self.spoken.to_list()

    def continue_after(self, said: Sequence[Sequence[str]]) -> None:
        """Continue after the texts from before a pause."""
        self.spoken = AnswerText(said)
