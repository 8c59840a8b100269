"""Decodes bodies of `POST /messages` into a `ReceivedRequest`, and refuses what the real service refuses."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json

from kern.messages import File, Image, Media, Message, Part, ReasoningPart, TextPart, ToolCall
from kern.models.base import ToolDefinition
from kern.testing._anthropic_checks import check_body, check_turns
from kern.testing._anthropic_schemas import check_strict
from kern.testing._http import HttpRequest
from kern.testing._refusal import Refused
from kern.testing.request import ReceivedRequest

_NOT_JSON = "The request body is not valid JSON"


def decode(http: HttpRequest) -> ReceivedRequest:
    """Decode a body of `POST /messages`."""
    if "anthropic-version" not in http.headers:
        raise Refused(400, "anthropic-version: header is required")
    try:
        body = from_json(http.body)
    except ValueError:
        raise Refused(400, _NOT_JSON) from None
    if not isinstance(body, dict):
        raise Refused(400, _NOT_JSON)
    check_body(body)
    check_turns(body)
    check_strict(body)
    tools = [
        ToolDefinition(
            tool["name"],
            tool.get("description") or "",
            tool["input_schema"],
            strict=bool(tool.get("strict")),
        )
        for tool in body.get("tools") or ()
        if "input_schema" in tool
    ]
    return ReceivedRequest(
        protocol="anthropic",
        path=http.path,
        headers=http.headers,
        body=body,
        model=body["model"],
        stream=bool(body.get("stream")),
        messages=_messages(body),
        tools=tools,
    )


def _messages(body: Mapping[str, Any]) -> list[Message]:
    messages = [Message("system", block["text"]) for block in _blocks(body.get("system") or [])]
    names: dict[str, str] = {}
    for turn in body["messages"]:
        parts: list[Part] = []
        for block in _blocks(turn["content"]):
            if block["type"] == "tool_use":
                names[block["id"]] = block["name"]
            if block["type"] == "tool_result":
                call_id = block["tool_use_id"]
                said = _parts(block.get("content") or [])
                result = Message("tool", parts=said, tool_call_id=call_id, tool_name=names.get(call_id))
                result.tool_call_error = bool(block.get("is_error"))
                messages.append(result)
                continue
            parts += _parts([block])
        if parts:
            messages.append(Message(turn["role"], parts=parts))
    return messages


def _blocks(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _parts(content: Any) -> list[Part]:
    """The blocks as parts of Kern's messages; blocks of the service's own tools stay in the raw body."""
    parts: list[Part] = []
    for block in _blocks(content):
        match block["type"]:
            case "text":
                parts.append(TextPart(block["text"], paragraph=bool(parts)))
            case "thinking":
                parts.append(ReasoningPart(block["thinking"], signature=block["signature"]))
            case "redacted_thinking":
                parts.append(ReasoningPart(redacted=block["data"]))
            case "tool_use":
                parts.append(ToolCall(block["id"], block["name"], to_json(block["input"]).decode()))
            case "image":
                parts.append(_media(Image, block))
            case "document":
                parts.append(_media(File, block))
    return parts


def _media(kind: type[Image] | type[File], block: Mapping[str, Any]) -> Media:
    source, name = block["source"], block.get("title")
    match source["type"]:
        case "base64":
            try:
                content = base64.b64decode(source["data"], validate=True)
            except binascii.Error:
                raise Refused(400, "messages: invalid base64 data") from None
            return kind(content=content, mime_type=source["media_type"], name=name)
        case "url":
            return kind(url=source["url"], name=name)
        case "file":
            return kind(id=source["file_id"], name=name)
    return kind(content=source["data"].encode(), mime_type=source["media_type"], name=name)
