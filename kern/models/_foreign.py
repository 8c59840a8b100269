"""Replaces the ids of tool calls that another provider's model made: this provider would reject them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from kern.messages import Message, Part, ToolCall


def with_neutral_ids(messages: Sequence[Message], provider: str) -> Sequence[Message]:
    """The conversation with Kern's own ids for the calls of other providers, and for their results.

    The same list if there are none.
    """
    changed: list[Message] | None = None
    renamed: dict[str | None, str] = {}
    for at, message in enumerate(messages):
        new = message
        if message.role == "assistant":
            new = _renamed(message, provider, renamed)
        elif renamed and message.role == "tool" and message.tool_call_id in renamed:
            new = replace(message, tool_call_id=renamed[message.tool_call_id])
        if new is not message and changed is None:
            changed = list(messages[:at])
        if changed is not None:
            changed.append(new)
    return messages if changed is None else changed


def _renamed(message: Message, provider: str, renamed: dict[str | None, str]) -> Message:
    """An answer whose foreign calls have Kern's ids; `renamed` receives the new ids by the old ones."""
    foreign = False
    for part in message.parts:
        if isinstance(part, ToolCall):
            if part.origin is not None and part.origin.provider != provider:
                seed = f"{part.origin.provider} {part.id}".encode(errors="replace")
                renamed[part.id] = f"call_{hashlib.sha256(seed).hexdigest()[:24]}"
                foreign = True
            else:
                renamed.pop(part.id, None)
    if not foreign:
        return message
    parts: list[Part] = [
        replace(part, id=renamed[part.id]) if isinstance(part, ToolCall) and part.id in renamed else part
        for part in message.parts
    ]
    return replace(message, parts=parts)
