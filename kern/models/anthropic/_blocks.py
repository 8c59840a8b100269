"""The content blocks of an answer, assembled from their deltas, as parts of a message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from pydantic_core import from_json

from kern._json import json_bytes
from kern.messages import (
    CallStatus,
    Citation,
    File,
    Media,
    Origin,
    Part,
    ProviderCall,
    ReasoningPart,
    TextPart,
    ToolCall,
)
from kern.models._reading import items_of, text_of
from kern.models._text_stream import mended, mended_json

PROVIDER = "anthropic"
"""The provider's name, in origins and as the key of a message's `provider_data`."""

PAUSED = ("pause_turn", "compaction")
"""The stop reasons of answers that continue when they are sent back."""

CALLS = ("server_tool_use", "mcp_tool_use")
RESULT = "_tool_result"
"""The suffix of the type of a block with the result of a call that the provider carried out."""

_DIRECT = {"type": "direct"}
COMPACTION = "compaction"
"""A block that stands for the whole conversation before it: it goes back unchanged, like signed thinking."""

_FALLBACK = "fallback"
"""A block that marks where another model has taken over: nothing of the answer, and not sent back."""

_KNOWN = ("text", "thinking", "redacted_thinking", "tool_use", COMPACTION, _FALLBACK, *CALLS)


_RUNS_CODE = ("code_execution", "bash_code_execution", "text_editor_code_execution")
_FREE_BESIDE = ("web_search", "web_fetch")


def code_runs(blocks: Sequence[Block]) -> int:
    """Count the billed code executions. They are free in answers that search or fetch web pages.

    Source: https://platform.claude.com/docs/en/agents-and-tools/tool-use/code-execution-tool
    """
    names = [text_of(block.data.get("name")) for block in blocks if block.kind == "server_tool_use"]
    return 0 if set(names) & set(_FREE_BESIDE) else sum(name in _RUNS_CODE for name in names)


class Block:
    """One content block.

    Args:
        data: The block as in its start event; if the answer is not streamed, the whole block.
        origin: The model that made it.
    """

    __slots__ = ("_origin", "citations", "data", "kind", "paragraph", "pieces", "result", "signature")

    def __init__(self, data: dict[str, Any], origin: Origin) -> None:
        self.data = data
        self.kind = text_of(data.get("type"))
        self.pieces: list[str] = []
        """The deltas of text, thinking, or the arguments of a call."""
        self.signature: list[str] = []
        self.citations: list[dict[str, Any]] = []
        self.paragraph = False
        self.result: Block | None = None
        """The block with the result of this call."""
        self._origin = origin

    @property
    def id(self) -> str:
        """The id of the call that the block is, or that it is the result of."""
        return text_of(self.data.get("tool_use_id" if self.is_result else "id"))

    @property
    def is_call(self) -> bool:
        """Whether the block is a call that the provider carries out."""
        return self.kind in CALLS

    @property
    def is_result(self) -> bool:
        """Whether the block is the result of such a call."""
        return self.kind.endswith(RESULT)

    @property
    def is_unknown(self) -> bool:
        """Whether Kern does not know the type of the block; it is sent back unchanged."""
        return self.kind not in _KNOWN and not self.is_result

    def is_answered_by(self, result: Block) -> bool:
        """Whether the result may belong to this call, regardless of its id, which proxies may change."""
        tool = result.kind.removesuffix(RESULT)
        return self.kind.startswith(tool) or text_of(self.data.get("name")).startswith(tool)

    def extend(self, delta: dict[str, Any]) -> None:
        """Add a delta of an unknown type: its texts continue those of the block."""
        for name, value in delta.items():
            if name != "type":
                before = self.data.get(name)
                if isinstance(before, str) and isinstance(value, str):
                    value = before + value
                self.data[name] = value

    def part(self) -> Part:
        """Return the block as a part of the message."""
        match self.kind:
            case "text":
                return self.text_part()
            case "thinking":
                signature = mended("".join(self.signature)) or None
                return ReasoningPart(self._text(), signature=signature, origin=self._origin)
            case "redacted_thinking":
                return ReasoningPart(redacted=text_of(self.data.get("data")), origin=self._origin)
            case "tool_use":
                return self._tool_call()
            case kind if kind == COMPACTION:
                return ReasoningPart(provider_data={"block": mended_json(self.data)}, origin=self._origin)
        return self.provider_call()

    def text_part(self) -> TextPart:
        """Return the text with its citations."""
        text = self._text()
        cited = [_citation(citation, len(text)) for citation in self.citations]
        return TextPart(text, citations=cited, paragraph=self.paragraph, origin=self._origin)

    def provider_call(self) -> ProviderCall:
        """Return the call that the provider carries out, with its result if there is one."""
        result = self if self.is_result else self.result
        outcome: Any = None
        kept: dict[str, Any] = {}
        status: CallStatus = "running"
        made: list[Media] = []
        if result is not None:
            result_data = mended_json(result.data)
            outcome = result_data.get("content")
            kept = {"result": result_data}
            status = "failed" if _is_failure(result_data) else "completed"
            made += [File(id=file_id) for file_id in _files(outcome)]
        if self.is_call:
            call = {**mended_json(self.data), "input": _object(self._arguments())}
            return ProviderCall(
                self.id,
                text_of(self.data.get("name")),
                self._arguments(),
                result=outcome,
                status=status,
                media=made,
                provider_data={"call": call, **kept},
                origin=self._origin,
            )
        if self.is_result:  # of a call in an earlier answer
            name = self.kind.removesuffix(RESULT)
            return ProviderCall(
                self.id,
                name,
                result=outcome,
                status=status,
                media=made,
                provider_data=kept,
                origin=self._origin,
            )
        data = {"block": mended_json(self.data)}
        return ProviderCall(self.id, self.kind, provider_data=data, origin=self._origin)

    def _tool_call(self) -> ToolCall:
        caller = self.data.get("caller")
        has_caller = isinstance(caller, dict) and caller != _DIRECT
        return ToolCall(
            self.id or f"toolu_{uuid4().hex[:24]}",
            text_of(self.data.get("name")),
            self._arguments(),
            {"caller": mended_json(caller)} if has_caller else None,
            origin=self._origin,
        )

    def _text(self) -> str:
        return mended("".join(self.pieces))

    def _arguments(self) -> str:
        """Return the arguments as JSON text; a block without deltas has them as a value."""
        if self.pieces:
            return self._text()
        given = self.data.get("input")
        return json_bytes(mended_json(given)).decode() if given else "{}"


def built(blocks: Sequence[Block]) -> list[Part]:
    """Return the parts of a message. The results of the provider's calls are joined to their calls; "after"
    is the number of parts that were between the two.
    """
    parts: list[Part] = []
    places: dict[int, tuple[int, ProviderCall]] = {}
    for block in blocks:
        if (call := places.get(id(block))) is not None:
            at, part = call
            if (between := len(parts) - at - 1) and part.provider_data is not None:
                part.provider_data["after"] = between
            continue
        if block.kind == "text" and not block.pieces:  # the service refuses it if it is sent back
            continue
        if block.kind == _FALLBACK:
            continue
        made = block.part()
        if block.result is not None and isinstance(made, ProviderCall):
            places[id(block.result)] = (len(parts), made)
        parts.append(made)
    return parts


def paired(result: Block, running: dict[str, Block]) -> Block | None:
    """Return the running call that a result belongs to; None if the call is in an earlier answer."""
    call = running.pop(result.id, None)
    if call is None and running:
        identity, first = next(iter(running.items()))
        if first.is_answered_by(result):
            call = running.pop(identity)
    if call is not None:
        call.result = result
    return call


def _citation(given: dict[str, Any], length: int) -> Citation:
    document = given.get("document_index")
    return Citation(
        url=text_of(given.get("url")) or text_of(given.get("source")) or None,
        title=text_of(given.get("title")) or text_of(given.get("document_title")) or None,
        text=text_of(given.get("cited_text")) or None,
        start=0,
        end=length,
        file_id=text_of(given.get("file_id")) or None,
        document=document if type(document) is int and document >= 0 else None,
        provider_data=mended_json(given),
    )


def _object(text: str) -> dict[str, Any]:
    try:
        value = from_json(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _is_failure(result: dict[str, Any]) -> bool:
    content = result.get("content")
    return bool(result.get("is_error")) or (
        isinstance(content, dict) and text_of(content.get("type")).endswith("_error")
    )


def _files(outcome: Any) -> list[str]:
    """Return the ids of the files that the code made."""
    made = items_of(outcome.get("content")) if isinstance(outcome, dict) else []
    return [file_id for item in made if (file_id := text_of(item.get("file_id")))]
