"""The outer shapes of chat completions: where a choice has its message, and where a stream names itself."""

from __future__ import annotations

from typing import Any


def said_of(choice: dict[str, Any]) -> dict[str, Any] | None:
    """Return the message of an unusual choice: under another name, or as a text."""
    for name in ("message", "delta", "text"):
        said = choice.get(name)
        if said is not None:
            return said if isinstance(said, dict) else {"content": said}
    return None


def head_of(head: dict[str, Any] | None, chunk: dict[str, Any]) -> dict[str, Any]:
    """Return what a stream says of itself: the fields of its first chunk, and what that one leaves empty.

    The first chunk of Azure has the results of the filters, but neither the id nor the model.
    """
    if head is None:
        return chunk
    return {name: head.get(name) or chunk.get(name) for name in ("id", "model", "service_tier")}
