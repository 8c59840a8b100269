"""Encodes a request as the body of `POST /v1/messages`. Does no I/O, except reading files of media."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kern._json import json_bytes
from kern.errors import UsageError
from kern.messages import CacheMark, Media, Message
from kern.models._claude_schema import StrictBudget
from kern.models.anthropic._blocks import PROVIDER
from kern.models.anthropic._caching import MARK, put_mark, settle_marks
from kern.models.anthropic._conversation import Blocks, Conversation, lacks_thinking, text_of_parts
from kern.models.anthropic.tools import CodeExecution, MCPServer, ToolSearch
from kern.models.base import ModelRequest, ResponseFormat, ToolDefinition

_SYSTEM = ("system", "developer")
_UNIONS = ("oneOf", "allOf", "anyOf")
_FORCED = {"required": "any", "auto": "auto", "none": "none"}


@dataclass(slots=True, frozen=True)
class Options:
    """The settings of a model that influence the encoding of a request.

    Args:
        cache: The automatic cache marks; None: none.
        citations: The answer may cite documents.
        thinking: The setting in the service's form; None: its default.
        parallel: Whether a turn may have several calls; None: the service's default.
        strict: Strict schemas are enforced; False after the service has refused them.
    """

    cache: CacheMark | None = "5m"
    citations: bool = False
    thinking: Mapping[str, Any] | None = None
    parallel: bool | None = None
    strict: bool = True


def encode(request: ModelRequest, options: Options) -> dict[str, Any]:
    """Return the parts of the body that depend on the request."""
    strict = StrictBudget() if options.strict else None
    answer, words = _format(request.response_format, strict)
    conversation = Conversation(
        citations=options.citations and request.response_format is None,  # the two exclude each other
        offered=[tool.name for tool in request.tools],
        mcp=any(isinstance(tool, MCPServer) for tool in request.server_tools),
    )
    conversation.read(request.messages)
    body: dict[str, Any] = {"messages": conversation.turns}
    if system := _system(request.messages, words):
        body["system"] = system
    thinking = options.thinking
    if thinking is not None and thinking.get("type") == "enabled" and lacks_thinking(conversation.turns):
        thinking = None
    if thinking is not None:
        body["thinking"] = dict(thinking)
    if request.tools or request.server_tools:
        _put_tools(body, request, strict)
        if choice := _choice(request.tool_choice, options.parallel, thinking):
            body["tool_choice"] = choice
    elif conversation.called:  # a conversation with calls requires tools
        body["tools"] = [{"name": name, "input_schema": {"type": "object"}} for name in conversation.called]
        body["tool_choice"] = {"type": "none"}
    if answer is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": answer}}
    settle_marks(body, options.cache)
    return body


def _system(messages: Sequence[Message], words: str | None) -> Blocks:
    blocks: Blocks = []
    for message in messages:
        if message.role not in _SYSTEM:
            continue
        if any(isinstance(part, Media) for part in message.parts):
            raise UsageError(
                f"Claude models accept media only in user messages, not in a {message.role} message"
            )
        if text := text_of_parts(message.parts):
            blocks.append({"type": "text", "text": text})
            if message.cache is not None:
                put_mark(blocks, message.cache)
    if words is not None:
        blocks.append({"type": "text", "text": words})
    return blocks


def _format(
    wanted: ResponseFormat | None, strict: StrictBudget | None
) -> tuple[dict[str, Any] | None, str | None]:
    """Return the schema of the answer to enforce, or instructions for the model if that is impossible."""
    if wanted is None:
        return None, None
    schema = strict.answer(wanted.schema) if strict is not None else None
    if schema is not None:
        return schema, None
    text = json_bytes(wanted.schema).decode()
    return (
        None,
        f"Answer with one JSON value that follows this JSON schema, and with nothing else:\n{text}",
    )


def _put_tools(body: dict[str, Any], request: ModelRequest, strict: StrictBudget | None) -> None:
    """Add the tools of the agent and of the service, with their settings."""
    tools = [_tool(tool, strict) for tool in request.tools]
    for search in request.server_tools:
        if isinstance(search, ToolSearch):
            for tool in tools:
                if tool["name"] not in search.loaded:
                    tool.pop(MARK, None)  # the two exclude each other
                    tool["defer_loading"] = True
    definitions = [tool.definition() for tool in request.server_tools]
    if request.response_format is not None:  # which citations exclude
        definitions = [
            {name: value for name, value in given.items() if name != "citations"} for given in definitions
        ]
    body["tools"] = [*tools, *definitions]
    if servers := [tool.server() for tool in request.server_tools if isinstance(tool, MCPServer)]:
        body["mcp_servers"] = servers
    if any(isinstance(tool, CodeExecution) for tool in request.server_tools):
        container = _container(request.messages)
        if container is not None:
            body["container"] = container


def _container(messages: Sequence[Message]) -> str | None:
    """Return the id of the container in which the service last ran code; None if it has expired."""
    for message in reversed(messages):
        kept = (message.provider_data or {}).get(PROVIDER)
        container = kept.get("container") if isinstance(kept, Mapping) else None
        if not isinstance(container, Mapping) or not isinstance(identity := container.get("id"), str):
            continue
        try:
            expires = datetime.fromisoformat(str(container.get("expires_at")))
        except ValueError:
            return identity
        gone = expires.tzinfo is None or expires <= datetime.now(UTC)
        return None if gone else identity
    return None


def _tool(tool: ToolDefinition, strict: StrictBudget | None) -> dict[str, Any]:
    data: dict[str, Any] = {"name": tool.name}
    if tool.description:
        data["description"] = tool.description
    schema = strict.tool(tool.parameters) if tool.strict and strict is not None else None
    data["input_schema"] = schema or _plain_schema(tool.parameters)
    if schema is not None:
        data["strict"] = True
    if tool.cache is not None:
        put_mark([data], tool.cache)
    return data


def _plain_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that is not enforced: its root must be an object, not a choice of several."""
    if schema.get("type") == "object" and not any(keyword in schema for keyword in _UNIONS):
        return dict(schema)
    return {**{name: value for name, value in schema.items() if name not in _UNIONS}, "type": "object"}


def _choice(
    wanted: str | Mapping[str, Any] | None, parallel: bool | None, thinking: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    choice: dict[str, Any]
    if wanted is None:
        if parallel is None:
            return None
        choice = {"type": "auto"}
    elif isinstance(wanted, str):
        choice = {"type": _FORCED.get(wanted, "auto")}
    else:
        choice = {"type": "tool", "name": wanted["name"]}
    thinks = thinking is not None and thinking.get("type") == "enabled"
    if thinks and choice["type"] in ("any", "tool"):  # the service refuses forced calls beside a budget
        choice = {"type": "auto"}
    if parallel is not None and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = not parallel
    return choice
