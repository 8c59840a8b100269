"""Decodes bodies of Google's Gemini API into a `ReceivedRequest`, and refuses what the real API refuses.

Source: https://ai.google.dev/api/generate-content, the types of the official Python client, and the texts of
errors as they stand in issues of it and of google-gemini/gemini-cli.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from pydantic_core import from_json, to_json

from kern.messages import Audio, File, Image, Media, Message, ToolCall, Video
from kern.testing._gemini_checks import check_body, check_turns, functions_of
from kern.testing._http import HttpRequest
from kern.testing._refusal import Refused
from kern.testing.request import ReceivedRequest

_UNDERSCORE = re.compile(r"_([a-z])")
_OPAQUE = frozenset(
    {
        *("args", "response", "parametersJsonSchema", "responseJsonSchema", "labels"),
        *("example", "default", "enum"),
    }
)
"""The fields that hold any JSON, or whose keys are not names of fields."""
_FROM_URLS = str.maketrans("-_", "+/")
_METHODS = {"generateContent": False, "streamGenerateContent": True}
_KINDS: dict[str, type[Media]] = {"image": Image, "audio": Audio, "video": Video}


def matches(path: str) -> bool:
    """Whether a path is that of a request to a Gemini model."""
    return path.rpartition(":")[2] in _METHODS


def decode(http: HttpRequest) -> ReceivedRequest:
    """Decode a body of `POST .../models/ID:generateContent`, or `:streamGenerateContent`."""
    route, _, query = http.path.partition("?")
    address, _, method = route.rpartition(":")
    model = unquote(address.rpartition("/")[2])
    stream = _METHODS[method]
    if stream and "alt=sse" not in query.split("&"):
        raise Refused(400, "ModelServer streams server-sent events only: ask with ?alt=sse.")
    if "key=" in query:
        raise Refused(400, "ModelServer takes a key in the header x-goog-api-key only: URLs end up in logs.")
    body = _object(http)
    check_body(body, model)
    contents = body["contents"]
    check_turns(contents, model)
    return ReceivedRequest(
        protocol="gemini",
        path=http.path,
        headers=http.headers,
        body=body,
        model=model,
        stream=stream,
        messages=_messages(body, contents),
        tools=functions_of(body),
    )


def _object(http: HttpRequest) -> dict[str, Any]:
    try:
        body = from_json(http.body)
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Refused(400, "Invalid JSON payload received. Unexpected token.")
    sound: dict[str, Any] = as_proto(body)
    return sound


def as_proto(value: Any) -> Any:
    """Read JSON as the API does: null means a missing field, and names may have underscores.

    Source: https://protobuf.dev/programming-guides/json/
    """
    if isinstance(value, list):
        return [as_proto(item) for item in value]
    if not isinstance(value, dict):
        return value
    read: dict[str, Any] = {}
    for given, item in value.items():
        name = _UNDERSCORE.sub(lambda found: found[1].upper(), given)
        if name == "properties" and isinstance(item, dict):
            read[name] = {key: as_proto(part) for key, part in item.items()}
        elif item is not None:
            read[name] = item if name in _OPAQUE else as_proto(item)
    return read


def _messages(body: dict[str, Any], contents: list[dict[str, Any]]) -> list[Message]:
    instruction = (body.get("systemInstruction") or {}).get("parts") or ()
    messages = [Message("system", part["text"]) for part in instruction]
    open_calls: list[ToolCall] = []
    for at, content in enumerate(contents):
        if content.get("role") == "model":
            message = _answer(content, at)
            open_calls = list(message.tool_calls)
            messages.append(message)
        else:
            messages += _turn(content, at, open_calls)
    return messages


def _answer(content: dict[str, Any], at: int) -> Message:
    message = Message("assistant")
    texts: list[str] = []
    for index, part in enumerate(content["parts"]):
        if call := part.get("functionCall"):
            made = call.get("id") or f"call_{at}_{index}"
            message.parts.append(ToolCall(made, call["name"], to_json(call.get("args") or {}).decode()))
        elif part.get("thought"):
            message.reasoning_content = (message.reasoning_content or "") + part.get("text", "")
        elif "text" in part:
            texts.append(part["text"])
        else:
            _put_media(message, part, f"contents[{at}].parts[{index}]")
    message.content = "".join(texts) if texts else None
    return message


def _turn(content: dict[str, Any], at: int, open_calls: list[ToolCall]) -> list[Message]:
    """The user's turn, after the results of the calls."""
    results: list[Message] = []
    said = Message("user")
    texts: list[str] = []
    for index, part in enumerate(content["parts"]):
        if response := part.get("functionResponse"):
            results.append(_result(response, open_calls))
        elif "text" in part:
            texts.append(part["text"])
        else:
            _put_media(said, part, f"contents[{at}].parts[{index}]")
    said.content = "\n".join(texts) if texts else None
    return [*results, said] if texts or said.media or not results else results


def _result(response: dict[str, Any], open_calls: list[ToolCall]) -> Message:
    name, given = response["name"], response.get("id")
    call = next(
        (call for call in open_calls if call.name == name and given in (None, call.id)),
        None,
    )
    if call is None:
        text = f"Function response {name!r} with id {given!r} has no matching function call."
        raise Refused(400, text)
    open_calls.remove(call)
    outcome = response["response"]
    failed = "error" in outcome
    value = outcome.get("error", outcome.get("output", outcome))
    text = value if isinstance(value, str) else to_json(value).decode()
    message = Message("tool", text, tool_call_id=call.id, tool_name=name, tool_call_error=failed)
    for part in response.get("parts") or ():
        _put_media(message, part, "function_response.parts")
    return message


def _put_media(message: Message, part: Mapping[str, Any], path: str) -> None:
    found: Media
    if blob := part.get("inlineData"):
        try:
            content = base64.b64decode(blob["data"].translate(_FROM_URLS), validate=True)
        except binascii.Error:
            text = f"Invalid value at '{path}.inline_data.data' (TYPE_BYTES), Base64 decoding failed"
            raise Refused(400, text) from None
        found = _kind(blob["mimeType"])(content=content, mime_type=blob["mimeType"])
    elif file := part.get("fileData"):
        kind = file.get("mimeType")
        found = _kind(kind or "")(url=file["fileUri"], mime_type=kind)
    else:
        return
    match found:
        case Image():
            message.images.append(found)
        case Audio():
            message.audio.append(found)
        case Video():
            message.videos.append(found)
        case File():
            message.files.append(found)


def _kind(mime_type: str) -> type[Media]:
    return _KINDS.get(mime_type.partition("/")[0], File)
