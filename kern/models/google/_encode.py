"""A conversation as the body of `generateContent`.

Source: https://ai.google.dev/api/generate-content#request-body
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kern.errors import UsageError
from kern.messages import Message
from kern.models.base import ModelRequest, ToolDefinition
from kern.models.google._contents import contents_of
from kern.models.google._schema import json_dialect, openapi_dialect
from kern.models.google.generation import takes_json_schemas

_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


def encode(request: ModelRequest, model: str) -> dict[str, Any]:
    """The body, with the settings that the request has: messages, tools, the schema of the answer."""
    opening, messages = _split(request.messages)
    body: dict[str, Any] = {}
    if opening:
        body["systemInstruction"] = {"parts": [{"text": text} for text in opening]}
    body["contents"] = contents_of(messages, model)
    if request.tools:
        declared = [_declared(tool, model) for tool in request.tools]
        body["tools"] = [{"functionDeclarations": declared}]
        if request.tool_choice is not None:
            body["toolConfig"] = {"functionCallingConfig": _choice(request.tool_choice)}
    if request.response_format is not None:
        schema = request.response_format.schema
        body["generationConfig"] = {
            "responseMimeType": "application/json",
            **(
                {"responseJsonSchema": json_dialect(schema)}
                if takes_json_schemas(model)
                else {"responseSchema": openapi_dialect(schema)}
            ),
        }
    return body


def _split(messages: Sequence[Message]) -> tuple[list[str], Sequence[Message]]:
    """The system messages that open the conversation have a place of their own; others stay in theirs."""
    at = 0
    while at < len(messages) - 1 and messages[at].role in ("system", "developer"):
        if messages[at].media:
            raise UsageError(
                "Gemini takes images, audio, videos and files from the user, not in a system message"
            )
        at += 1
    return [text for message in messages[:at] if (text := message.content)], messages[at:]


def _declared(tool: ToolDefinition, model: str) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": tool.name, "description": tool.description}
    schema = tool.parameters
    if takes_json_schemas(model):
        declared["parametersJsonSchema"] = json_dialect(schema)
    elif schema.get("properties"):  # an object of nothing is refused
        declared["parameters"] = openapi_dialect(schema)
    return declared


def _choice(choice: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(choice, str):
        return {"mode": _MODES.get(choice, "AUTO")}
    return {"mode": "ANY", "allowedFunctionNames": [choice["name"]]}
