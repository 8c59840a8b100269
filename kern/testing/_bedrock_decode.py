"""Decodes bodies of `POST /model/ID/converse` into a `ReceivedRequest`, and refuses what Bedrock refuses.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html, and the texts of
errors as they stand in issues of the projects that ask it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from pydantic_core import from_json, to_json

from kern.messages import Audio, File, Image, Media, Message, Part, ReasoningPart, TextPart, ToolCall, Video
from kern.models.base import ToolDefinition
from kern.testing._http import HttpRequest
from kern.testing._refusal import Refused
from kern.testing.request import ReceivedRequest

_OPERATIONS = {"converse": False, "converse-stream": True}
_MEDIA: dict[str, type[Media]] = {"image": Image, "document": File, "video": Video, "audio": Audio}
_START = (
    "A conversation must start with a user message. Try again with a conversation that starts with a user "
    "message."
)
_ALTERNATE = (
    "A conversation must alternate between user and assistant roles. Make sure the conversation alternates "
    "between user and assistant roles and try again."
)
_NO_TOOLS = "The toolConfig field must be defined when using toolUse and toolResult content blocks."
_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_Turn = Mapping[str, Any]


def matches(path: str) -> bool:
    """Whether a path is that of a request to a model behind Bedrock."""
    return path.startswith("/model/") and path.rpartition("/")[2] in _OPERATIONS


def decode(http: HttpRequest) -> ReceivedRequest:
    """Decode a body of `POST /model/ID/converse`, or `/converse-stream`."""
    address, _, operation = http.path.partition("?")[0].rpartition("/")
    try:
        body = from_json(http.body)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refused(400, "The request body is not a JSON object")
    turns = body["messages"]
    _check(body, turns)
    specs = [
        tool["toolSpec"] for tool in (body.get("toolConfig") or {}).get("tools", ()) if "toolSpec" in tool
    ]
    return ReceivedRequest(
        protocol="bedrock",
        path=http.path,
        headers=http.headers,
        body=body,
        model=unquote(address.rpartition("/")[2]),
        stream=_OPERATIONS[operation],
        messages=[*_system(body), *_messages(turns)],
        tools=[
            ToolDefinition(
                spec["name"],
                spec.get("description") or "",
                spec["inputSchema"]["json"],
                strict=bool(spec.get("strict")),
            )
            for spec in specs
        ],
    )


def _check(body: _Turn, turns: list[_Turn]) -> None:
    """Refuse a conversation that violates the rules of the service."""
    if not turns or turns[0]["role"] != "user":
        raise Refused(400, _START)
    before: _Turn = {"content": []}
    uses: set[str] = set()
    for at, turn in enumerate(turns):
        if at and turn["role"] == turns[at - 1]["role"]:
            raise Refused(400, _ALTERNATE)
        if not turn["content"]:
            raise Refused(400, f"The content field in the Message object at messages.{at} is empty.")
        _check_blocks(turn, at)
        _check_results(before, turn, at)
        for use in _calls(turn):
            _check_name(use["toolUseId"], _ID, f"messages.{at}.content.toolUse.toolUseId")
            _check_name(use["name"], _NAME, f"messages.{at}.content.toolUse.name")
            if use["toolUseId"] in uses:
                raise Refused(400, f"messages.{at}.content: `tool_use` ids must be unique")
            uses.add(use["toolUseId"])
        before = turn
    has_tools = bool((body.get("toolConfig") or {}).get("tools"))
    if uses and not has_tools:
        raise Refused(400, _NO_TOOLS)
    names = [block["document"]["name"] for turn in turns for block in turn["content"] if "document" in block]
    if len(set(names)) < len(names):
        raise Refused(
            400, "Messages can't contain duplicate document names. Rename your documents and try again."
        )


def _check_name(given: str, allowed: re.Pattern[str], where: str) -> None:
    if not allowed.fullmatch(given):
        raise Refused(
            400,
            f"1 validation error detected: Value '{given}' at '{where}' failed to satisfy constraint: Member "
            f"must satisfy regular expression pattern: {allowed.pattern}",
        )


def _check_blocks(turn: _Turn, at: int) -> None:
    for index, block in enumerate(turn["content"]):
        where = f"messages.{at}.content.{index}"
        if len(block) != 1:
            raise Refused(400, f"The ContentBlock object at {where} must set exactly one of its members")
        if "text" in block and not block["text"].strip():
            raise Refused(
                400,
                f"The text field in the ContentBlock object at {where} is blank. Add text to the text field, "
                "and try again.",
            )
        if "reasoningContent" in block and turn["role"] == "user":
            raise Refused(
                400, "User messages cannot contain reasoning content. Please remove the reasoning content."
            )
    kinds = [kind for block in turn["content"] for kind in block]
    if turn["role"] == "assistant" and kinds[-1] == "reasoningContent":
        raise Refused(400, f"messages.{at}: The final block in an assistant message cannot be `thinking`.")
    if turn["role"] == "user" and "document" in kinds and "text" not in kinds:
        raise Refused(400, f"Include at least one text block beside the document at messages.{at}.content")


def _check_results(before: _Turn, turn: _Turn, at: int) -> None:
    """Check that each call of a turn has its result in the next one, and that there are no other results."""
    asked = [use["toolUseId"] for use in _calls(before)]
    told = [result["toolUseId"] for result in _results(turn)]
    missing = [call for call in asked if call not in told]
    if missing:
        ids = ", ".join(missing)
        raise Refused(
            400, f"Expected toolResult blocks at messages.{at}.content for the following Ids: {ids}"
        )
    if turn["role"] == "user" and len(told) > len(asked):
        raise Refused(
            400,
            f"The number of toolResult blocks at messages.{at}.content exceeds the number of toolUse blocks "
            "of previous turn.",
        )


def _calls(turn: _Turn) -> Iterator[Mapping[str, Any]]:
    """The calls of a turn that the client has to carry out."""
    for block in turn["content"]:
        if "toolUse" in block and "type" not in block["toolUse"]:
            yield block["toolUse"]


def _results(turn: _Turn) -> Iterator[Mapping[str, Any]]:
    for block in turn["content"]:
        if turn.get("role") == "user" and "toolResult" in block:
            yield block["toolResult"]


def _system(body: _Turn) -> list[Message]:
    return [Message("system", block["text"]) for block in body.get("system") or () if "text" in block]


def _messages(turns: list[_Turn]) -> list[Message]:
    messages: list[Message] = []
    names: dict[str, str] = {}
    for turn in turns:
        names.update((use["toolUseId"], use["name"]) for use in _calls(turn))
        for result in _results(turn):
            call_id = result["toolUseId"]
            message = Message("tool", parts=_parts(result["content"]), tool_call_id=call_id)
            message.tool_name = names.get(call_id)
            message.tool_call_error = result.get("status") == "error"
            messages.append(message)
        if parts := _parts(turn["content"]):
            messages.append(Message(turn["role"], parts=parts))
    return messages


def _parts(content: list[dict[str, Any]]) -> list[Part]:
    """The blocks as parts of Kern's messages; the rest stays in the raw body."""
    parts: list[Part] = []
    for block in content:
        ((kind, value),) = block.items()
        match kind:
            case "text":
                parts.append(TextPart(value, paragraph=bool(parts)))
            case "json":
                parts.append(TextPart(to_json(value).decode()))
            case "reasoningContent":
                told = value.get("reasoningText") or {}
                parts.append(
                    ReasoningPart(
                        told.get("text", ""),
                        signature=told.get("signature"),
                        redacted=value.get("redactedContent"),
                    )
                )
            case "toolUse" if "type" not in value:
                arguments = to_json(value["input"]).decode()
                parts.append(ToolCall(value["toolUseId"], value["name"], arguments))
            case "image" | "document" | "video" | "audio":
                parts.append(_media(_MEDIA[kind], value))
    return parts


def _media(kind: type[Media], block: Mapping[str, Any]) -> Media:
    source, name = block["source"], block.get("name")
    if "s3Location" in source:
        return kind(url=source["s3Location"]["uri"], name=name)
    if "text" in source:
        return kind(content=source["text"].encode(), name=name)
    try:
        content = base64.b64decode(source["bytes"], validate=True)
    except binascii.Error:
        raise Refused(400, "Unable to decode the bytes of a content block") from None
    return kind(content=content, mime_type=_mime_type(kind, block["format"]), name=name)


def _mime_type(kind: type[Media], form: str) -> str:
    if kind is File:
        return {"pdf": "application/pdf", "txt": "text/plain", "md": "text/markdown"}.get(
            form, f"text/{form}"
        )
    return f"{kind.__name__.lower()}/{form}"
