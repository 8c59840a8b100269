"""Encodes a request as the body of `POST /model/ID/converse`: no I/O, except that media files are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kern._json import json_bytes
from kern.errors import UsageError
from kern.messages import CacheMark, Media, Message, TextPart
from kern.models._claude_schema import StrictBudget
from kern.models.base import ModelRequest, ResponseFormat, ToolDefinition
from kern.models.bedrock._caching import Blocks, add_point, settle_points
from kern.models.bedrock._conversation import Conversation, lacks_reasoning
from kern.models.bedrock._facts import Facts

_SYSTEM = ("system", "developer")


@dataclass(slots=True, frozen=True)
class Options:
    """The settings of a model that its requests depend on.

    Args:
        model: The model's id.
        facts: What the model supports.
        cache: How long automatic cache points hold; None: there are none.
        citations: Whether documents may be cited.
        strict: Whether to send strict schemas; False after the service rejected them.
        fields: Settings of the model that Converse has no field for.
    """

    model: str
    facts: Facts
    cache: CacheMark | None = None
    citations: bool = False
    strict: bool = True
    fields: Mapping[str, Any] | None = None


def encode(request: ModelRequest, options: Options) -> dict[str, Any]:
    """The fields of the body that depend on the request."""
    strict = StrictBudget() if options.strict else None
    answer, words = _format(request.response_format, strict)
    conversation = Conversation(
        options.model, options.facts, citations=options.citations and request.response_format is None
    )
    conversation.read(request.messages)
    body: dict[str, Any] = {}
    body["messages"] = conversation.turns
    if system := _system(request.messages, words):
        body["system"] = system
    fields = dict(options.fields or {})
    if _is_thinking(fields) and lacks_reasoning(conversation.turns):
        del fields["thinking"]
    if fields:
        body["additionalModelRequestFields"] = fields
    if tools := _tools(request, options.facts, strict, conversation.called):
        config: dict[str, Any] = {"tools": tools}
        choice = _choice(request, options.facts, thinks=_is_thinking(fields))
        body["toolConfig"] = config if choice is None else {**config, "toolChoice": choice}
    if answer is not None:
        body["outputConfig"] = {
            "textFormat": {"type": "json_schema", "structure": {"jsonSchema": answer}},
        }
    settle_points(body, options.cache)
    return body


def _system(messages: Sequence[Message], words: str | None) -> Blocks:
    blocks: Blocks = []
    for message in messages:
        if message.role not in _SYSTEM:
            continue
        if any(isinstance(part, Media) for part in message.parts):
            raise UsageError(f"Bedrock accepts media only in user messages, not in a {message.role} message")
        texts = (part.text for part in message.parts if isinstance(part, TextPart) and part.text.strip())
        if text := "\n\n".join(texts):
            blocks.append({"text": text})
            if message.cache is not None:
                add_point(blocks, message.cache)
    if words is not None:
        blocks.append({"text": words})
    return blocks


def _format(
    wanted: ResponseFormat | None, strict: StrictBudget | None
) -> tuple[dict[str, Any] | None, str | None]:
    """The schema of the answer if it can be enforced; else a text for the prompt that asks for it."""
    if wanted is None:
        return None, None
    schema = strict.answer(wanted.schema) if strict is not None else None
    if schema is not None:
        return {"name": wanted.name, "schema": json_bytes(schema).decode()}, None
    text = json_bytes(wanted.schema).decode()
    return (
        None,
        f"Answer with one JSON value that follows this JSON schema, and with nothing else:\n{text}",
    )


def _tools(
    request: ModelRequest, facts: Facts, strict: StrictBudget | None, called: Mapping[str, None]
) -> Blocks:
    """The agent's tools and Bedrock's. The service accepts a conversation with calls only with tools."""
    blocks: Blocks = []
    for tool in request.tools:
        blocks.append(_tool(tool, strict if facts.structured else None))
        if tool.cache is not None:
            add_point(blocks, tool.cache)
    blocks += [tool.definition() for tool in request.server_tools]
    if not blocks:
        bare = {"json": {"type": "object"}}
        blocks = [{"toolSpec": {"name": name, "inputSchema": bare}} for name in called]
    return blocks


def _tool(tool: ToolDefinition, strict: StrictBudget | None) -> dict[str, Any]:
    spec: dict[str, Any] = {"name": tool.name}
    if tool.description.strip():
        spec["description"] = tool.description
    schema = strict.tool(tool.parameters) if tool.strict and strict is not None else None
    spec["inputSchema"] = {"json": schema or {**tool.parameters, "type": "object"}}
    if schema is not None:
        spec["strict"] = True
    return {"toolSpec": spec}


def _choice(request: ModelRequest, facts: Facts, *, thinks: bool) -> dict[str, Any] | None:
    """Which tool to call. Only some models can be forced to call a tool, and not while they think."""
    wanted = request.tool_choice
    if not request.tools or wanted is None or not facts.forced:
        return None
    if thinks or wanted in ("auto", "none"):
        return {"auto": {}}
    if isinstance(wanted, str):
        return {"any": {}}
    return {"tool": {"name": wanted["name"]}}


def _is_thinking(fields: Mapping[str, Any]) -> bool:
    """Whether the settings turn on Claude's thinking, for which Converse has no field."""
    thinking = fields.get("thinking")
    return isinstance(thinking, Mapping) and thinking.get("type") in ("enabled", "adaptive")
