"""Encodes a request as the body of `generateContent`.

Source: https://ai.google.dev/api/generate-content#request-body
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kern.errors import UsageError
from kern.messages import Message
from kern.models.base import ModelRequest, ToolDefinition
from kern.models.google._contents import contents_of
from kern.models.google._schema import json_dialect, openapi_dialect
from kern.models.google.generation import takes_json_schemas, wants_signatures

_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}


def encode(request: ModelRequest, model: str, *, vertex: bool = False) -> dict[str, Any]:
    """The body of a request: messages, tools, the schema of the answer.

    Args:
        request: The request.
        model: The model's id.
        vertex: Whether the request goes to Vertex AI, not to the Gemini API.

    Raises:
        UsageError: The model does not support what the request needs.
    """
    opening, messages = _split(request.messages)
    body: dict[str, Any] = {}
    if opening:
        body["systemInstruction"] = {"parts": [{"text": text} for text in opening]}
    body["contents"] = contents_of(messages, model)
    if tools := _tools(request, model):
        body["tools"] = tools
    if config := _tool_config(request, vertex=vertex):
        body["toolConfig"] = config
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
    """Split off the system messages at the beginning, which have a field of their own."""
    at = 0
    while at < len(messages) - 1 and messages[at].role in ("system", "developer"):
        if messages[at].media:
            raise UsageError("Gemini accepts media only in user messages, not in a system message")
        at += 1
    return [text for message in messages[:at] if (text := message.content)], messages[at:]


def _tools(request: ModelRequest, model: str) -> list[dict[str, Any]]:
    tools: list[dict[str, Any]] = []
    if request.tools:
        tools.append({"functionDeclarations": [_declared(tool, model) for tool in request.tools]})
    tools += [tool.definition() for tool in request.server_tools]
    if len(tools) > 1 and request.tools and not wants_signatures(model):
        names = ", ".join(tool.name for tool in request.server_tools)
        raise UsageError(
            f"{model} does not support Google's own tools ({names}) together with other tools: remove them, "
            "or choose Gemini 3 or later"
        )
    return tools


def _tool_config(request: ModelRequest, *, vertex: bool) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if request.tools and request.tool_choice is not None:
        config["functionCallingConfig"] = _choice(request.tool_choice)
    if request.tools and request.server_tools and not vertex:
        config["includeServerSideToolInvocations"] = (
            True  # without it, calls that Google ran cannot be sent back with others
        )
    return config


def _declared(tool: ToolDefinition, model: str) -> dict[str, Any]:
    declared: dict[str, Any] = {"name": tool.name, "description": tool.description}
    schema = tool.parameters
    if takes_json_schemas(model):
        declared["parametersJsonSchema"] = json_dialect(schema)
        return declared
    parameters = openapi_dialect(schema)
    if parameters.get("properties"):  # Google rejects an object without properties
        declared["parameters"] = parameters
    elif schema.get("additionalProperties") or schema.get("patternProperties"):
        schema_text = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
        declared["description"] = (
            f"{tool.description} (its arguments are a JSON object of this schema: {schema_text})"
        )
    return declared


def _choice(choice: str | Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(choice, str):
        return {"mode": _MODES.get(choice, "AUTO")}
    return {"mode": "ANY", "allowedFunctionNames": [choice["name"]]}
