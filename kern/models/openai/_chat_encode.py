"""Encodes a request as the body of `POST /chat/completions`. Does no I/O, except reading files of media.

The format: https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from kern.errors import UsageError
from kern.messages import Audio, File, Image, Media, Message, Origin, ReasoningPart, TextPart, ToolCall
from kern.models._history import answered, call_id, call_name, record_of, shown_media, sound_arguments
from kern.models.base import ModelRequest, ResponseFormat, ToolDefinition
from kern.models.openai._media import (
    audio_format,
    data_url,
    encoded,
    file_name,
    has_bytes,
    no_bytes,
    no_video,
    refuse_unless_user,
)
from kern.models.openai._schema import schema_for, schema_name
from kern.models.openai._spoken import is_transcribed
from kern.models.servers import ChatServer

PROVIDER = "openai-chat"
"""The key in `Message.provider_data` for what must be sent back over this protocol."""

REASONING_NAMES = ("reasoning_content", "reasoning")
"""The fields in which servers send a model's reasoning, and expect it back."""

THINKING = "thinking"
"""Mistral's kind of part for reasoning."""

REPLAYED: dict[str, type] = {"reasoning_details": list, "extra_content": dict, "annotations": list}
"""The fields that are always sent back unchanged: signed reasoning of OpenRouter and others, and Gemini's
signatures."""

_MOST_CALLS = 128
_READ = "(The results were read.)"
_PLAIN = re.compile(r"[A-Za-z0-9]*")
_ID = 40  # the maximum length of a call id in OpenAI's API
_NO_REASONING = " "
"""For a message without reasoning, if a server requires it in each: Kimi and DeepSeek refuse "" there."""


def encode(
    request: ModelRequest, origin: Origin, *, server: ChatServer, wants_reasoning: bool = False
) -> dict[str, Any]:
    """Return the parts of the body that depend on the request.

    Args:
        request: The request.
        origin: The model that is asked.
        server: The description of the server.
        wants_reasoning: The server has refused assistant messages without `reasoning_content`.
    """
    spoken = answered(request.messages)
    messages = list(_messages(spoken, origin, server))
    if wants_reasoning:
        _add_reasoning(messages, spoken)
    messages = list(_in_portions(messages))
    if not server.user_after_tool:
        messages = list(_spaced(messages))
    body: dict[str, Any] = {"model": origin.model, "messages": messages}
    if request.tools:
        body["tools"] = [_tool(tool, server) for tool in request.tools]
        choice = None if request.tool_choice is None else _tool_choice(request.tool_choice, server)
        if choice is not None:
            body["tool_choice"] = choice
    if request.response_format is not None:
        body["response_format"] = _format(request.response_format)
    if request.stream and server.stream_usage:
        body["stream_options"] = {"include_usage": True}
    return body


def _messages(spoken: Sequence[Message], origin: Origin, server: ChatServer) -> Iterator[dict[str, Any]]:
    attached: dict[str, list[dict[str, Any]]] = {}
    part_of = partial(_part, server)
    for index, message in enumerate(spoken):
        if attached and message.role != "tool":
            yield from _attachments(attached)
        parts, mentions = shown_media(message, part_of, is_transcribed)
        text = _spoken(message)
        if mentions:
            text = "\n".join(filter(None, (text, *mentions)))
        if message.role == "tool":
            yield {"role": "tool", "tool_call_id": _call_id(message.tool_call_id, server), "content": text}
        elif message.role == "assistant":
            yield _assistant(spoken, index, text, origin, server)
        else:
            yield _said(message, text, parts, server)
            continue
        if parts:
            attached.setdefault(message.role, []).extend(parts)
    yield from _attachments(attached)


def _in_portions(messages: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the messages, an answer with more calls than OpenAI accepts as several, each with its results."""
    skip = 0
    for at, message in enumerate(messages):
        if skip:
            skip -= 1
            continue
        calls = message.get("tool_calls") or ()
        if len(calls) <= _MOST_CALLS:
            yield message
            continue
        skip = len(calls)
        results = {result["tool_call_id"]: result for result in messages[at + 1 : at + 1 + skip]}
        said = {**message, "content": ""}
        for begin in range(0, len(calls), _MOST_CALLS):
            portion = calls[begin : begin + _MOST_CALLS]
            yield {**(said if begin else message), "tool_calls": portion}
            yield from (results[call["id"]] for call in portion)


def _spaced(messages: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the messages, with an assistant's between a tool's and a user's: Mistral requires that."""
    before = ""
    for message in messages:
        if before == "tool" and message["role"] not in ("tool", "assistant"):
            yield {"role": "assistant", "content": _READ}
        yield message
        before = message["role"]


def _spoken(message: Message) -> str:
    """Return all texts of a message, in order, for the protocol's single field."""
    text, commentary = "", False
    parts = message.parts
    if len(parts) == 1 and type(part := parts[0]) is TextPart:
        return part.text
    for part in parts:
        if isinstance(part, TextPart) and part.text:
            apart = part.paragraph or part.commentary is not commentary
            text += f"\n\n{part.text}" if text and apart else part.text
            commentary = part.commentary
    return text


def _is_in_turn_with_calls(messages: Sequence[Message], index: int) -> bool:
    """Whether a call was made between the user messages before and after this one."""
    for ways in (range(index, -1, -1), range(index + 1, len(messages))):
        for at in ways:
            if messages[at].role == "user":
                break
            if messages[at].tool_calls:
                return True
    return False


def _add_reasoning(encoded: list[dict[str, Any]], spoken: Sequence[Message]) -> None:
    """Add reasoning to all assistant messages: their own, of any model, or a placeholder."""
    said = iter([message for message in spoken if message.role == "assistant"])
    for data in encoded:
        if data["role"] == "assistant":
            data.setdefault(REASONING_NAMES[0], next(said).reasoning_content or _NO_REASONING)


def _said(message: Message, text: str, parts: list[dict[str, Any]], server: ChatServer) -> dict[str, Any]:
    # Most servers with this protocol know only "system"; OpenAI distinguishes the two.
    role = message.role if server.developer_role or message.role != "developer" else "system"
    said: dict[str, Any] = {"role": role, "content": text}
    if parts:
        refuse_unless_user(message)
        said["content"] = [*([{"type": "text", "text": text}] if text else []), *parts]
    if message.name and server.names:
        said["name"] = re.sub(r"[^A-Za-z0-9_-]", "_", message.name)[:64]
    return said


def _attachments(attached: dict[str, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Yield media of tools and earlier answers as a user message: their own messages may only have text.

    It follows the results of a turn, which must come directly after their calls.
    """
    for role, words in (("assistant", "(attached by the assistant)"), ("tool", "(attached by the tools)")):
        if parts := attached.pop(role, None):
            yield {"role": "user", "content": [{"type": "text", "text": words}, *parts]}


def _assistant(
    messages: Sequence[Message], index: int, text: str, origin: Origin, server: ChatServer
) -> dict[str, Any]:
    message = messages[index]
    # Text is never null: llama-cpp-python fails on null beside tool calls.
    said: dict[str, Any] = {"role": "assistant", "content": text}
    if calls := message.tool_calls:
        said["tool_calls"] = [_call(call, origin, server) for call in calls]
    if message.is_text and message.provider_data is None:
        return said
    record = _kept(message, origin)
    if record is None:
        return said
    for name, kind in REPLAYED.items() if server.extras else ():
        if isinstance(value := record.get(name), kind) and value:
            said[name] = value
    # Servers with thinking models (DeepSeek, Kimi) require their reasoning back, in the same field, if the
    # turn has calls, also in all later requests (https://api-docs.deepseek.com/guides/thinking_mode). They
    # ignore the reasoning of other turns.
    reasoning = message.reasoning_content
    if reasoning and (server.reasoning_kept == "all" or _is_in_turn_with_calls(messages, index)):
        _add_own_reasoning(said, reasoning, record.get("reasoning"), server)
    return said


def _kept(message: Message, origin: Origin) -> Mapping[str, Any] | None:
    """Return what this model must get back with its message; in rows of 0.1 the message itself has it."""
    for part in message.parts:
        if isinstance(part, ReasoningPart) and part.origin == origin and part.provider_data is not None:
            return part.provider_data
    return record_of(message.provider_data, PROVIDER, origin.model)


def _add_own_reasoning(said: dict[str, Any], reasoning: str, source_field: Any, server: ChatServer) -> None:
    """Add the model's own reasoning to its message, in the form that the server expects.

    Args:
        source_field: The field in which it came.
    """
    if source_field is None or "reasoning_details" in said:
        return
    field = source_field if server.reasoning == "told" else server.reasoning
    if field == THINKING and server.reasoning == THINKING:
        thought = {"type": THINKING, THINKING: [{"type": "text", "text": reasoning}]}
        text = said["content"]
        said["content"] = [thought, *([{"type": "text", "text": text}] if text else [])]
    elif field in REASONING_NAMES:
        said[field] = reasoning


def _call_id(given: str | None, server: ChatServer) -> str:
    """Return the id of a call in the form that the server accepts."""
    if server.call_id is None or (given and len(given) == server.call_id and _PLAIN.fullmatch(given)):
        return call_id(given, _ID)
    return hashlib.sha256((given or "").encode(errors="replace")).hexdigest()[: server.call_id]


def _call(call: ToolCall, origin: Origin, server: ChatServer) -> dict[str, Any]:
    function = {"name": call_name(call.name), "arguments": sound_arguments(call)}
    data: dict[str, Any] = {"id": _call_id(call.id, server), "type": "function", "function": function}
    own = call.origin == origin
    record = call.provider_data if own else record_of(call.provider_data, PROVIDER, origin.model)
    if server.extras and record is not None and isinstance(extra := record.get("extra_content"), Mapping):
        data["extra_content"] = extra
    return data


def _part(server: ChatServer, media: Media) -> dict[str, Any]:
    match media:
        case Image():
            return _image(media)
        case Audio():
            return _audio(media)
        case File():
            return _file(media, server)
    raise no_video()


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


def _file(file: File, server: ChatServer) -> dict[str, Any]:
    if file.url is not None and not server.file_urls:
        raise UsageError(f"{server.title} takes a file as content, filepath or id, not by url")
    if file.url is not None or has_bytes(file):
        return _whole_file(file, server)
    if file.id is None:
        raise no_bytes(file)
    return {"type": "file", "file": {"file_id": file.id}}


def _whole_file(file: File, server: ChatServer) -> dict[str, Any]:
    """Return a file as a part for its server: https://docs.mistral.ai/capabilities/document_ai/document_qna
    and https://docs.perplexity.ai/guides/file-attachments define their own parts.
    """
    data = file.url
    if server.file_part == "file_url":
        part = {"type": "file_url", "file_url": {"url": encoded(file) if data is None else data}}
        return part | {"file_name": file_name(file)}
    if data is None:
        data = data_url(file, "application/pdf")
    if server.file_part == "document_url":
        return {"type": "document_url", "document_url": data}
    return {"type": "file", "file": {"filename": file_name(file), "file_data": data}}


def _tool(tool: ToolDefinition, server: ChatServer) -> dict[str, Any]:
    schema, strict = schema_for(tool.parameters, strict=tool.strict and server.strict)
    function: dict[str, Any] = {"name": tool.name, "description": tool.description, "parameters": schema}
    if strict:
        function["strict"] = True
    return {"type": "function", "function": function}


def _tool_choice(choice: str | Mapping[str, Any], server: ChatServer) -> Any:
    """Return the choice in the strongest form that the server supports; None: leave it out."""
    if isinstance(choice, Mapping):
        if "named" in server.tool_choices:
            return {"type": "function", "function": {"name": choice["name"]}}
        choice = "required"
    return choice if choice in server.tool_choices else None


def _format(response_format: ResponseFormat) -> dict[str, Any]:
    schema, strict = schema_for(response_format.schema, strict=response_format.strict)
    described = {
        "name": schema_name(response_format.name),
        "schema": schema,
        "strict": strict,
    }
    return {"type": "json_schema", "json_schema": described}
