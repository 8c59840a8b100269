"""Encodes an assistant message as input items of the Responses API.

OpenAI accepts an item with its id only together with the reasoning that led to it, and reasoning only with
the item that follows it: https://platform.openai.com/docs/guides/reasoning#keeping-reasoning-items-in-context
So all items of an answer are sent back together with their ids, or as plain items without ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kern.messages import Image, Message, Origin, Part, ProviderCall, ReasoningPart, TextPart, ToolCall
from kern.models._history import call_id, call_name, record_of, sound_arguments
from kern.models.openai._chained import PROVIDER
from kern.models.openai._responses_parts import IMAGE_CALL, OF, is_whole, provider_item, reasoning_item

LONGEST_ID = 64
"""The maximum length of a call id in this API."""


def answer_items(message: Message, origin: Origin, *, stored: bool = False) -> list[dict[str, Any]]:
    """Return the message as the original output items, or as plain items if it is of another model.

    Args:
        message: An assistant message.
        origin: The model that is asked.
        stored: The provider has stored the answer.
    """
    parts = message.parts
    if all(part.origin == origin for part in parts):
        items = _own_items(parts)
        if items is not None and is_whole(items, stored=stored):
            return items
    items = list(_plain_items(parts, origin))
    return items or [said("")]  # an empty message keeps the alternation of roles


def is_own_picture(media: object, origin: Origin) -> bool:
    """Whether the model that is asked made the image itself: it is mentioned, but not sent again."""
    return isinstance(media, Image) and media.origin == origin


def _own_items(parts: Sequence[Part]) -> list[dict[str, Any]] | None:
    items = []
    for part in parts:
        data = part.provider_data or {}
        if isinstance(part, TextPart):
            item = said(part.text, refusal=data.get("refusal") is True)
            items.append(item | {name: data[name] for name in ("id", "phase") if _is_text(data, name)})
        elif isinstance(part, ToolCall):
            items.append(
                _called(part) | {name: data[name] for name in ("id", "namespace") if _is_text(data, name)}
            )
        elif isinstance(part, ReasoningPart):
            if data.get(OF, len(parts)) != len(parts):
                return None
            items.append(reasoning_item(part))
        elif isinstance(part, ProviderCall):
            try:
                items.append(provider_item(part))
            except (ValueError, TypeError):
                return None
        else:
            return None
    return items


def _plain_items(parts: Sequence[Part], origin: Origin) -> Iterator[dict[str, Any]]:
    """Yield the parts as items without ids, in order; for the model's own parts with phase and images."""
    prompt = ""
    for part in parts:
        data = part.provider_data if part.origin == origin and part.provider_data else {}
        if isinstance(part, TextPart):
            if part.text:
                phase = {"phase": data["phase"]} if _is_text(data, "phase") else {}
                yield said(part.text, refusal=data.get("refusal") is True) | phase
        elif isinstance(part, ToolCall):
            yield _called(part) | _namespace(part, data, origin)
        elif isinstance(part, ProviderCall) and data.get("type") == IMAGE_CALL:
            prompt = _prompt(part)
        elif is_own_picture(part, origin):
            words = f": {prompt}" if prompt else ""
            yield said(f"[image, made with image_generation{words}]")


def _prompt(call: ProviderCall) -> str:
    try:
        prompt = provider_item(call).get("revised_prompt")
    except (ValueError, TypeError):
        return ""
    return prompt if isinstance(prompt, str) else ""


def _namespace(call: ToolCall, data: dict[str, Any], origin: Origin) -> dict[str, Any]:
    record = data or record_of(call.provider_data, PROVIDER, origin.model)  # of a row of 0.1
    namespace = record.get("namespace") if record is not None else None
    return {"namespace": namespace} if isinstance(namespace, str) else {}


def _is_text(data: dict[str, Any], name: str) -> bool:
    return isinstance(data.get(name), str)


def said(text: str, *, refusal: bool = False) -> dict[str, Any]:
    """Return a text of the assistant as an item. llama.cpp needs the type, and a list of typed parts."""
    content: dict[str, Any] = {"type": "output_text", "text": text, "annotations": []}
    if refusal:
        content = {"type": "refusal", "refusal": text}
    return {"type": "message", "role": "assistant", "status": "completed", "content": [content]}


def _called(call: ToolCall) -> dict[str, Any]:
    """Return a function call as an item without its item id."""
    return {
        "type": "function_call",
        "call_id": call_id(call.id, LONGEST_ID),
        "name": call_name(call.name),
        "arguments": sound_arguments(call),
    }
