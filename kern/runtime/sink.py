"""Where a model's deltas go: they become events of the run."""

from __future__ import annotations

import time
from typing import Final

from kern._log import named
from kern.messages import Message
from kern.run.events import ReasoningContentDeltaEvent, RunContentEvent, RunIntermediateContentEvent
from kern.runtime.run import Run

log: Final = named("kern")


class RunSink:
    """Where a model puts the deltas of one request: they become events of the run.

    Args:
        shown: The text is the answer, or a part of it; None means what the run's spec says.
    """

    __slots__ = (
        *("_begun", "_buffer", "_held", "_pieces", "_run", "_shown", "_source", "_spoken"),
        *("first_token_after", "started"),
    )

    def __init__(self, run: Run, *, shown: bool | None = None) -> None:
        self._run = run
        self._spoken = run.spoken if (run.spec.streams_text if shown is None else shown) else None
        self._shown = self._spoken is not None and run.hears_content
        self._pieces: list[str] = []
        self._begun = False
        self._held = ""
        self._buffer = run.tree.buffer
        self._source = run.voice
        self.started: float = time.perf_counter()
        self.first_token_after: float | None = None

    def content(self, text: str) -> None:
        """A piece of the answer."""
        if not self._begun:
            self._begin(text)
        elif text:
            self._pieces.append(text)
            if self._shown and self._buffer is not None:
                self._buffer.put(RunContentEvent(self._source, text))

    def _begin(self, text: str) -> None:
        """The first pieces: blanks are held back until there is a text that they belong to."""
        if self.first_token_after is None:
            self.first_token_after = time.perf_counter() - self.started
        text = self._held + text
        if not text or text.isspace():
            self._held = text
            return
        self._begun = True
        if self._spoken is None:
            return
        lead = self._run.lead()
        self._pieces = self._spoken.begin()
        self._pieces.append(text)
        if self._shown and self._buffer is not None:
            self._run.shown_text = True
            self._buffer.put(RunContentEvent(self._source, lead + text))

    def ended(self, message: Message) -> None:
        """The whole answer is here: what no delta has brought is shown now."""
        spoken = self._spoken
        if spoken is None:
            return
        text = message.content or ""
        if not text.strip():
            return
        self._bring(text)
        streamed = "".join(self._pieces)
        # A model may return something else than what people have seen.
        spoken.add(streamed if self._shown else text)
        spoken.in_turn = True

    def cut(self, text: str) -> None:
        """The answer was cut after `text`, which without a stream is brought by no delta."""
        if self._spoken is not None and not self._shown:
            self._bring(text)

    def _bring(self, text: str) -> None:
        """The rest of a text, of which deltas have brought the beginning."""
        if not self._begun:
            self._held = ""
            self.content(text)
            return
        streamed = "".join(self._pieces)
        if text.startswith(streamed):
            self.content(text[len(streamed) :])

    def close(self) -> None:
        """The request has ended, one way or the other."""

    def reasoning(self, text: str) -> None:
        """A piece of the reasoning."""
        if text:
            self._run.emit(ReasoningContentDeltaEvent(self._run.source, text))

    def commentary(self, text: str) -> None:
        """A piece of what the model says beside its answer."""
        if text:
            self._run.emit(RunIntermediateContentEvent(self._run.source, text))

    def retrying(self, error: Exception, attempt: int, delay: float) -> None:
        """The request is tried again; nothing of it was shown."""
        log.warning(
            "%s: attempt %d failed, the next one in %.1f s: %s", self._run.spec.model, attempt, delay, error
        )

    @property
    def full(self) -> bool:
        """The consumer is behind."""
        return self._buffer is not None and self._buffer.full

    async def drain(self) -> None:
        """Wait until the consumer has caught up."""
        if self._buffer is not None:
            await self._buffer.drain()
