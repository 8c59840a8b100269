"""Structured answers for the engine: the review of one, the tool that gives one, and what is shown of one
while it is being written.
"""

from __future__ import annotations

import asyncio
from typing import Any

from kern.errors import RetryAgentRun
from kern.messages import Message
from kern.models.base import ToolDefinition
from kern.runtime.answer_schema import AnswerSchema, BadAnswer
from kern.runtime.out import Answer, Out, RetryAnswer
from kern.runtime.outcome import CallSite, ToolOutcome
from kern.runtime.run_tree import Review, Run
from kern.runtime.sink import RunSink

CHECK = "the check of the answer against output_schema"

_SHOWN = 200  # characters
_STEP = 16
_GROWTH = 1.05


def reviewing(schema: AnswerSchema, *, enforced: bool) -> Review:
    """A review that takes nothing but a fitting answer, and tells the model why others are none."""

    async def review(run: Run, message: Message) -> Answer | RetryAnswer:
        try:
            answer = schema.read(message.content or "", enforced=enforced)
        except BadAnswer as error:
            run.send_back(CHECK, f"{error} The last answer was {shortened(message.content)}")
            return RetryAnswer(f"{error}\nAnswer again, with the whole JSON.")
        return answer

    return review


def shortened(answer: str | None) -> str:
    """The beginning of an answer, for an error."""
    text = answer or ""
    return f"{text[:_SHOWN]!r}" + (f"... ({len(text):,} characters)" if len(text) > _SHOWN else "")


class AnswerTool:
    """The tool by which a model answers that is better at calling tools than at writing JSON."""

    __slots__ = ("_schema", "definition")

    def __init__(self, schema: AnswerSchema) -> None:
        self._schema = schema
        self.definition: ToolDefinition = schema.tool_definition()

    async def run(self, run: Run, site: CallSite) -> ToolOutcome:
        """End the run with the arguments as its answer.

        Raises:
            RetryAgentRun: They do not fit.
        """
        try:
            answer = self._schema.read(site.call.arguments, enforced=True)
        except BadAnswer as error:
            raise RetryAgentRun(str(error)) from error
        run.out.answer(answer)
        return ToolOutcome("This is the answer.", answer=answer)


class GrowingSink(RunSink):
    """For JSON: the consumer gets what is there of the value, at most once for each read from the network.

    Each reading begins at the start of the text, so that one is only made when the text has grown by a part
    of itself: the work stays in proportion to the length.
    """

    __slots__ = ("_loop", "_next_at", "_parts", "_planned", "_schema", "_sent", "_size")

    def __init__(self, out: Out, schema: AnswerSchema) -> None:
        super().__init__(out)
        self._schema = schema
        self._parts: list[str] = []
        self._size = 0
        self._next_at = _STEP
        self._planned: asyncio.Handle | None = None
        self._sent: Any = None
        self._loop = asyncio.get_running_loop()

    def content(self, text: str) -> None:
        """A piece of the JSON."""
        self._out.text_begins()
        if not self._out.streams:
            return
        self._parts.append(text)
        self._size += len(text)
        if self._planned is None and self._size >= self._next_at:
            self._planned = self._loop.call_soon(self._send)  # once what has arrived is through

    def ended(self, message: Message) -> None:
        """What the model says before it calls is no JSON of the answer's."""
        if message.tool_calls and self._out.streams:
            self.commentary(message.content or "")

    def close(self) -> None:
        """The whole answer comes next."""
        if self._planned is not None:
            self._planned.cancel()

    def _send(self) -> None:
        self._planned = None
        self._parts = ["".join(self._parts)]
        self._next_at = max(self._size + _STEP, int(self._size * _GROWTH))
        if self.full:
            return
        value = self._schema.so_far(self._parts[0])
        if value is not None and value != self._sent:
            self._sent = value
            self._out.answer_so_far(value)
