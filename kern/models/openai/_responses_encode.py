"""Encodes a request as the body of `POST /responses`. Does no I/O, except reading files of media.

The format: https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kern.errors import UsageError
from kern.messages import Audio, File, Image, Media, Message, Origin
from kern.models._history import answered, call_id, has_media, shown_media
from kern.models.base import ModelRequest, ResponseFormat, ToolDefinition
from kern.models.openai._chained import after_last_response
from kern.models.openai._media import (
    data_url,
    file_name,
    has_bytes,
    no_bytes,
    no_video,
    refuse_unless_user,
)
from kern.models.openai._older_rows import with_parts
from kern.models.openai._responses_input import LONGEST_ID, answer_items, is_own_picture, said
from kern.models.openai._schema import schema_for, schema_name
from kern.models.openai.server_tools import choice_of, includes_of
from kern.tools import ServerTool


def encode(
    request: ModelRequest, origin: Origin, *, stored: bool = False, chained: bool = False
) -> dict[str, Any]:
    """Return the parts of the body that depend on the request.

    Args:
        request: The request.
        origin: The model that is asked.
        stored: The provider has stored the answers of the current turn.
        chained: The provider has stored the whole conversation: only what follows its last answer is sent.
    """
    instructions, messages = _split(answered(request.messages, unique=True))
    earlier = None
    if chained:
        earlier, messages = after_last_response(messages, origin.model)
    body: dict[str, Any] = {"model": origin.model, "input": list(_input(messages, origin, stored))}
    if earlier is not None:
        body["previous_response_id"] = earlier
    if instructions is not None:
        body["instructions"] = instructions
    if request.tools or request.server_tools:
        body["tools"] = [*map(_tool, request.tools), *(tool.definition() for tool in request.server_tools)]
        if request.tool_choice is not None:
            body["tool_choice"] = _tool_choice(request.tool_choice, request.server_tools)
    if includes := includes_of(request.server_tools):
        body["include"] = includes
    if request.response_format is not None:
        body["text"] = {"format": _format(request.response_format)}
    return body


def _split(messages: Sequence[Message]) -> tuple[str | None, Sequence[Message]]:
    """Separate the system message at the beginning, which has its own field, from the other messages."""
    if len(messages) > 1 and messages[0].role == "system":
        if has_media(messages[0]):
            refuse_unless_user(messages[0])
        return messages[0].content or "", messages[1:]
    return None, messages


def _input(messages: Sequence[Message], origin: Origin, stored: bool) -> Iterator[dict[str, Any]]:
    last_user = max((i for i, m in enumerate(messages) if m.role == "user"), default=-1)
    attached: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        if attached and message.role != "tool":
            yield _attachment(attached)
            attached = []
        if message.role == "assistant" and message.provider_data is not None:
            message = with_parts(message, origin)
        parts, mentions = shown_media(message, _part, lambda media: is_own_picture(media, origin))
        if message.role == "tool":
            output = _content(message, parts, mentions)
            called = call_id(message.tool_call_id, LONGEST_ID)
            yield {"type": "function_call_output", "call_id": called, "output": output}
        elif message.role == "assistant":
            attached += parts
            yield from answer_items(message, origin, stored=stored and index > last_user)
            if mentions:
                yield said("\n".join(mentions))
        else:
            if parts:
                refuse_unless_user(message)
            yield {"role": message.role, "content": _content(message, parts, mentions)}
    if attached:
        yield _attachment(attached)


def _attachment(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return media of an earlier answer as a user message: an assistant message may only have text."""
    return {
        "role": "user",
        "content": [{"type": "input_text", "text": "(attached by the assistant)"}, *parts],
    }


def _content(
    message: Message, parts: list[dict[str, Any]], mentions: list[str]
) -> str | list[dict[str, Any]]:
    text = "\n".join([*([message.content] if message.content else []), *mentions])
    if not parts:
        return text
    return [*([{"type": "input_text", "text": text}] if text else []), *parts]


def _part(media: Media) -> dict[str, Any]:
    match media:
        case Image():
            return _image(media)
        case File():
            return _file(media)
        case Audio():
            raise UsageError("the Responses API does not accept audio: use OpenAIChat with an audio model")
    raise no_video()


def _image(image: Image) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "input_image", "detail": image.detail or "auto"}
    if image.url is not None:
        part["image_url"] = image.url
    elif has_bytes(image):
        part["image_url"] = data_url(image, "image/png")
    elif image.id is not None:
        part["file_id"] = image.id
    else:
        raise no_bytes(image)
    return part


def _file(file: File) -> dict[str, Any]:
    if file.url is not None:
        return {"type": "input_file", "file_url": file.url}
    if has_bytes(file):
        url = data_url(file, "application/octet-stream")
        return {"type": "input_file", "filename": file_name(file), "file_data": url}
    if file.id is None:
        raise no_bytes(file)
    return {"type": "input_file", "file_id": file.id}


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    schema, strict = schema_for(tool.parameters, strict=tool.strict)
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": schema,
        # Always explicit: by default this API makes every schema strict, and optional arguments required.
        "strict": strict,
    }


def _tool_choice(choice: str | Mapping[str, Any], server_tools: Sequence[ServerTool]) -> Any:
    if isinstance(choice, str):
        return choice
    return choice_of(choice["name"], server_tools) or {"type": "function", **choice}


def _format(response_format: ResponseFormat) -> dict[str, Any]:
    schema, strict = schema_for(response_format.schema, strict=response_format.strict)
    return {
        "type": "json_schema",
        "name": schema_name(response_format.name),
        "schema": schema,
        "strict": strict,
    }
