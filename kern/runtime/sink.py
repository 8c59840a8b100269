"""Where a model's deltas go: they become events of the run."""

from __future__ import annotations

import logging
import time

from kern.run.events import ReasoningContentDeltaEvent, RunContentEvent, RunIntermediateContentEvent
from kern.runtime.run import Run

log = logging.getLogger("kern")


class RunSink:
    """Where a model puts the deltas of one request: they become events of the run."""

    __slots__ = ("_buffer", "_run", "_shown", "_source", "first_token_after", "started")

    def __init__(self, run: Run, *, shown: bool = True) -> None:
        self._run = run
        self._shown = shown and run.hears_content and run.spec.streams_text
        self._buffer = run.tree.buffer
        self._source = run.voice
        self.started = time.perf_counter()
        self.first_token_after: float | None = None

    def content(self, text: str) -> None:
        """A piece of the answer."""
        if self.first_token_after is None:
            self.first_token_after = time.perf_counter() - self.started
            if self._shown:
                text = self._run.after_results(text)
        if text and self._buffer is not None and self._shown:
            self._run.shown_text = True
            self._buffer.put(RunContentEvent(self._source, text))

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
