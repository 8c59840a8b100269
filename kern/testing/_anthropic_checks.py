"""The checks of Anthropic's Messages API that runtimes fail most often."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from kern.testing._anthropic import is_ours, signature_of
from kern.testing._refusal import Refused

_BODY = frozenset(
    {
        *("model", "messages", "max_tokens", "system", "tools", "tool_choice", "thinking", "stream"),
        *("temperature", "top_p", "top_k", "stop_sequences", "output_config", "metadata", "container"),
        *("service_tier", "mcp_servers", "cache_control", "context_management", "inference_geo"),
    }
)
_ID = re.compile(r"[a-zA-Z0-9_-]+")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_THINKING = ("thinking", "redacted_thinking")
_USER = ("text", "image", "document", "tool_result", "search_result", "container_upload")
_PAIRED = "Each `tool_use` block must have a corresponding `tool_result` block in the next message."
_MOST_MARKS = 4
_UNKNOWN = "{path}: Input tag '{kind}' found using 'type' does not match any of the expected tags"
_EXPECTED = (
    "messages.{at}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{kind}`. When "
    "`thinking` is enabled, a final `assistant` message must start with a thinking block (preceeding the "
    "lastmost set of `tool_use` and `tool_result` blocks)."
)


def check_body(body: Mapping[str, Any]) -> None:
    """Refuse a body with unknown fields, or with fields that exclude each other."""
    for name in body:
        if name not in _BODY:
            raise Refused(400, f"{name}: Extra inputs are not permitted")
    for name in ("model", "messages", "max_tokens"):
        if name not in body:
            raise Refused(400, f"{name}: Field required")
    temperature = body.get("temperature")
    if temperature is not None and not 0 <= temperature <= 1:
        raise Refused(400, "temperature: range: 0..1")
    thinking = body.get("thinking") or {}
    if thinking.get("type") == "enabled":
        budget = thinking.get("budget_tokens", 0)
        if budget < 1024:
            raise Refused(
                400, "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
            )
        if budget >= body["max_tokens"]:
            raise Refused(400, "`max_tokens` must be greater than `thinking.budget_tokens`.")
        if temperature not in (None, 1):
            raise Refused(400, "`temperature` may only be set to 1 when thinking is enabled.")
    _check_tools(body, thinks=thinking.get("type") == "enabled")
    _check_marks(body)


def _check_tools(body: Mapping[str, Any], *, thinks: bool) -> None:
    names: set[str] = set()
    for at, tool in enumerate(body.get("tools") or ()):
        if tool.get("type") == "mcp_toolset":
            continue
        name = tool.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Refused(
                400, f"tools.{at}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
            )
        if name in names:
            raise Refused(400, "tools: Tool names must be unique.")
        names.add(name)
        if tool.get("type", "custom") == "custom":
            schema = tool.get("input_schema")
            if not isinstance(schema, dict) or schema.get("type") != "object":
                raise Refused(400, f"tools.{at}.custom.input_schema.type: Field required")
            if any(word in schema for word in ("oneOf", "allOf", "anyOf")):
                raise Refused(
                    400,
                    f"tools.{at}.custom.input_schema: input_schema does not support oneOf, allOf, or anyOf "
                    "at the top level",
                )
        if tool.get("defer_loading") and "cache_control" in tool:
            raise Refused(400, f"tools.{at}: Tools with defer_loading cannot use cache_control.")
    choice = body.get("tool_choice")
    if choice is None:
        return
    if not body.get("tools"):
        raise Refused(400, "tool_choice: tool_choice may only be specified while providing tools")
    if choice.get("type") not in ("auto", "any", "tool", "none"):
        raise Refused(400, f"tool_choice: Input tag '{choice.get('type')}' is unknown")
    if choice["type"] == "tool" and choice.get("name") not in names:
        raise Refused(400, f"Tool '{choice.get('name')}' not found in provided tools")
    if thinks and choice["type"] in ("any", "tool"):
        raise Refused(400, "Thinking may not be enabled when tool_choice forces tool use.")


def _check_marks(body: Mapping[str, Any]) -> None:
    marked = [block for block in _markable(body) if block.get("cache_control") is not None]
    if len(marked) > _MOST_MARKS:
        text = f"A maximum of {_MOST_MARKS} blocks with cache_control may be provided. Found {len(marked)}."
        raise Refused(400, text)
    short = False
    for block in marked:
        if block.get("type") in _THINKING:
            raise Refused(400, "thinking blocks cannot have cache_control")
        lasts = block["cache_control"].get("ttl", "5m")
        if short and lasts == "1h":
            raise Refused(
                400,
                "a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. Note "
                "that blocks are processed in the following order: `tools`, `system`, `messages`.",
            )
        short = short or lasts == "5m"


def _markable(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield from body.get("tools") or ()
    for content in (body.get("system"), *(turn.get("content") for turn in body["messages"])):
        if isinstance(content, list):
            yield from (block for block in content if isinstance(block, dict))


def check_turns(body: Mapping[str, Any]) -> None:
    """Refuse unknown roles and blocks, blank texts, unpaired calls and results, and invalid thinking."""
    turns = body["messages"]
    if not turns:
        raise Refused(400, "messages: at least one message is required")
    merged = _merged(turns)
    if turns[0]["role"] != "user":
        raise Refused(400, 'messages: first message must use the "user" role')
    checker = _Turns(has_tools=bool(body.get("tools")))
    for at, turn in enumerate(merged):
        checker.check(at, turn["role"], turn["content"])
    checker.end(len(turns))
    last = turns[-1]
    if last["role"] == "assistant":
        content = last["content"]
        text = content if isinstance(content, str) else content[-1].get("text") or ""
        if text != text.rstrip():
            raise Refused(400, "messages: final assistant content cannot end with trailing whitespace")
    if (body.get("thinking") or {}).get("type") == "enabled":
        checker.check_loop(merged)


def _merged(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The turns, with consecutive turns of one role merged."""
    merged: list[dict[str, Any]] = []
    for at, turn in enumerate(turns):
        if (role := turn.get("role")) not in ("user", "assistant"):
            text = f'messages: Unexpected role "{role}". The Messages API accepts a top-level `system` '
            raise Refused(400, f'{text}parameter, not "{role}" as an input message role.')
        content: Any = turn.get("content")
        if isinstance(content, str):
            content = [{"type": "text", "text": content}] if content else []
        if not content and not (role == "assistant" and at == len(turns) - 1):
            raise Refused(
                400,
                f"messages.{at}: all messages must have non-empty content except for the optional final "
                "assistant message",
            )
        if merged and merged[-1]["role"] == role:
            merged[-1] = {"role": role, "content": [*merged[-1]["content"], *content]}
        else:
            merged.append({"role": role, "content": content})
    return merged


class _Turns:
    """Checks the turns in order."""

    def __init__(self, *, has_tools: bool) -> None:
        self._has_tools = has_tools
        self._ids: set[str] = set()
        self._open: list[str] = []
        self._running: set[str] = set()

    def check(self, at: int, role: str, content: list[dict[str, Any]]) -> None:
        """Check one turn."""
        if role == "user":
            self._results(at, content)
        for number, block in enumerate(content):
            path = f"messages.{at}.content.{number}"
            kind = block.get("type")
            if kind == "text":
                _check_text(block)
            if role == "user" and kind not in _USER:
                raise Refused(
                    400, f"{path}: Input tag '{kind}' found using 'type' does not match any of the tags"
                )
            if role == "assistant":
                self._of_assistant(block, str(kind), path)
        if role == "assistant" and content[-1]["type"] in _THINKING:
            raise Refused(
                400, f"messages.{at}: The final block in an assistant message cannot be `thinking`."
            )

    def end(self, count: int) -> None:
        """Check that no call is open at the end."""
        if self._open:
            self._missing(count - 1)

    def check_loop(self, turns: list[dict[str, Any]]) -> None:
        """With thinking on, check that the answer whose results are sent begins with thinking."""
        if len(turns) > 1 and turns[-1]["content"][0]["type"] == "tool_result":
            kind = turns[-2]["content"][0]["type"]
            if kind not in _THINKING:
                raise Refused(400, _EXPECTED.format(at=len(turns) - 2, kind=kind))

    def _missing(self, at: int) -> None:
        raise Refused(
            400,
            f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: "
            f"{', '.join(self._open)}. {_PAIRED}",
        )

    def _results(self, at: int, content: list[dict[str, Any]]) -> None:
        first = True
        for number, block in enumerate(content):
            if block.get("type") != "tool_result":
                first = False
                continue
            given = block.get("tool_use_id")
            if given not in self._open or not first:
                raise Refused(
                    400,
                    f"messages.{at}.content.{number}: unexpected `tool_use_id` found in `tool_result` "
                    f"blocks: {given}. Each `tool_result` block must have a corresponding `tool_use` block "
                    "in the previous message.",
                )
            self._open.remove(given)
            for inner in block["content"] if isinstance(block.get("content"), list) else ():
                if inner.get("type") == "text":
                    _check_text(inner)
        if self._open:
            self._missing(at - 1)

    def _of_assistant(self, block: dict[str, Any], kind: str, path: str) -> None:
        if kind == "tool_use":
            self._call(block, path)
            self._open.append(block["id"])
        elif kind in ("server_tool_use", "mcp_tool_use"):
            self._call(block, path)
            self._running.add(block["id"])
        elif kind.endswith("_tool_result"):
            given = block.get("tool_use_id")
            if given not in self._running:
                raise Refused(
                    400,
                    f"{path}: unexpected `tool_use_id` found in `{kind}` blocks: {given}. Each `{kind}` "
                    "block must have a corresponding `server_tool_use` block before it.",
                )
            self._running.discard(given)
        elif kind == "thinking":
            signature = block.get("signature")
            if not isinstance(signature, str) or not signature:
                raise Refused(400, f"{path}.thinking.signature: Field required")
            if is_ours(signature) and signature != signature_of(block["thinking"]):
                raise Refused(400, f"{path}: Invalid `signature` in `thinking` block")
        elif kind not in ("text", "redacted_thinking", "compaction"):
            raise Refused(
                400, f"{path}: Input tag '{kind}' found using 'type' does not match any of the tags"
            )

    def _call(self, block: dict[str, Any], path: str) -> None:
        if not self._has_tools and block["type"] == "tool_use":
            text = "Requests which include `tool_use` or `tool_result` blocks must define tools"
            raise Refused(400, text)
        given = block.get("id")
        if not isinstance(given, str) or not _ID.fullmatch(given):
            raise Refused(400, f"{path}.{block['type']}.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
        if given in self._ids:
            raise Refused(400, f"{path}: `tool_use` ids must be unique")
        self._ids.add(given)
        if not isinstance(block.get("input"), dict):
            raise Refused(400, f"{path}.{block['type']}.input: Input should be a valid dictionary")


def _check_text(block: Mapping[str, Any]) -> None:
    text = block.get("text")
    if not isinstance(text, str) or not text:
        raise Refused(400, "messages: text content blocks must be non-empty")
    if not text.strip():
        raise Refused(400, "messages: text content blocks must contain non-whitespace text")
