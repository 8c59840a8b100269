"""A request as a `ModelServer` has received it: the same shape for every protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kern.messages import Message
from kern.models.base import ToolDefinition

ProtocolName = Literal["responses", "chat", "anthropic", "gemini", "bedrock"]


@dataclass(slots=True, frozen=True, kw_only=True)
class ReceivedRequest:
    """One request for an answer.

    Args:
        protocol: "responses" (`POST /responses`), "chat" (`POST /chat/completions`), "anthropic"
            (`POST /messages`), "gemini" (`POST /models/ID:generateContent` and `:streamGenerateContent`) or
            "bedrock" (`POST /model/ID/converse` and `/converse-stream`).
        path: The path as it was asked for.
        headers: The headers, their names in lower case.
        body: The JSON body as it came.
        model: The model asked for.
        stream: A stream is wanted.
        messages: The conversation, system texts included (`instructions` is the first of them).
        tools: The functions that may be called.
    """

    protocol: ProtocolName
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    model: str
    stream: bool
    messages: list[Message]
    tools: list[ToolDefinition]

    @property
    def system_text(self) -> str:
        """All system and developer texts, with an empty line between them."""
        texts = (m.content for m in self.messages if m.role in ("system", "developer"))
        return "\n\n".join(text for text in texts if text)

    @property
    def user_text(self) -> str:
        """What the user said last; empty if nothing."""
        return next((m.content or "" for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def tool_results(self) -> list[Message]:
        """The tool messages after the last assistant message: the results of this turn's calls."""
        results: list[Message] = []
        for message in reversed(self.messages):
            if message.role == "assistant":
                break
            if message.role == "tool":
                results.insert(0, message)
        return results

    @property
    def tool_names(self) -> list[str]:
        """The names of the functions that may be called."""
        return [tool.name for tool in self.tools]
