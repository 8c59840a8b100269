"""Sinks receive the deltas of a model, and pass them to the run's `Out`, which decides who gets them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from kern._log import named
from kern.messages import Citation, Message, ProviderCall, TextPart
from kern.models.base import Model
from kern.run.events import (
    CitationAddedEvent,
    ProviderToolCallCompletedEvent,
    ProviderToolCallStartedEvent,
    ReasoningContentDeltaEvent,
    ToolCallArgumentsDeltaEvent,
)
from kern.runtime.out import Out
from kern.usage import Usage

log: Final = named("kern")


class RunSink:
    """Receives the deltas of one model request.

    Args:
        out: The output of the run.
    """

    __slots__ = ("_out", "model", "on_discarded", "streams", "thrown_away")

    model: Model | None
    """The model that is asked."""

    thrown_away: Sequence[Usage]
    """The usage of answers that were discarded, because the request was retried."""

    on_discarded: Callable[[Usage], None] | None
    """Called with the usage of an answer that is discarded, before the request is retried."""

    def __init__(self, out: Out) -> None:
        self._out = out
        self.model = None
        self.thrown_away = ()
        self.on_discarded = None
        self.streams: bool = out.streams
        """Whether to stream: the deltas are wanted, not only the whole message."""

    def content(self, text: str) -> None:
        """Receive a delta of the text."""

    def ended(self, message: Message) -> None:
        """Receive the whole message."""

    def cut(self, text: str) -> None:
        """Receive a text that was cut off."""

    def close(self) -> None:
        """Note that the request has ended, with an answer or an error."""

    def reasoning(self, text: str) -> None:
        """Receive a delta of the reasoning."""
        if text:
            self._out.event(ReasoningContentDeltaEvent(self._out.source, text))

    def commentary(self, text: str) -> None:
        """Receive a delta of a text that is not a part of the answer."""
        if text:
            self._out.aside(text)

    def tool_arguments(self, call_id: str, name: str, delta: str) -> None:
        """Receive a delta of the arguments of a call."""
        if self._out.wants_events:
            self._out.event(ToolCallArgumentsDeltaEvent(self._out.source, call_id, name, delta))

    def provider_call(self, call: ProviderCall) -> None:
        """Receive the start or the end of a call that the provider carries out itself."""
        if self._out.wants_events:
            shown = replace(call, media=[], provider_data=None)
            running = call.status == "running"
            made = ProviderToolCallStartedEvent if running else ProviderToolCallCompletedEvent
            self._out.event(made(self._out.source, shown))

    def citation(self, citation: Citation) -> None:
        """Receive the source of a part of the text."""
        if self._out.wants_events:
            self._out.event(CitationAddedEvent(self._out.source, citation))

    def put_parts(self, message: Message) -> None:
        """Emit the provider's calls and the citations of an answer that was not streamed."""
        for part in message.parts:
            if isinstance(part, ProviderCall):
                self.provider_call(replace(part, status="running", result=None))
                self.provider_call(part)
            elif isinstance(part, TextPart):
                for citation in part.citations:
                    self.citation(citation)

    def retrying(self, error: Exception, attempt: int, delay: float) -> None:
        """Note that the request is retried; no delta of it was shown."""
        usage = getattr(error, "usage", None)
        if isinstance(usage, Usage):
            self.thrown_away = (*self.thrown_away, usage)
            if self.on_discarded is not None:
                self.on_discarded(usage)
        log.warning("%s: attempt %d failed, retrying in %.1f s: %s", self.model, attempt, delay, error)

    @property
    def full(self) -> bool:
        """Whether the consumer is behind."""
        return self._out.audience.full

    async def drain(self) -> None:
        """Wait until the consumer has caught up."""
        await self._out.audience.drain()


class AnswerSink(RunSink):
    """For a text that is the answer, or a part of it."""

    __slots__ = ()

    def content(self, text: str) -> None:
        """Add a delta to the answer."""
        self._out.text(text)

    def ended(self, message: Message) -> None:
        """Add the whole text."""
        self._out.text_ended(message.content or "")

    def cut(self, text: str) -> None:
        """Add a text that was cut off."""
        self._out.text_cut(text)


class SilentSink(RunSink):
    """For a text that is not shown, such as a summary."""

    __slots__ = ()

    def __init__(self, out: Out) -> None:
        super().__init__(out)
        self.streams = False  # the whole message will do


class AsideSink(RunSink):
    """For a text that is not the answer, for example because another model makes the answer from it."""

    __slots__ = ()

    def content(self, text: str) -> None:
        """Emit a delta as an aside."""
        self._out.text_begins()
        self.commentary(text)

    def ended(self, message: Message) -> None:
        """Emit the text of the message if there were no deltas."""
        if self._out.first_text_after is None and self._out.streams:
            self.commentary(message.content or "")
