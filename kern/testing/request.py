"""`ReceivedRequest`: a request that a `ModelServer` received, in the same form for every protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kern.messages import Message
from kern.models.base import ToolDefinition

ProtocolName = Literal["responses", "chat", "anthropic", "gemini", "bedrock"]


@dataclass(slots=True, frozen=True, kw_only=True)
class ReceivedRequest:
    """One request to a `ModelServer`.

    Args:
        protocol: "responses" (`POST /responses`), "chat" (`POST /chat/completions`), "anthropic"
            (`POST /messages`), "gemini" (`POST /models/ID:generateContent` and `:streamGenerateContent`) or
            "bedrock" (`POST /model/ID/converse` and `/converse-stream`).
        path: The path of the request.
        headers: The headers, with names in lower case.
        body: The JSON body.
        model: The id of the model.
        stream: The client wants a stream.
        messages: The conversation, including system messages (first the `instructions` of Responses).
        tools: The functions that the model may call.
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
        """All system and developer messages, joined by empty lines."""
        texts = (m.content for m in self.messages if m.role in ("system", "developer"))
        return "\n\n".join(text for text in texts if text)

    @property
    def user_text(self) -> str:
        """The last message of the user; "" if there is none."""
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
        """The names of the functions that the model may call."""
        return [tool.name for tool in self.tools]
