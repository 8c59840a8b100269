"""Recognizes what Claude rejects in a request, and builds the request without it.

Bedrock quotes Claude's error: "The model returned the following errors: ...".
"""

from __future__ import annotations

import re
from dataclasses import replace

from kern.messages import Message, ReasoningPart
from kern.models.base import ModelRequest

# "Schemas contains too many parameters with union types", "The compiled grammar is too large", and the like.
_SCHEMA = re.compile(
    r"grammar|too many (strict|optional|parameters)|schemas? (contains?|is) too", re.IGNORECASE
)
_SIGNATURE = re.compile(r"invalid `?signature|`?(redacted_)?thinking`? blocks?", re.IGNORECASE)


def refuses_schema(request: ModelRequest, text: str) -> bool:
    """Whether an error says that the strict schemas of the request cannot be enforced."""
    wants_schema = request.response_format is not None or any(tool.strict for tool in request.tools)
    return wants_schema and _SCHEMA.search(text) is not None


def without_refused_reasoning(request: ModelRequest, text: str) -> ModelRequest | None:
    """The request without earlier reasoning, if an error says that its signatures are invalid.

    Signatures may come from another account, or from a conversation whose beginning has changed since.
    """
    if not _SIGNATURE.search(text):
        return None
    messages = [_without_reasoning(message) for message in request.messages]
    return None if messages == list(request.messages) else replace(request, messages=messages)


def without_forced_choice(request: ModelRequest, text: str) -> ModelRequest | None:
    """The request with a free choice of tools, if an error says that the model cannot be forced to call one.

    Claude Fable and Mythos reject a forced choice; others reject one only beside a budget for thinking.
    """
    if "tool_choice" not in text or request.tool_choice in (None, "auto", "none"):
        return None
    return replace(request, tool_choice="auto")


def _without_reasoning(message: Message) -> Message:
    if not any(isinstance(part, ReasoningPart) for part in message.parts):
        return message
    return replace(message, parts=[part for part in message.parts if not isinstance(part, ReasoningPart)])
