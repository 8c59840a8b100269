"""Structured answers in the engine: their review, the tool that gives one, and how one is streamed while it
is written.
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
    """Make a review that accepts an answer that fits the schema, and tells the model why others do not."""

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
    """The tool with which a model answers, if it calls tools more reliably than it writes JSON."""

    __slots__ = ("_schema", "definition")

    def __init__(self, schema: AnswerSchema) -> None:
        self._schema = schema
        self.definition: ToolDefinition = schema.tool_definition()

    async def run(self, run: Run, site: CallSite) -> ToolOutcome:
        """End the run, with the arguments as its answer.

        Raises:
            RetryAgentRun: The arguments do not fit the schema.
        """
        try:
            answer = self._schema.read(site.call.arguments, enforced=True)
        except BadAnswer as error:
            raise RetryAgentRun(str(error)) from error
        run.out.answer(answer)
        return ToolOutcome("This is the answer.", answer=answer)


class GrowingSink(RunSink):
    """For JSON: sends the consumer the value so far, at most once for each read from the network.

    Parsing begins at the start of the text each time. So it is repeated only when the text has grown by a
    fraction of its length, which keeps the total work proportional to the length.
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
        """Receive a delta of the JSON."""
        self._out.text_begins()
        if not self._out.streams:
            return
        self._parts.append(text)
        self._size += len(text)
        if self._planned is None and self._size >= self._next_at:
            self._planned = self._loop.call_soon(self._send)  # after the deltas that have arrived already

    def ended(self, message: Message) -> None:
        """Emit the text before tool calls as an aside: it is not the JSON of the answer."""
        if message.tool_calls and self._out.streams:
            self.commentary(message.content or "")

    def close(self) -> None:
        """Send no more partial values: the whole answer comes next."""
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
