"""What one run says, to whom, and what of that is its answer.

The engine and the tools say what they have: a text, an answer, the result of a tool, an event, an aside. They
never ask who listens.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kern.run.events import Event, EventSource, RunContentEvent, RunIntermediateContentEvent
from kern.runtime.audience import Audience

BREAK = "\n\n"
"""Stands between what two turns say, streamed or not."""


@dataclass(slots=True, frozen=True)
class Answer:
    """What a run comes to: text, or a structured value with the name of its class.

    Args:
        last_turn: Of a member's text: what of it is more than words on the way to a call; None for all of it.
    """

    content: Any
    content_type: str = "str"
    last_turn: str | None = None

    @property
    def is_text(self) -> bool:
        """It is words for a person."""
        return self.content_type == "str" and isinstance(self.content, str)


@dataclass(slots=True, frozen=True)
class RetryAnswer:
    """The answer will not do; the model is told why, and asked again."""

    message: str


class AnswerText:
    """What a run has shown as its answer: texts of turns, results of tools, what a member says for it.

    Args:
        parts: What it had shown before a pause: pairs of a text, and of what in it is more than words on the
            way to a call.
    """

    __slots__ = ("_open", "_parts", "_withdrawn")

    def __init__(self, parts: Sequence[Sequence[str]] = ()) -> None:
        self._parts = [(part[0], part[1]) for part in parts] if parts else []
        self._open: list[str] = []
        self._withdrawn = False

    def begin(self) -> list[str]:
        """The pieces of a part that is about to be streamed, to be filled by whoever streams it."""
        self._open = []
        return self._open

    def drop(self) -> None:
        """What was streamed of a part is void: it is made again."""
        self._open = []

    def add(self, text: str, last_turn: str | None = None) -> None:
        """A whole part, which takes the place of its pieces.

        Args:
            last_turn: What of it is more than words on the way to a call; None if all of it is.
        """
        self._open = []
        if text:
            self._parts.append((text, text if last_turn is None else last_turn))

    def close(self) -> None:
        """What was streamed of a part was all of it."""
        self.add("".join(self._open))

    def withdraw(self) -> None:
        """What was shown is no part of the answer, since a check has refused it."""
        self._withdrawn = True

    def leads_to_call(self) -> None:
        """The newest part has led to a call."""
        self._parts[-1] = (self._parts[-1][0], "")

    @property
    def begun(self) -> bool:
        """Something was shown."""
        return bool(self._parts or self._open or self._withdrawn)

    @property
    def unfinished(self) -> str:
        """What was streamed of a part that has not come to its end."""
        return "".join(self._open)

    @property
    def text(self) -> str:
        """All of it."""
        if len(self._parts) == 1 and not self._open:
            return self._parts[0][0]
        return BREAK.join([*(text for text, _ in self._parts), *([self.unfinished] if self._open else [])])

    @property
    def last_turn(self) -> str:
        """The same without what was said on the way to a call."""
        if len(self._parts) == 1:
            return self._parts[0][1]
        return BREAK.join([kept for _, kept in self._parts if kept])

    def to_list(self) -> list[list[str]]:
        """The parts as JSON."""
        return [list(part) for part in self._parts]


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
        self.streams: bool = self._queue is not None
        """The consumer hears the answer as it comes."""
        self.refused = False
        """A check has refused the input or the answer."""
        self.turn_began: float = time.perf_counter()
        """When the model was asked."""
        self.first_text_after: float | None = None
        """Seconds until the first piece of its text came; None if none has come."""
        self.spoken: AnswerText = AnswerText()
        """The texts that are the answer."""
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

    async def wait_for_consumer(self) -> None:
        """Wait for a slow consumer. Only where the run does not have the session state."""
        if self.audience.full:
            await self.audience.drain()

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
        self._pieces = self.spoken.begin()
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
        # Where somebody reads, a break may have to be shown before it, by this run or by the one above.
        unheard = self._above is None or not self.audience.follows
        if unheard and self._queue is None and not self.hears_events and not self._begun:
            if self.first_text_after is None:
                self.first_text_after = time.perf_counter() - self.turn_began
            self._begun = self._in_turn = True
            self._led = False
            self.spoken.add(text)
            return
        self._bring(text)
        # A model may return something else than what people have seen.
        self.spoken.add("".join(self._pieces) if self.streams else text)
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
        self.spoken.drop()
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
            self.spoken.leads_to_call()

    def result(self, text: str, *, as_it_came: bool) -> None:
        """A tool call has ended, and its result is a part of the answer.

        Args:
            as_it_came: The pieces of a generator were said as they came, if it was one.
        """
        if self._of_tool and self._begun and as_it_came:
            self.spoken.add(text)
            return
        self.spoken.close()  # the pieces of a generator that has stopped the run
        if self.of_value:
            self.aside(text)
            self.spoken.add(text)
        else:
            self._say(text)

    def calls_ended(self, answer: Answer | None, *, heard: bool) -> None:
        """The calls of a turn are over: what was said in them is a part of what this run says.

        Args:
            answer: The answer that they have given.
            heard: The consumer has heard it as it came.
        """
        speaker, self._speaker = self._speaker, None
        self.spoken.close()  # the pieces of a generator that has failed
        if answer is None:
            if speaker is not None and speaker._name is not speaker.source:
                if speaker.refused:
                    self.spoken.withdraw()
                self.spoken.add(speaker.words, "")
            return
        self._led = False
        if not answer.is_text:
            if not heard:
                self._show(answer.content, answer.content_type)
        elif heard or self.of_value:  # of whose text a value is made
            self.spoken.add(answer.content, answer.last_turn)
        else:
            self._say(answer.content, answer.last_turn)

    def _show(self, content: Any, content_type: str | None = None) -> None:
        if self._queue is not None:
            self._queue.put(RunContentEvent(self._name, content, content_type))

    def _say(self, text: str, last_turn: str | None = None) -> None:
        """Say a whole text as a part of the answer."""
        if text:
            self._show(self._lead() + text)
            self.spoken.add(text, last_turn)

    def _lead(self) -> str:
        """What goes before the next text of the answer: a break, if any text was shown before it."""
        if self.spoken.begun:
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
        return BREAK.join(text for text in (self.spoken.text, speaking) if text)

    @property
    def unfinished(self) -> str:
        """What was said of a text that has not come to its end, by this run or by a member for it."""
        return self.spoken.unfinished or (self._speaker.words if self._speaker is not None else "")

    def to_list(self) -> list[list[str]]:
        """What was said, for a pause, as JSON."""
        return self.spoken.to_list()

    def go_on_after(self, said: Sequence[Sequence[str]]) -> None:
        """Go on after what was said before a pause."""
        self.spoken = AnswerText(said)
