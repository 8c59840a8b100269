"""Messages that version 0.1 stored: with a record of the output items, next to the texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from kern.messages import Media, Message, Origin, Part, TextPart, ToolCall
from kern.models._history import record_of
from kern.models.openai._chained import PROVIDER
from kern.models.openai._responses_parts import COMPACTION, provider_call, reasoning_part


def with_parts(message: Message, origin: Origin) -> Message:
    """Return an assistant message with the parts of its record, if it has one.

    The message has the texts and arguments; the record says where they belong. A record of another model, a
    damaged one, or one whose message was changed since, is ignored.
    """
    record = record_of(message.provider_data, PROVIDER, origin.model)
    items = record.get("items") if record is not None else None
    if record is None or not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        return message
    calls = iter(message.tool_calls)
    if sum(item.get("type") == "function_call" for item in items) != len(message.tool_calls):
        return message
    texts = _texts(items, message)
    if texts is None:
        return message
    # A record without "whole" is of a still older version, which left out reasoning without content.
    reasoned = any(item.get("type") == "reasoning" for item in items)
    named = record.get("whole") is True or reasoned
    kept = items if named else [item for item in items if item.get("type") in ("message", "function_call")]
    parts = [_part(item, calls, texts, origin, named=named) for item in kept]
    made = [replace(media, origin=origin) for media in message.parts if isinstance(media, Media)]
    return replace(message, parts=parts + made, provider_data=None)


def _part(
    item: dict[str, Any], calls: Iterator[ToolCall], texts: Iterator[TextPart], origin: Origin, *, named: bool
) -> Part:
    kind = item.get("type")
    kept = {"id": item["id"]} if named and isinstance(item.get("id"), str) else {}
    if kind == "message":
        part = next(texts)
        if isinstance(phase := item.get("phase"), str):
            kept["phase"] = phase
        if item.get("refusal") is True:
            kept["refusal"] = True
        part.provider_data, part.origin = kept or None, origin
        return part
    if kind == "function_call":
        call = next(calls)
        record = record_of(call.provider_data, PROVIDER, origin.model)
        if record is not None and isinstance(record.get("namespace"), str):
            kept["namespace"] = record["namespace"]
        return replace(call, provider_data=kept or None, origin=origin)
    if kind in ("reasoning", COMPACTION):
        return reasoning_part(item, origin)
    return provider_call(item, origin)


def _texts(items: list[dict[str, Any]], message: Message) -> Iterator[TextPart] | None:
    """Return the text of each message item; None if they do not add up to the texts of the message."""
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
        texts.append(TextPart(whole[field][start : start + chars], commentary=field == "commentary"))
    return iter(texts) if all(len(text) == ends[field] for field, text in whole.items()) else None
