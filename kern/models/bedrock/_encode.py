"""Kern's request as the body of `POST /model/ID/converse`: pure, but for files that media name."""

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
    """What of a model's settings the encoding of a request depends on.

    Args:
        model: The model's id.
        facts: What the model takes.
        cache: The automatic cache points; None: none.
        citations: Documents may be cited.
        strict: Strict schemas are enforced; False once the service has refused them.
        fields: The settings that the model has and Converse has no word for.
    """

    model: str
    facts: Facts
    cache: CacheMark | None = None
    citations: bool = False
    strict: bool = True
    fields: Mapping[str, Any] | None = None


def encode(request: ModelRequest, options: Options) -> dict[str, Any]:
    """The parts of the body that the request decides."""
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
    if _told_to_think(fields) and lacks_reasoning(conversation.turns):
        del fields["thinking"]
    if fields:
        body["additionalModelRequestFields"] = fields
    if tools := _tools(request, options.facts, strict, conversation.called):
        config: dict[str, Any] = {"tools": tools}
        choice = _choice(request, options.facts, thinks=_told_to_think(fields))
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
            raise UsageError(f"Bedrock takes images and files from the user, not in a {message.role} message")
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
    """The schema of the answer that is enforced, or words that ask for it where it cannot be."""
    if wanted is None:
        return None, None
    schema = strict.answer(wanted.schema) if strict is not None else None
    if schema is not None:
        return {"name": wanted.name, "schema": json_bytes(schema).decode()}, None
    told = json_bytes(wanted.schema).decode()
    return None, f"Answer with one JSON value that follows this JSON schema, and with nothing else:\n{told}"


def _tools(
    request: ModelRequest, facts: Facts, strict: StrictBudget | None, called: Mapping[str, None]
) -> Blocks:
    """The agent's tools and Bedrock's. A conversation with calls is taken with tools only."""
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
    """Which tool is to be called. Most models choose for themselves, and so does one that thinks."""
    wanted = request.tool_choice
    if not request.tools or wanted is None or not facts.forced:
        return None
    if thinks or wanted in ("auto", "none"):
        return {"auto": {}}
    if isinstance(wanted, str):
        return {"any": {}}
    return {"tool": {"name": wanted["name"]}}


def _told_to_think(fields: Mapping[str, Any]) -> bool:
    """Whether Claude is to think, for which it has no word in Converse."""
    thinking = fields.get("thinking")
    return isinstance(thinking, Mapping) and thinking.get("type") in ("enabled", "adaptive")
