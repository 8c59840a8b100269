"""Kern's request as the body of `POST /responses`: pure, but for files that media name.

The format: https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kern.errors import UsageError
from kern.messages import File, Image, Message
from kern.models.base import ModelRequest, ResponseFormat, ToolDefinition
from kern.models.openai._media import data_url, file_name, has_bytes, refuse_unsupported
from kern.models.openai._schema import schema_for, schema_name

PROVIDER = "openai"
"""The key under which `Message.provider_data` holds what this protocol wants to see again."""


def encode(request: ModelRequest, model: str) -> dict[str, Any]:
    """The parts of the body that the request decides."""
    instructions, messages = _split(request.messages)
    body: dict[str, Any] = {
        "model": model,
        "input": [item for message in messages for item in _items(message, model)],
    }
    if instructions is not None:
        body["instructions"] = instructions
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        if request.tool_choice is not None:
            body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.response_format is not None:
        body["text"] = {"format": _format(request.response_format)}
    return body


def _split(messages: Sequence[Message]) -> tuple[str | None, Sequence[Message]]:
    """The system message that opens the conversation has a place of its own; others stay where they are."""
    if len(messages) > 1 and messages[0].role == "system":
        refuse_unsupported(messages[0])
        return messages[0].content or "", messages[1:]
    return None, messages


def _items(message: Message, model: str) -> list[dict[str, Any]]:
    refuse_unsupported(message)
    if message.role == "tool":
        output = {
            "type": "function_call_output",
            "call_id": message.tool_call_id,
            "output": _content(message),
        }
        return [output]
    if message.role == "assistant":
        return _replay(message, model) or _plain(message)
    return [{"role": message.role, "content": _content(message)}]


def _content(message: Message) -> str | list[dict[str, Any]]:
    if message.audio:
        raise UsageError("the Responses API takes no audio: use OpenAIChat with a model that listens")
    if not message.images and not message.files:
        return message.content or ""
    parts: list[dict[str, Any]] = []
    if message.content:
        parts.append({"type": "input_text", "text": message.content})
    parts.extend(_image(image) for image in message.images)
    parts.extend(_file(file) for file in message.files)
    return parts


def _image(image: Image) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "input_image", "detail": image.detail or "auto"}
    if image.url is not None:
        part["image_url"] = image.url
    elif has_bytes(image):
        part["image_url"] = data_url(image, "image/png")
    else:
        part["file_id"] = image.id
    return part


def _file(file: File) -> dict[str, Any]:
    if file.url is not None:
        return {"type": "input_file", "file_url": file.url}
    if has_bytes(file):
        url = data_url(file, "application/octet-stream")
        return {"type": "input_file", "filename": file_name(file), "file_data": url}
    return {"type": "input_file", "file_id": file.id}


def _plain(message: Message) -> list[dict[str, Any]]:
    """An assistant's message as anyone could have said it."""
    items: list[dict[str, Any]] = []
    if message.commentary:
        items.append({"role": "assistant", "content": message.commentary})
    if message.content or not (message.tool_calls or message.commentary):
        items.append({"role": "assistant", "content": message.content or ""})
    items.extend(
        {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments or "{}"}
        for call in message.tool_calls
    )
    return items


def _replay(message: Message, model: str) -> list[dict[str, Any]] | None:
    """The output items of this very model, in their order, its reasoning between them.

    None if the message is not this model's, or was changed since: reasoning without the item that it led to
    is refused by the API. Texts and arguments stand in the message; the record says where they belong.
    """
    record = (message.provider_data or {}).get(PROVIDER)
    if not isinstance(record, Mapping) or record.get("model") != model:
        return None
    calls = {call.id: call for call in message.tool_calls}
    texts = {"content": message.content or "", "commentary": message.commentary or ""}
    ends = dict.fromkeys(texts, 0)
    items: list[dict[str, Any]] = []
    for item in record.get("items", ()):
        if item["type"] == "message":
            of = item.get("of", "content")
            start = item.get("start", ends[of])  # which records of version 0.1 lack: nothing stood between
            ends[of] = start + item["chars"]
            if ends[of] > len(texts[of]):
                return None
            items.append(_message(item, texts[of][start : ends[of]]))
        elif item["type"] == "function_call":
            call = calls.pop(item["call_id"], None)
            if call is None:
                return None
            items.append({**item, "name": call.name, "arguments": call.arguments})
        else:
            items.append(item)
    whole = all(ends[of] == len(text) for of, text in texts.items())
    return items if whole and not calls else None


def _message(item: Mapping[str, Any], said: str) -> dict[str, Any]:
    content: dict[str, Any] = {"type": "output_text", "text": said, "annotations": []}
    if item.get("refusal"):
        content = {"type": "refusal", "refusal": said}
    kept = {name: item[name] for name in ("type", "id", "phase") if name in item}
    return {**kept, "role": "assistant", "status": "completed", "content": [content]}


def _tool(tool: ToolDefinition) -> dict[str, Any]:
    schema, strict = schema_for(tool.parameters, strict=tool.strict)
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": schema,
        # Said either way: without it this API makes every schema strict, and optional arguments mandatory.
        "strict": strict,
    }


def _tool_choice(choice: str | Mapping[str, Any]) -> Any:
    return choice if isinstance(choice, str) else {"type": "function", **choice}


def _format(response_format: ResponseFormat) -> dict[str, Any]:
    schema, strict = schema_for(response_format.schema, strict=response_format.strict)
    return {
        "type": "json_schema",
        "name": schema_name(response_format.name),
        "schema": schema,
        "strict": strict,
    }
