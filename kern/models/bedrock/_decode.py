"""Decodes the answer of `POST /model/ID/converse`, streamed or whole, into a `ModelResponse`: no I/O.

The events: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html
"""

from __future__ import annotations

from typing import Any

from kern.errors import ModelBehaviorError
from kern.messages import Message, Origin, TextPart, ToolCall
from kern.models._billed import billed_of
from kern.models._block_reader import BlockReader
from kern.models._codes import explain, says_daily_quota
from kern.models._ends import Ends, finish_reason_of, says_calls
from kern.models._failures import CutFault, StreamFault
from kern.models._reading import (
    INPUT_OF_NONE,
    damaged,
    index_of,
    items_of,
    sure_objects,
    sure_text,
    text_beside,
    text_of,
)
from kern.models.base import DeltaSink, ModelResponse
from kern.models.bedrock._blocks import FLOWING, Block, Parts, citations_of
from kern.models.bedrock._conversation import PROVIDER
from kern.models.bedrock._frames import EXCEPTION, Frames
from kern.models.bedrock._usage import guarded, usage_of
from kern.usage import Usage

_GUARDRAIL = "guardrail_intervened"
_EVENTS = frozenset(("contentBlockDelta", "contentBlockStart", "contentBlockStop", "messageStop", "metadata"))
_STATUSES = {
    "internalServerException": 500,
    "modelStreamErrorException": 424,
    "modelTimeoutException": 408,
    "serviceUnavailableException": 503,
    "throttlingException": 429,
    "validationException": 400,
}
"""The HTTP statuses of a stream's exceptions outside streams, by botocore's model of the service."""
_BROKEN_OFF = "the answer broke off in the middle of an event"


class ConverseReader(BlockReader):
    """Reads one answer of the Converse API.

    Args:
        longest: The longest message of a stream, in bytes; None: any length.
        answers: The model behind the requested one, if it is known.
        guarded: Whether the request has a guardrail.
    """

    def __init__(
        self,
        model: str,
        sink: DeltaSink | None,
        *,
        streamed: bool,
        ends: Ends,
        longest: int | None = None,
        answers: str | None = None,
        guarded: bool = False,
    ) -> None:
        super().__init__(model, sink, streamed=streamed)
        self._frames = Frames(longest) if streamed else None
        self._events = self._frames
        self._ends = ends
        self._answers = answers
        self._guarded = guarded
        self._parts = Parts(Origin(PROVIDER, model))
        self._origin = Origin(PROVIDER, model)
        self._blocks: list[Block] = []
        self._by_index: dict[int | None, dict[str, Block]] = {}
        """The blocks by index and kind: some models give a text and a call one index."""
        self._running: dict[str, Block] = {}
        self._stop_reason: Any = None
        self._usage: Any = None
        self._tier: Any = None
        self._performance: Any = None
        self._trace: Any = None

    def finish(self) -> ModelResponse:
        """Return the answer after the last byte."""
        if self._frames is not None and self._frames.pending and not self.done:
            raise StreamFault(_BROKEN_OFF)
        return super().finish()

    def _read_event(self, name: bytes, data: bytes) -> None:
        kind = name.decode(errors="replace")
        if kind not in _EVENTS and not kind.endswith(EXCEPTION):
            return  # an event that Kern does not know yet
        event = self._parse(data)
        if kind == "contentBlockDelta":
            self._read_delta(event)
        elif kind == "contentBlockStart":
            self._start(event.get("contentBlockIndex"), event.get("start"))
        elif kind == "contentBlockStop":
            for block in self._by_index.get(index_of(event.get("contentBlockIndex")), {}).values():
                self._stop(block)
        elif kind == "messageStop":
            self._stop_reason = self._ends.more_serious(self._stop_reason, event.get("stopReason"))
        elif kind == "metadata":
            self._read_end(event)
            self.done = self._stop_reason is not None
        elif kind.endswith(EXCEPTION):
            raise _reported(kind, event)

    def _read_whole(self, answer: dict[str, Any]) -> None:
        output = answer.get("output")
        message = output.get("message") if isinstance(output, dict) else None
        if not isinstance(message, dict) or not isinstance(message.get("content"), list):
            text, code, status = explain(answer)
            detail = f": {text}" if text else ""
            raise StreamFault(f"the answer is not a message: it has no content{detail}", code, status)
        for index, data in enumerate(sure_objects(message["content"], "content", self.remarks)):
            for kind, value in data.items():
                self._read_block(index, kind, value)
        self._stop_reason = answer.get("stopReason")
        self._read_end(answer)
        self.done = True

    def _read_end(self, said: dict[str, Any]) -> None:
        """Read the fields of the answer as a whole."""
        self._usage, self._trace, self._tier = said.get("usage"), said.get("trace"), said.get("serviceTier")
        self._performance = said.get("performanceConfig")

    def _read_block(self, index: int, kind: str, value: Any) -> None:
        """Read a block of an answer that is not streamed."""
        fields: dict[str, Any] = value if isinstance(value, dict) else {}
        block = self._open(index, kind, fields)
        if kind == "text":
            self._say(block, sure_text(value, "the text of a block"))
        elif kind == "citationsContent":
            self._say(block, "".join(text_of(piece.get("text")) for piece in items_of(fields.get("content"))))
            block.citations += items_of(fields.get("citations"))
        elif kind == "reasoningContent":
            text = fields.get("reasoningText")
            text = text if isinstance(text, dict) else {}
            self._reason(block, {**text, "redactedContent": fields.get("redactedContent")})
        elif kind == "toolResult":
            block.data = {name: item for name, item in fields.items() if name != "content"}
            block.results += items_of(fields.get("content"))
        elif kind == "image":
            self._add_image(block, fields)
        self._stop(block)

    def _start(self, index: Any, start: Any) -> None:
        for kind, data in (start if isinstance(start, dict) else {}).items():
            begun = self._by_index.get(index_of(index), {}).get(kind)
            if begun is None or begun.pieces or begun.data != data or not begun.id:  # else sent twice
                self._open(index, kind, data if isinstance(data, dict) else {})

    def _open(self, index: Any, kind: str, data: dict[str, Any]) -> Block:
        block = Block(kind, data)
        self._blocks.append(block)
        self._by_index.setdefault(index_of(index), {})[kind] = block
        if kind == "reasoningContent":
            self._reasoning.part()
        if kind not in FLOWING:
            self._interrupt()
        return block

    def _read_delta(self, event: dict[str, Any]) -> None:
        delta = event.get("delta")
        if not isinstance(delta, dict):
            raise damaged(delta, "the delta of a block", "an object")
        for kind, value in delta.items():
            index = index_of(event.get("contentBlockIndex"))
            wanted = "text" if kind == "citation" else kind
            block = self._by_index.get(index, {}).get(wanted)
            if block is None:  # texts and reasoning have no start event
                if wanted == "toolUse":
                    raise StreamFault(INPUT_OF_NONE)
                block = self._open(index, wanted, {})
            self._extend(block, kind, value)

    def _extend(self, block: Block, kind: str, value: Any) -> None:
        fields: dict[str, Any] = value if isinstance(value, dict) else {}
        if kind == "text":
            self._say(block, sure_text(value, "the text of a delta"))
        elif kind == "toolUse":
            text, name = (
                sure_text(fields.get("input"), "the input of a call"),
                text_of(block.data.get("name")),
            )
            self._add_input(block, text, block.id, name, is_own=not block.is_carried_out)
        elif kind == "reasoningContent":
            self._reason(block, fields)
        elif kind == "citation":
            block.citations += items_of([value])
        elif kind == "toolResult":
            block.results += items_of(value)
        elif kind == "image":
            self._add_image(block, fields)

    def _reason(self, block: Block, said: dict[str, Any]) -> None:
        if text := text_beside(said.get("text"), "the text of reasoning", self.remarks):
            block.pieces.append(text)
            self._reasoning.add(text)
        block.signature.append(text_of(said.get("signature")))
        if redacted := text_of(said.get("redactedContent")):
            block.redacted.append(redacted)

    def _add_image(self, block: Block, fields: dict[str, Any]) -> None:
        source = fields.get("source")
        if isinstance(source, dict) and (text := text_of(source.get("bytes"))):
            block.pieces.append(text)

    def _stop(self, block: Block) -> None:
        if block.is_carried_out:
            self._running[block.id] = block
            self._put(self._parts.carried_out(block, None))
        elif block.kind == "toolResult" and (call := self._running.pop(block.id, None)) is not None:
            self._put(self._parts.carried_out(call, block))
        elif block.kind in FLOWING and self._put_citation is not None:
            texts = [each for each in self._blocks if each.pieces and each.kind in FLOWING]
            if texts:  # else it belongs to the text that follows
                cited = [each for each in self._blocks if each.citations] if block is texts[0] else [block]
                self._cite(citations_of(cited, texts[-1], len(texts) - 1))

    def _used(self) -> tuple[Usage, bool]:
        return self._counted(), self._usage is not None

    def _counted(self) -> Usage:
        """The usage of the answer, with the calls of Bedrock's own tools."""
        usage = usage_of(self._usage, self._tier, self._performance)
        used = [text_of(block.data.get("name")) for block in self._blocks if block.is_carried_out]
        done = billed_of(
            web_searches=used.count("nova_grounding"),
            code_executions=used.count("nova_code_interpreter"),
            **guarded(self._trace, asked=self._guarded),
        )
        if done:
            usage.billed = {**(usage.billed or {}), **done}
        return usage

    def _has_begun(self) -> bool:
        return super()._has_begun() or bool(self._blocks)

    def _respond(self) -> ModelResponse:
        usage = self._counted()
        if self._stop_reason == _GUARDRAIL and not self._ends.good(_GUARDRAIL):
            trace = self._trace.get("guardrail") if isinstance(self._trace, dict) else None
            why = text_of(trace.get("actionReason")) if isinstance(trace, dict) else ""
            raise CutFault("content_filter", usage, self._content.whole(), word=_GUARDRAIL, detail=why)
        self._ends.check(self._stop_reason, None, self._content.whole(), usage)
        parts = self._parts.made(self._blocks)
        calls = any(isinstance(part, ToolCall) for part in parts)
        if says_calls(self._stop_reason) and not calls:
            raise StreamFault(f"the answer ended with {self._stop_reason!r}, but holds no tool call")
        self._check_not_lost(empty=not parts)
        if not parts:
            parts.append(TextPart("", origin=self._origin))
        return ModelResponse(
            Message("assistant", parts=parts, usage=usage),
            usage,
            finish_reason_of(self._stop_reason, calls=calls),
            text_of(self._stop_reason) or None,
            None,
            self._answered_by(),
        )

    def _check_not_lost(self, *, empty: bool) -> None:
        """An answer may be empty only if it has no block that Kern cannot read."""
        if not self._parts.unknown:
            return
        kinds = ", ".join(sorted(self._parts.unknown))
        if empty:
            raise ModelBehaviorError(
                f"the answer has no text and no call of a tool, only blocks of these kinds: {kinds}; "
                "Kern does not support them"
            )
        self.remarks.append(f"parts of the answer that Kern does not support: {kinds}")

    def _answered_by(self) -> str | None:
        """The model that a prompt router chose, or the model behind the requested one."""
        router = self._trace.get("promptRouter") if isinstance(self._trace, dict) else None
        chosen = text_of(router.get("invokedModelId")) if isinstance(router, dict) else ""
        return chosen or self._answers


def _reported(kind: str, event: dict[str, Any]) -> StreamFault:
    """The fault of an exception that the service reports in a stream."""
    text = text_of(event.get("originalMessage")) or text_of(event.get("message")) or "no explanation"
    code = kind[:1].upper() + kind[1:]
    return StreamFault(text, code, _STATUSES.get(kind), again=not says_daily_quota(text))
