"""The requests of the conformance suite of models, and the sink that records deltas."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from kern.messages import Message
from kern.models.base import Model, ModelRequest, ToolDefinition

Play: TypeAlias = Callable[..., Awaitable[Model]]
"""Takes the answers of a provider, in order, and comes to a model that is given them."""


class RecordingSink:
    """Records the deltas of a model.

    Args:
        slow: After each piece it is full, until `drain` was awaited.
    """

    def __init__(self, *, slow: bool = False) -> None:
        self.pieces: list[tuple[str, str]] = []
        """Each piece with its kind: "content", "reasoning" or "commentary"."""
        self.retries: list[Exception] = []
        """The errors of attempts that were made again."""
        self.drained: int = 0
        self._slow = slow
        self._full = False

    def content(self, text: str) -> None:
        """Record a delta of the answer."""
        self._put("content", text)

    def reasoning(self, text: str) -> None:
        """Record a delta of the reasoning."""
        self._put("reasoning", text)

    def commentary(self, text: str) -> None:
        """Record a delta of the commentary."""
        self._put("commentary", text)

    def retrying(self, error: Exception, attempt: int, delay: float) -> None:
        """Record a retry."""
        self.retries.append(error)

    @property
    def full(self) -> bool:
        """Whether the consumer is behind."""
        return self._full

    async def drain(self) -> None:
        """Wait until the consumer has caught up."""
        await asyncio.sleep(0)
        self.drained += 1
        self._full = False

    def text(self, kind: str) -> str:
        """All deltas of a kind, joined."""
        return "".join(text for what, text in self.pieces if what == kind)

    def _put(self, kind: str, text: str) -> None:
        self.pieces.append((kind, text))
        self._full = self._slow


def ask(text: str, *, tools: Sequence[ToolDefinition] = (), stream: bool = False) -> ModelRequest:
    """Make a request with a question."""
    messages = [Message("system", "Be brief."), Message("user", text)]
    return ModelRequest(messages, tools=tools, stream=stream)
