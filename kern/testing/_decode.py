"""Decodes bodies of OpenAI's protocols into a `ReceivedRequest`, and refuses what the real API refuses.

Source: the request types of the official Python client, and https://platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import from_json

from kern.messages import Audio, File, Image, Media, Message, ToolCall
from kern.models.base import ToolDefinition
from kern.testing._http import HttpRequest
from kern.testing._items import check_call_ids, check_items, check_length
from kern.testing._refusal import Refused
from kern.testing._validate import check_chat_pairs, check_response_pairs, check_strict
from kern.testing.request import ProtocolName, ReceivedRequest

_NOT_JSON = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP "
    "library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON.)"
)
_LONGEST_CHAT_CALL_ID = 40
_EXTRA_ITEMS = (
    "item_reference",
    "web_search_call",
    "file_search_call",
    "code_interpreter_call",
    "image_generation_call",
    "mcp_list_tools",
    "mcp_call",
    "shell_call",
    "shell_call_output",
    "tool_search_call",
    "tool_search_output",
    "compaction",
)


def decode_responses(http: HttpRequest) -> ReceivedRequest:
    """Decode a body of `POST /responses`."""
    body = _json_object(http)
    messages = []
    if body.get("instructions"):
        messages.append(Message("system", body["instructions"]))
    items = body.get("input", [])
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    reader = _ItemReader(messages)
    for index, item in enumerate(items):
        reader.read(item, f"input[{index}]")
    check_call_ids(items)
    if "previous_response_id" not in body:
        check_response_pairs(items)
        check_items(items)
    tools = [_response_tool(tool, f"tools[{i}]") for i, tool in _functions(body)]
    output_format = (body.get("text") or {}).get("format") or {}
    if output_format.get("type") == "json_schema" and output_format.get("strict"):
        check_strict(output_format.get("schema") or {}, "text.format.schema", output_format.get("name", ""))
    return _request("responses", http, body, messages, tools)


def decode_chat(http: HttpRequest) -> ReceivedRequest:
    """Decode a body of `POST /chat/completions`."""
    body = _json_object(http)
    if not body.get("messages"):
        raise Refused(400, "Missing required parameter: 'messages'.", param="messages")
    names: dict[str, str] = {}
    messages = [
        _chat_message(item, f"messages[{index}]", names) for index, item in enumerate(body["messages"])
    ]
    check_chat_pairs(messages)
    tools = [_chat_tool(tool, f"tools[{i}]") for i, tool in _functions(body)]
    schema = (body.get("response_format") or {}).get("json_schema") or {}
    if schema.get("strict"):
        check_strict(schema.get("schema") or {}, "response_format", schema.get("name", ""))
    return _request("chat", http, body, messages, tools)


def _json_object(http: HttpRequest) -> dict[str, Any]:
    try:
        body = from_json(http.body)
    except ValueError:
        raise Refused(400, _NOT_JSON) from None
    if not isinstance(body, dict):
        raise Refused(400, _NOT_JSON)
    if not isinstance(body.get("model"), str):
        raise Refused(400, "you must provide a model parameter")
    return body


def _request(
    protocol: ProtocolName,
    http: HttpRequest,
    body: dict[str, Any],
    messages: list[Message],
    tools: list[ToolDefinition],
) -> ReceivedRequest:
    for tool in tools:
        if tool.strict:
            check_strict(tool.parameters, "tools", tool.name)
    return ReceivedRequest(
        protocol=protocol,
        path=http.path,
        headers=http.headers,
        body=body,
        model=body["model"],
        stream=bool(body.get("stream")),
        messages=messages,
        tools=tools,
    )


class _ItemReader:
    """Converts input items of the Responses protocol to messages: an assistant's items are one message."""

    def __init__(self, messages: list[Message]) -> None:
        self._messages = messages
        self._names: dict[str, str] = {}
        self._reasoning: str | None = None

    def read(self, item: Any, path: str) -> None:
        """Read one item."""
        if not isinstance(item, dict):
            raise Refused(400, f"Invalid type for '{path}': expected an object.", param=path)
        kind = item.get("type") or ("message" if "role" in item else None)
        match kind:
            case "message":
                self._message(item, path)
            case "function_call":
                self._call(item, path)
            case "function_call_output":
                call_id = _text(item, "call_id", path)
                content = _joined(_required(item, "output", path))
                name = self._names.get(call_id)
                self._messages.append(Message("tool", content, tool_call_id=call_id, tool_name=name))
            case "reasoning":
                parts = [part["text"] for part in _required(item, "summary", path)]
                self._reasoning = "\n\n".join(parts)
            case _ if kind not in _EXTRA_ITEMS:
                raise Refused(400, f"Invalid value: '{kind}'.", code="invalid_value", param=f"{path}.type")

    def _message(self, item: dict[str, Any], path: str) -> None:
        role = item.get("role")
        if role not in ("system", "developer", "user", "assistant"):
            raise Refused(400, f"Invalid value: '{role}'.", code="invalid_value", param=f"{path}.role")
        if item.get("content") is None:
            _required({}, "content", path)
        message = Message(role)
        allowed = _ASSISTANT_PARTS if role == "assistant" else _INPUT_PARTS
        _read_content(message, item.get("content"), f"{path}.content", allowed)
        if item.get("phase") == "commentary":
            message.content, message.commentary = None, message.content
        self._append(message)

    def _call(self, item: dict[str, Any], path: str) -> None:
        call_id, name, arguments = (_text(item, key, path) for key in ("call_id", "name", "arguments"))
        call = ToolCall(call_id, name, arguments)
        self._names[call.id] = call.name
        if self._reasoning is not None or not (self._messages and self._messages[-1].role == "assistant"):
            self._append(Message("assistant"))
        self._messages[-1].parts.append(call)

    def _append(self, message: Message) -> None:
        if message.role == "assistant":
            message.reasoning_content, self._reasoning = self._reasoning, None
        self._messages.append(message)


def _chat_message(item: Any, path: str, names: dict[str, str]) -> Message:
    role = item.get("role") if isinstance(item, dict) else None
    if role not in ("system", "developer", "user", "assistant", "tool"):
        raise Refused(400, f"Invalid value: '{role}'.", code="invalid_value", param=f"{path}.role")
    message = Message(role, name=item.get("name"), reasoning_content=item.get("reasoning_content"))
    calls = item.get("tool_calls") or ()
    if item.get("content") is None and not calls:
        expected = f"Invalid value for 'content' of '{path}': expected a string, got null."
        raise Refused(400, expected, param=f"{path}.content")
    _read_content(message, item.get("content"), f"{path}.content", _CHAT_PARTS)
    for index, call in enumerate(calls):
        where = f"{path}.tool_calls[{index}]"
        function = _required(call, "function", where)
        name, arguments = (_text(function, key, f"{where}.function") for key in ("name", "arguments"))
        message.parts.append(ToolCall(_text(call, "id", where), name, arguments))
        check_length(call["id"], _LONGEST_CHAT_CALL_ID, f"{where}.id")
        names[call["id"]] = function["name"]
    if role == "tool":
        message.tool_call_id = _text(item, "tool_call_id", path)
        message.tool_name = names.get(item["tool_call_id"])
    return message


def _functions(body: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """The function tools; the provider's own tools, such as web search, stay in the raw body."""
    tools = enumerate(body.get("tools") or ())
    return [(index, tool) for index, tool in tools if tool.get("type") == "function"]


def _response_tool(tool: dict[str, Any], path: str) -> ToolDefinition:
    name = _required(tool, "name", path)
    parameters = tool.get("parameters") or {}
    return ToolDefinition(name, tool.get("description") or "", parameters, strict=bool(tool.get("strict")))


def _chat_tool(tool: dict[str, Any], path: str) -> ToolDefinition:
    return _response_tool(_required(tool, "function", path), f"{path}.function")


def _required(item: Mapping[str, Any], key: str, path: str) -> Any:
    if key not in item:
        where = f"{path}.{key}"
        message = f"Missing required parameter: '{where}'."
        raise Refused(400, message, code="missing_required_parameter", param=where)
    return item[key]


def _text(item: Mapping[str, Any], key: str, path: str) -> str:
    value = _required(item, key, path)
    if not isinstance(value, str):
        kind = "null" if value is None else type(value).__name__
        message = f"Invalid type for '{path}.{key}': expected a string, but got {kind} instead."
        raise Refused(400, message, code="invalid_type", param=f"{path}.{key}")
    return value


def _joined(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def _read_content(message: Message, content: Any, path: str, allowed: _Parts) -> None:
    """Put text and media into the message."""
    if content is None or isinstance(content, str):
        message.content = content
        return
    texts = []
    for index, part in enumerate(content):
        kind = part.get("type")
        if kind not in allowed:
            names = ", ".join(f"'{name}'" for name in allowed)
            text = f"Invalid value: '{kind}'. Supported values are: {names}."
            raise Refused(400, text, code="invalid_value", param=f"{path}[{index}]")
        read = allowed[kind](part)
        match read:
            case str():
                texts.append(read)
            case Image():
                message.images.append(read)
            case Audio():
                message.audio.append(read)
            case File():
                message.files.append(read)
    message.content = "\n".join(texts) if texts else None


_Parts = Mapping[str, Callable[[dict[str, Any]], str | Media]]


def _image(url: str, detail: Any) -> Image:
    mime_type, content = _data_url(url)
    return Image(url=None if content else url, content=content, mime_type=mime_type, detail=detail)


def _image_of(place: Any) -> Image:
    """The image of a part. A bare URL is accepted, too."""
    given = {"url": place} if isinstance(place, str) else place
    return _image(given["url"], given.get("detail"))


def _file(part: dict[str, Any]) -> File:
    if "file_data" in part:
        mime_type, content = _data_url(part["file_data"])
        return File(content=content or b"", mime_type=mime_type, name=part.get("filename"))
    return File(url=part.get("file_url"), id=part.get("file_id"), name=part.get("filename"))


def _audio(part: dict[str, Any]) -> Audio:
    sound = part["input_audio"]
    if not isinstance(sound, dict):
        raise Refused(400, "Invalid type for 'input_audio': expected an object, but got a string instead.")
    return Audio(content=base64.b64decode(sound["data"]), mime_type=f"audio/{sound['format']}")


def _data_url(url: str) -> tuple[str | None, bytes | None]:
    if not url.startswith("data:"):
        return None, None
    head, _, data = url.removeprefix("data:").partition(",")
    try:
        return head.split(";")[0], base64.b64decode(data, validate=True)
    except binascii.Error:
        raise Refused(400, "Invalid base64 in a data URL.", code="invalid_base64") from None


_INPUT_PARTS: _Parts = {
    "input_text": lambda part: str(part["text"]),
    "input_image": lambda part: _image(part["image_url"], part.get("detail")),
    "input_file": _file,
    "input_audio": _audio,
}
_ASSISTANT_PARTS: _Parts = {
    "output_text": lambda part: str(part["text"]),
    "refusal": lambda part: str(part["refusal"]),
}
_CHAT_PARTS: _Parts = {
    "text": lambda part: str(part["text"]),
    "image_url": lambda part: _image_of(part["image_url"]),
    "input_audio": _audio,
    "file": lambda part: _file(part["file"]),
    "refusal": lambda part: str(part["refusal"]),
}
