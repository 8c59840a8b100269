"""Kern's request as the body of `POST /chat/completions`: pure, but for files that media name.

The format: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from kern.errors import UsageError
from kern.messages import Audio, File, Image, Message
from kern.models.base import ModelRequest, ResponseFormat, ToolDefinition
from kern.models.openai._media import (
    audio_format,
    data_url,
    encoded,
    file_name,
    has_bytes,
    refuse_unsupported,
)
from kern.models.openai._schema import schema_for, schema_name

PROVIDER = "openai-chat"
"""The key under which `Message.provider_data` holds what this protocol wants to see again."""


def encode(request: ModelRequest, model: str, *, official: bool) -> dict[str, Any]:
    """The parts of the body that the request decides."""
    body: dict[str, Any] = {"model": model, "messages": list(_messages(request, model, official))}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        if request.tool_choice is not None:
            body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.response_format is not None:
        body["response_format"] = _format(request.response_format)
    if request.stream:
        body["stream_options"] = {"include_usage": True}
    return body


def _messages(request: ModelRequest, model: str, official: bool) -> Iterator[dict[str, Any]]:
    last_user = max((i for i, m in enumerate(request.messages) if m.role == "user"), default=-1)
    for is_tool, group in groupby(enumerate(request.messages), lambda pair: pair[1].role == "tool"):
        messages = list(group)
        if is_tool:
            yield from _tool_results(message for _, message in messages)
            continue
        for index, message in messages:
            refuse_unsupported(message)
            if message.role == "assistant":
                yield _assistant(message, model if index > last_user else None)
            else:
                yield _said(message, official)


def _said(message: Message, official: bool) -> dict[str, Any]:
    # Servers that speak this protocol know "system" only; at OpenAI the two are told apart.
    role = message.role if official or message.role != "developer" else "system"
    said: dict[str, Any] = {"role": role, "content": _content(message)}
    if message.name:
        said["name"] = re.sub(r"[^A-Za-z0-9_-]", "_", message.name)[:64]
    return said


def _tool_results(messages: Iterable[Message]) -> Iterator[dict[str, Any]]:
    """The results of one turn. A tool message holds text only, so what it shows follows as the user's."""
    shown: list[dict[str, Any]] = []
    for message in messages:
        refuse_unsupported(message)
        yield {"role": "tool", "tool_call_id": message.tool_call_id, "content": message.content or ""}
        shown.extend(_media(message))
    if shown:
        yield {"role": "user", "content": [{"type": "text", "text": "(attached by the tools)"}, *shown]}


def _assistant(message: Message, replay_for: str | None) -> dict[str, Any]:
    texts = [text for text in (message.commentary, message.content) if text]
    said: dict[str, Any] = {"role": "assistant", "content": "\n\n".join(texts) if texts else message.content}
    if message.tool_calls:
        said["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments or "{}"},
            }
            for call in message.tool_calls
        ]
        # Servers with thinking models (DeepSeek, Kimi) want their reasoning back until the turn is over,
        # under the name that they gave it, and only then.
        record = (message.provider_data or {}).get(PROVIDER)
        if isinstance(record, Mapping) and replay_for is not None and record.get("model") == replay_for:
            said[record["reasoning"]] = message.reasoning_content
    elif said["content"] is None:
        said["content"] = ""
    return said


def _content(message: Message) -> str | list[dict[str, Any]]:
    if parts := list(_media(message)):
        text = [{"type": "text", "text": message.content}] if message.content else []
        return [*text, *parts]
    return message.content or ""


def _media(message: Message) -> Iterator[dict[str, Any]]:
    yield from map(_image, message.images)
    yield from map(_audio, message.audio)
    yield from map(_file, message.files)


def _image(image: Image) -> dict[str, Any]:
    if image.url is None and not has_bytes(image):
        raise UsageError("chat completions take an image as url, content or filepath, not by id")
    part = {"url": image.url if image.url is not None else data_url(image, "image/png")}
    if image.detail is not None:
        part["detail"] = image.detail
    return {"type": "image_url", "image_url": part}


def _audio(audio: Audio) -> dict[str, Any]:
    if not has_bytes(audio):
        raise UsageError("chat completions take audio as content or filepath, not by url or id")
    sound = {"data": encoded(audio), "format": audio_format(audio)}
    return {"type": "input_audio", "input_audio": sound}


def _file(file: File) -> dict[str, Any]:
    if file.url is not None:
        raise UsageError("chat completions take a file as content, filepath or id, not by url")
    if has_bytes(file):
        data = data_url(file, "application/pdf")
        return {"type": "file", "file": {"filename": file_name(file), "file_data": data}}
    return {"type": "file", "file": {"file_id": file.id}}


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    schema, strict = schema_for(tool.parameters, strict=tool.strict)
    function: dict[str, Any] = {"name": tool.name, "description": tool.description, "parameters": schema}
    if strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _tool_choice(choice: str | Mapping[str, Any]) -> Any:
    return choice if isinstance(choice, str) else {"type": "function", "function": {"name": choice["name"]}}


def _format(response_format: ResponseFormat) -> dict[str, Any]:
    schema, strict = schema_for(response_format.schema, strict=response_format.strict)
    described = {
        "name": schema_name(response_format.name),
        "schema": schema,
        "strict": strict,
    }
    return {"type": "json_schema", "json_schema": described}
