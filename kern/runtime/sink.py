"""Where a model's deltas go: sinks hand them to the run's `out`, which decides who hears them."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Where a model puts the deltas of one request.

    Args:
        out: The run's.
    """

    __slots__ = ("_out", "model", "streams", "thrown_away")

    model: Model | None
    """Who is asked."""

    thrown_away: Sequence[Usage]
    """What answers have used that were no good, so that the request was made again."""

    def __init__(self, out: Out) -> None:
        self._out = out
        self.model = None
        self.thrown_away = ()
        self.streams: bool = out.streams
        """The deltas are wanted, and not only the whole message."""

    def content(self, text: str) -> None:
        """A piece of the text."""

    def ended(self, message: Message) -> None:
        """The whole message is here."""

    def cut(self, text: str) -> None:
        """The text breaks off after `text`."""

    def close(self) -> None:
        """The request has ended, one way or the other."""

    def reasoning(self, text: str) -> None:
        """A piece of the reasoning."""
        if text:
            self._out.event(ReasoningContentDeltaEvent(self._out.source, text))

    def commentary(self, text: str) -> None:
        """A piece of what the model says beside its answer."""
        if text:
            self._out.aside(text)

    def tool_arguments(self, call_id: str, name: str, delta: str) -> None:
        """A piece of the arguments of a call."""
        if self._out.hears_events:
            self._out.event(ToolCallArgumentsDeltaEvent(self._out.source, call_id, name, delta))

    def provider_call(self, call: ProviderCall) -> None:
        """The provider has begun, or ended, a call of its own."""
        if self._out.hears_events:
            told = replace(call, media=[], provider_data=None)
            running = call.status == "running"
            made = ProviderToolCallStartedEvent if running else ProviderToolCallCompletedEvent
            self._out.event(made(self._out.source, told))

    def citation(self, citation: Citation) -> None:
        """The model says where words of its come from."""
        if self._out.hears_events:
            self._out.event(CitationAddedEvent(self._out.source, citation))

    def tell_parts(self, message: Message) -> None:
        """Tell of the provider's calls and of citations in an answer that was not streamed."""
        for part in message.parts:
            if isinstance(part, ProviderCall):
                self.provider_call(replace(part, status="running", result=None))
                self.provider_call(part)
            elif isinstance(part, TextPart):
                for citation in part.citations:
                    self.citation(citation)

    def retrying(self, error: Exception, attempt: int, delay: float) -> None:
        """The request is tried again; nothing of it was shown."""
        usage = getattr(error, "usage", None)
        if isinstance(usage, Usage):
            self.thrown_away = (*self.thrown_away, usage)
        log.warning("%s: attempt %d failed, the next one in %.1f s: %s", self.model, attempt, delay, error)

    @property
    def full(self) -> bool:
        """The consumer is behind."""
        return self._out.audience.full

    async def drain(self) -> None:
        """Wait until the consumer has caught up."""
        await self._out.audience.drain()


class AnswerSink(RunSink):
    """For a text that is the answer, or a part of it."""

    __slots__ = ()

    def content(self, text: str) -> None:
        """A piece of the text."""
        self._out.text(text)

    def ended(self, message: Message) -> None:
        """The whole message is here."""
        self._out.text_ended(message.content or "")

    def cut(self, text: str) -> None:
        """The answer breaks off after `text`."""
        self._out.text_cut(text)


class SilentSink(RunSink):
    """For a text that nobody hears: it is not for the user."""

    __slots__ = ()

    def __init__(self, out: Out) -> None:
        super().__init__(out)
        self.streams = False  # the whole message will do


class AsideSink(RunSink):
    """For a text that is not the answer: another model makes it of that, or it is too early for one."""

    __slots__ = ()

    def content(self, text: str) -> None:
        """A piece of the text."""
        self._out.text_begins()
        self.commentary(text)

    def ended(self, message: Message) -> None:
        """The whole message is here: its text is said now if no delta has brought it."""
        if self._out.first_text_after is None and self._out.streams:
            self.commentary(message.content or "")
