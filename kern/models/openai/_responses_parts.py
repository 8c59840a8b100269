"""Converts output items of the Responses API to parts of a message, and parts back to input items."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from kern._json import json_bytes
from kern.messages import CallStatus, Origin, ProviderCall, ReasoningPart
from kern.models._reading import items_of, text_of

HOSTED = frozenset(
    {
        "code_interpreter_call",
        "file_search_call",
        "mcp_call",
        "mcp_list_tools",
        "shell_call_output",
        "tool_search_call",
        "tool_search_output",
        "web_search_call",
        "x_search_call",
    }
)
"""Items of the provider's tools that are complete when they arrive: the answer's text has their results."""

_KEPT_THERE = frozenset({"custom_tool_call", "x_search_call"})
"""Items of xAI's search in X. They are not sent back: the service may wait for an output of theirs."""

IMAGE_CALL = "image_generation_call"
"""An item that is not sent back: its image would be sent with every later request."""

OF = "of"
"""The key for the number of parts in the answer of a reasoning item: it is sent back with all, or not."""

COMPACTION = "compaction"
"""An item that replaces the conversation before it, in a form that only the provider can read."""

_ARGUMENTS = {
    "code_interpreter_call": "code",
    "file_search_call": "queries",
    "shell_call": "action",
    "tool_search_call": "arguments",
    "web_search_call": "action",
    IMAGE_CALL: "revised_prompt",
}
"""The fields of items with the arguments of the tool."""

_RESULTS = {
    "code_interpreter_call": "outputs",
    "file_search_call": "results",
    "mcp_call": "output",
    "mcp_list_tools": "tools",
    "shell_call_output": "output",
    "tool_search_output": "tools",
}
"""The fields of items with the result of the tool."""

_NAMED = ("mcp_call", "x_search_call")
"""The items that name a tool, and have its arguments as a text."""

_FAILED = ("failed", "incomplete", "cancelled")
_SHOWN = ("summary", "content")


def is_hosted(item: Mapping[str, Any]) -> bool:
    """Whether an item is of a tool that the provider ran itself, and needs no output of the application.

    A call of the shell is one if its commands ran in a container of the provider; a call of a custom tool is
    one in xAI's search in X, whose calls have ids of their own.
    """
    kind = item.get("type")
    if kind == "shell_call":
        place = item.get("environment")
        return isinstance(place, Mapping) and text_of(place.get("type")).startswith("container")
    if kind == "custom_tool_call":
        return text_of(item.get("call_id")).startswith("xs_call")
    return isinstance(kind, str) and kind in HOSTED


def reasoning_part(item: Mapping[str, Any], origin: Origin) -> ReasoningPart:
    """Convert an item of reasoning, or a compaction; `reasoning_item` undoes it."""
    pieces = items_of(item.get("content")) or items_of(item.get("summary"))
    text = "\n\n".join(text for piece in pieces if (text := text_of(piece.get("text"))))
    data = {name: value for name, value in item.items() if value or name == "summary"}
    if data.get("type") == "reasoning":
        del data["type"]
    for name in _SHOWN:
        match data.get(name):
            case [{"type": str() as kind, "text": said, **more}] if said == text and text and not more:
                data[name] = kind  # what the part's text says is not kept twice
            case str() as damaged:
                data[name] = [damaged]
    secret = data.pop("encrypted_content") if isinstance(data.get("encrypted_content"), str) else None
    return ReasoningPart(text, redacted=secret, provider_data=data, origin=origin)


def reasoning_item(part: ReasoningPart) -> dict[str, Any]:
    """Return the original item. Without its id or its form it cannot be sent back."""
    item = {"type": "reasoning", **(part.provider_data or {})}
    item.pop(OF, None)
    for name in _SHOWN:
        if isinstance(kind := item.get(name), str):
            item[name] = [{"type": kind, "text": part.text}]
    if part.redacted is not None:
        item["encrypted_content"] = part.redacted
    return item


def provider_call(item: Mapping[str, Any], origin: Origin) -> ProviderCall:
    """Convert an item of one of the provider's own tools; `provider_item` undoes it.

    An unknown item, or one that waits for an answer, becomes a failed call.
    """
    kind = text_of(item.get("type"))
    data = dict(item)
    call_id = _taken(data, "id")
    known = is_hosted(item) or kind == IMAGE_CALL
    if kind in _NAMED:
        name, arguments = _taken(data, "name"), _taken(data, "arguments")
    else:
        name = kind.removesuffix("_call")
        if known and kind == "custom_tool_call":
            name = text_of(item.get("name")) or name
        arguments = text_of(item.get("arguments")) or text_of(item.get("input"))  # xAI's are text
        if (argument := _ARGUMENTS.get(kind)) and data.get(argument) is not None:
            arguments = json_bytes({argument: data.pop(argument)}).decode()
    result = item.get("error")
    if (key := _RESULTS.get(kind)) and data.get(key) is not None:
        result = data.pop(key)
    data.pop("result", None)  # the base64 of a picture
    failed = not known or item.get("status") in _FAILED or bool(item.get("error"))
    status: CallStatus = "failed" if failed else "completed"
    return ProviderCall(
        call_id, name, arguments, result=result, status=status, provider_data=data, origin=origin
    )


def provider_item(call: ProviderCall) -> dict[str, Any]:
    """Return the original item.

    Raises:
        ValueError: The stored item is damaged.
    """
    item = dict(call.provider_data or {})
    kind = text_of(item.get("type"))
    if call.id:
        item["id"] = call.id
    if kind in _NAMED:
        item |= {"name": call.name, "arguments": call.arguments}
    elif call.arguments and call.arguments not in (item.get("arguments"), item.get("input")):
        item |= dict(from_json(call.arguments))
    if (key := _RESULTS.get(kind)) and key not in item and call.result is not None:
        item[key] = call.result
    return item


def is_whole(items: list[dict[str, Any]], *, stored: bool = False) -> bool:
    """Whether the items of an answer can be sent back as they are, with their ids.

    That is not possible if reasoning has no (encrypted) content and is not stored by the provider; or if an
    item is left out, damaged, unknown, or waits for an output that Kern cannot give.

    Args:
        items: The items.
        stored: The provider has stored the answer.
    """
    return all(_goes_back(item, stored) for item in items)


def _goes_back(item: dict[str, Any], stored: bool) -> bool:
    kind = item.get("type")
    if kind == "reasoning":
        content, secret = item.get("content"), item.get("encrypted_content")
        if not (stored or secret or content):
            return False
        texts = _are_texts(item.get("summary")) and (content is None or _are_texts(content))
        return texts and isinstance(item.get("id"), str) and isinstance(secret, str | None)
    return kind in ("message", "function_call", COMPACTION) or (is_hosted(item) and kind not in _KEPT_THERE)


def _are_texts(parts: Any) -> bool:
    return isinstance(parts, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts
    )


def _taken(data: dict[str, Any], name: str) -> str:
    """Remove a text from the item and return it; other values stay in the item."""
    return data.pop(name) if isinstance(data.get(name), str) else ""
