"""Decodes the answer of `POST /v1/messages`, streamed or whole, into a `ModelResponse`: no I/O.

The events: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from typing import Any

from kern.errors import ModelBehaviorError
from kern.messages import Message, Origin, Part, ProviderCall, TextPart, ToolCall
from kern.models._block_reader import BlockReader
from kern.models._codes import explain, has_content
from kern.models._ends import Ends, finish_reason_of, is_refusal, says_calls
from kern.models._failures import StreamFault
from kern.models._reading import (
    INPUT_OF_NONE,
    damaged,
    index_of,
    items_of,
    merged,
    sure_objects,
    sure_text,
    text_beside,
    text_of,
)
from kern.models._text_stream import mended_json
from kern.models.anthropic._blocks import PAUSED, PROVIDER, Block, built, code_runs, paired
from kern.models.anthropic._usage import splits, usage_of
from kern.models.base import DeltaSink, ModelResponse
from kern.usage import Usage

_WITHOUT_INPUT = ("text", "thinking", "redacted_thinking")
_NO_STOP = "the answer continued after its stop reason {!r}, and broke off without another one"


class MessagesReader(BlockReader):
    """Reads one answer of the Messages API."""

    def __init__(self, model: str, sink: DeltaSink | None, *, streamed: bool, ends: Ends) -> None:
        super().__init__(model, sink, streamed=streamed)
        self._ends = ends
        self._origin = Origin(PROVIDER, model)
        self._blocks: list[Block] = []
        self._by_index: dict[Any, Block] = {}
        self._running: dict[str, Block] = {}
        self._message: dict[str, Any] = {}
        self._end: dict[str, Any] = {}
        self._usage: Any = None
        self._went_on = False

    def _read_event(self, name: bytes, data: bytes) -> None:
        if name == b"ping":
            return
        event = self._parse(data)
        kind = text_of(event.get("type")) or name.decode(errors="replace")
        if kind == "content_block_delta":
            self._read_delta(event)
        elif kind == "content_block_start":
            self._start(event.get("index"), event.get("content_block"))
        elif kind == "content_block_stop":
            self._stop(event.get("index"))
        elif kind == "message_start":
            self._read_message(event.get("message"))
        elif kind == "message_delta":
            self._read_end(event)
        elif kind == "message_stop":
            self.done = True
        elif kind == "error" or has_content(event.get("error")):
            raise StreamFault(*explain(event))

    def _read_whole(self, answer: dict[str, Any]) -> None:
        if answer.get("type") == "error" or has_content(answer.get("error")):
            raise StreamFault(*explain(answer))
        if not isinstance(answer.get("content"), list):
            text, code, status = explain(answer)
            detail = f": {text}" if text else ""
            raise StreamFault(f"the answer is not a message: it has no content{detail}", code, status)
        self._read_message(answer)
        self._end = answer
        self.done = True

    def _read_message(self, message: Any) -> None:
        """Read the head of a streamed message, or the whole of one that is not streamed."""
        if not isinstance(message, dict):
            return
        self._message = message
        self._count(message.get("usage"))
        for index, block in enumerate(sure_objects(message.get("content"), "content", self.remarks)):
            self._start(index, block)
            self._stop(index)

    def _read_end(self, event: dict[str, Any]) -> None:
        delta = event.get("delta")
        if isinstance(delta, dict):
            word = self._ends.more_serious(self._end.get("stop_reason"), delta.get("stop_reason"))
            fields = {name: value for name, value in delta.items() if value is not None}
            self._end = {**self._end, **fields, **({} if word is None else {"stop_reason": word})}
        self._count(event.get("usage"))

    def _count(self, usage: Any) -> None:
        if usage is not None:
            if splits(usage, self._usage):
                self._usage = {**self._usage, "input_tokens": 0}
            self._usage = usage if self._usage is None else merged(self._usage, usage)

    def _start(self, index: Any, data: Any) -> Block:
        if not isinstance(data, dict):
            raise damaged(data, "content_block", "an object")
        index = index_of(index)
        begun = self._by_index.get(index)
        if begun is not None and begun.id and begun.data == data and not begun.pieces:  # sent twice
            return begun
        block = Block(data, self._origin)
        self._blocks.append(block)
        self._by_index[index] = block
        if block.kind == "text":
            self._say(block, sure_text(block.data.get("text"), "the text of a block"))
            block.citations += items_of(block.data.get("citations"))
        elif block.kind == "thinking":
            self._reasoning.part()
            self._think(block, text_beside(block.data.get("thinking"), "thinking", self.remarks))
            block.signature.append(text_of(block.data.get("signature")))
        if block.kind != "text":
            self._interrupt()
        self._went_on = self._went_on or bool(self._end.get("stop_reason"))
        return block

    def _read_delta(self, event: dict[str, Any]) -> None:
        delta = event.get("delta")
        if not isinstance(delta, dict):
            raise damaged(delta, "the delta of a block", "an object")
        index = index_of(event.get("index"))
        block = self._by_index.get(index)
        kind = delta.get("type")
        if kind == "input_json_delta" and (block is None or block.kind in _WITHOUT_INPUT):
            raise StreamFault(INPUT_OF_NONE)
        if block is None:  # a server that sends no start of a block
            block = self._start(index, {"type": "thinking" if kind == "thinking_delta" else "text"})
        if kind == "text_delta":
            self._say(block, sure_text(delta.get("text"), "the text of a delta"))
        elif kind == "input_json_delta":
            text, name = sure_text(delta.get("partial_json"), "partial_json"), text_of(block.data.get("name"))
            self._add_input(block, text, block.id, name, is_own=block.kind == "tool_use")
        elif kind == "thinking_delta":
            self._think(block, text_beside(delta.get("thinking"), "thinking", self.remarks))
        elif kind == "signature_delta":
            block.signature.append(text_of(delta.get("signature")))
        elif kind == "citations_delta":
            block.citations += items_of([delta.get("citation")])
        else:
            block.extend(delta)

    def _think(self, block: Block, text: str) -> None:
        if text:
            block.pieces.append(text)
            self._reasoning.add(text)

    def _stop(self, index: Any) -> None:
        block = self._by_index.get(index_of(index))
        if block is None:
            return
        if block.is_call:
            self._running[block.id] = block
            self._put(block.provider_call())
        elif block.is_result:
            self._put((paired(block, self._running) or block).provider_call())
        elif block.kind == "text":
            part = block.text_part()
            before = self._blocks[: self._blocks.index(block)] if part.citations else []
            number = sum(each.kind == "text" and bool(each.pieces) for each in before)
            for citation in part.citations:
                citation.part = number
            self._put(part)

    def _respond(self) -> ModelResponse:
        word = self._end.get("stop_reason")
        usage, _ = self._used()
        paused = word in PAUSED
        if not paused:
            self._ends.check(word, None, self._content.whole(), usage)
        if self._went_on and not self.done:
            raise StreamFault(_NO_STOP.format(word))
        parts = built(self._blocks)
        calls = any(isinstance(part, ToolCall) for part in parts)
        if says_calls(word) and not calls:
            raise StreamFault(f"the answer ended with the stop reason {word!r}, but holds no tool call")
        if is_refusal(word):
            parts += self._refusal()
        elif not parts and not paused:
            parts.append(TextPart("", origin=self._origin))
        if not paused:
            self._check_not_lost(parts)
        message = Message("assistant", parts=parts, usage=usage, provider_data=self._record())
        return ModelResponse(
            message,
            usage,
            "paused" if paused else finish_reason_of(word, calls=calls),
            word if isinstance(word, str) else None,
            text_of(self._message.get("id")) or None,
            text_of(self._message.get("model")) or None,
        )

    def _used(self) -> tuple[Usage, bool]:
        usage = usage_of(self._usage, text_of(self._message.get("model")) or self._model)
        if runs := code_runs(self._blocks):
            usage.billed = {**(usage.billed or {}), "code_executions": runs}
        return usage, bool(self._end)

    def _has_begun(self) -> bool:
        return super()._has_begun() or bool(self._blocks)

    def _refusal(self) -> list[Part]:
        """The provider's explanation of a refusal, as the end of the answer."""
        details = self._end.get("stop_details")
        text = text_of(details.get("explanation")) if isinstance(details, dict) else ""
        if not text:
            return [] if self._content.whole() else [TextPart("", origin=self._origin)]
        paragraph = bool(self._content.whole())
        if paragraph:
            self._content.part()
        self._content.add(text)
        return [TextPart(text, paragraph=paragraph, origin=self._origin)]

    def _record(self) -> dict[str, Any] | None:
        """The fields of the message as a whole that the next request needs."""
        kept = {
            name: value
            for name in ("container", "stop_details")
            if isinstance(value := self._end.get(name) or self._message.get(name), dict)
        }
        return {PROVIDER: mended_json(kept) if self._halved else kept} if kept else None

    def _check_not_lost(self, parts: list[Part]) -> None:
        """An answer may be empty only if it has no block that Kern cannot read."""
        unknown = sorted({block.kind[:80] for block in self._blocks if block.is_unknown})
        if not unknown:
            return
        if all(isinstance(part, ProviderCall) for part in parts):
            raise ModelBehaviorError(
                f"the answer has no text and no call of a tool, only blocks of these types: "
                f"{', '.join(unknown)}; Kern does not support them"
            )
        self.remarks.append(f"parts of the answer that Kern does not support: {', '.join(unknown)}")
