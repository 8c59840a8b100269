"""An answer of the Responses API as input items again.

OpenAI accepts an item under its id only with the reasoning that led to it, and reasoning only with the item
that follows it (https://platform.openai.com/docs/guides/reasoning#keeping-reasoning-items-in-context). So all
items of an answer go back together under their ids, or as plain items without.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kern.messages import Message, ToolCall
from kern.models._history import call_id, call_name, record_of, sound_arguments

PROVIDER = "openai"
"""The key under which `Message.provider_data` holds what this protocol wants to see again."""

HOSTED = frozenset(
    {
        "code_interpreter_call",
        "compaction",
        "file_search_call",
        "mcp_call",
        "mcp_list_tools",
        "tool_search_call",
        "tool_search_output",
        "web_search_call",
    }
)
"""Items of the provider's own tools, done when they come: their results are in the text of the answer."""

LONGEST_ID = 64
"""Characters of a call's id that OpenAI takes here."""

IMAGE_CALL = "image_generation_call"
"""An item that does not go back: its picture would be sent with every later request."""


def is_whole(items: list[dict[str, Any]], *, stored: bool = False) -> bool:
    """Whether an answer's items can go back as they are, under their ids.

    Not if reasoning comes without its (encrypted) content, which only the provider's store could find by its
    id; nor if an item is held back, damaged, waits for an output that is not Kern's to give, or is not known.

    Args:
        items: The output items, or the record of them.
        stored: The provider's store has the answer.
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
    return kind in ("message", "function_call") or (isinstance(kind, str) and kind in HOSTED)


def _are_texts(parts: Any) -> bool:
    return isinstance(parts, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts
    )


def replay(message: Message, model: str, *, stored: bool = False) -> list[dict[str, Any]] | None:
    """The message as the output items of this very model, in their order, its reasoning between them.

    None if the message is not this model's, or was changed since. Texts and arguments stand in the message;
    the record says where they belong.

    Args:
        message: An assistant's message.
        model: The model that is asked.
        stored: The provider's store has the answer.
    """
    record = record_of(message.provider_data, PROVIDER, model)
    items = record.get("items") if record is not None else None
    if record is None or not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return None
    calls = [item for item in items if item.get("type") == "function_call"]
    if len(calls) != len(message.tool_calls):
        return None
    # A record without "whole" is an older one's, which left out reasoning that had no content.
    reasoned = any(item.get("type") == "reasoning" for item in items)
    with_ids = (record.get("whole") is True or reasoned or stored) and is_whole(items, stored=stored)
    texts = _texts(items, message)
    if texts is None:
        return None
    return list(_items(items, iter(message.tool_calls), texts, with_ids=with_ids, model=model))


def made_pictures(message: Message, model: str) -> list[str]:
    """A mention of each picture that this very model has made with its provider's own tool."""
    record = record_of(message.provider_data, PROVIDER, model)
    items = record.get("items") if record is not None and message.images else None
    mentions = []
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and item.get("type") == IMAGE_CALL:
            prompt = item.get("revised_prompt")
            words = f": {prompt}" if isinstance(prompt, str) and prompt else ""
            mentions.append(f"[image, made with image_generation{words}]")
    return mentions


def _texts(items: list[dict[str, Any]], message: Message) -> Iterator[str] | None:
    """The text of each message item, or None if they do not make up the message's texts."""
    whole = {"content": message.content or "", "commentary": message.commentary or ""}
    ends = dict.fromkeys(whole, 0)
    texts = []
    for item in items:
        if item.get("type") != "message":
            continue
        field = item.get("of", "content")
        if not isinstance(field, str) or field not in whole:
            return None
        start, chars = item.get("start", ends[field]), item.get("chars")
        if not isinstance(start, int) or not isinstance(chars, int) or start < 0 or chars < 0:
            return None
        ends[field] = start + chars
        texts.append(whole[field][start : start + chars])
    return iter(texts) if all(len(text) == ends[field] for field, text in whole.items()) else None


def _items(
    items: list[dict[str, Any]],
    calls: Iterator[ToolCall],
    texts: Iterator[str],
    *,
    with_ids: bool,
    model: str,
) -> Iterator[dict[str, Any]]:
    for item in items:
        kind = item.get("type")
        kept = {"id": item["id"]} if with_ids and isinstance(item.get("id"), str) else {}
        if kind == "message":
            if isinstance(phase := item.get("phase"), str):
                kept["phase"] = phase
            if (text := next(texts)) or with_ids:
                yield {**said(text, refusal=item.get("refusal") is True), **kept}
        elif kind == "function_call":
            yield {**called(next(calls), model), **kept}
        elif with_ids:
            yield item


def said(text: str, *, refusal: bool = False) -> dict[str, Any]:
    """A text of the assistant's. llama.cpp knows it only by its type, and by a list of typed parts."""
    content: dict[str, Any] = {"type": "output_text", "text": text, "annotations": []}
    if refusal:
        content = {"type": "refusal", "refusal": text}
    return {"type": "message", "role": "assistant", "status": "completed", "content": [content]}


def called(call: ToolCall, model: str) -> dict[str, Any]:
    """A function call, without its id, but in its namespace, if the model gave it one."""
    item = {
        "type": "function_call",
        "call_id": call_id(call.id, LONGEST_ID),
        "name": call_name(call.name),
        "arguments": sound_arguments(call),
    }
    record = record_of(call.provider_data, PROVIDER, model)
    if record is not None and isinstance(namespace := record.get("namespace"), str):
        item["namespace"] = namespace
    return item
