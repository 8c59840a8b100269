"""The answer of `POST /chat/completions`, streamed or whole, as a `ModelResponse`: no I/O.

The chunks: https://platform.openai.com/docs/api-reference/chat-streaming, read with the liberties that
Ollama, vLLM, llama.cpp, LM Studio, DeepSeek and others take.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from pydantic_core import to_json

from kern.messages import ToolCall
from kern.models._failures import CutFault, StreamFault, explain
from kern.models.base import DeltaSink, ModelResponse
from kern.models.openai._chat_encode import PROVIDER, REASONING_NAMES
from kern.models.openai._kept import Kept
from kern.models.openai._reading import AnswerReader, answer, count, items_of, text_of
from kern.models.openai._strand import mended_json
from kern.usage import Usage

_CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


class ChatReader(AnswerReader):
    """Reads one answer of the Chat Completions API."""

    def __init__(self, model: str, sink: DeltaSink | None, *, streamed: bool) -> None:
        super().__init__(model, sink, streamed=streamed)
        self._calls: list[_Call] = []
        self._open: dict[int, _Call] = {}
        self._reasoning_name: str | None = None
        self._refused = False
        self._kept = Kept(streamed=streamed)
        self._finish_reason: str | None = None
        self._usage: Any = None

    def _read_event(self, name: bytes, data: bytes) -> None:
        if data == b"[DONE]":
            self.done = True
            return
        chunk = self._parse(data)
        choices = chunk.get("choices")
        if choices:
            for choice in items_of(choices):
                self._read_choice(choice, choice.get("delta"))
        elif chunk.get("error"):
            raise StreamFault(*explain(chunk))
        if usage := chunk.get("usage"):
            self._usage = usage

    def _read_whole(self, answer: dict[str, Any]) -> None:
        choices = items_of(answer.get("choices"))
        if not choices:
            if answer.get("error"):
                raise StreamFault(*explain(answer))
            raise StreamFault("the answer is no chat completion: it has no choices")
        self._read_choice(choices[0], choices[0].get("message"))
        self._usage = answer.get("usage")
        self.done = True

    def _read_choice(self, choice: dict[str, Any], said: Any) -> None:
        if choice.get("index"):  # a second answer, which nobody asked for
            return
        if isinstance(said, dict):
            text = text_of(said.get("content"))
            self._content.add(text)
            if not text or len(said) > 1:  # the usual delta is text alone
                self._read_rest(said)
        if reason := choice.get("finish_reason"):
            self._finish_reason = reason

    def _read_rest(self, said: dict[str, Any]) -> None:
        for name in REASONING_NAMES:
            if text := text_of(said.get(name)):
                self._reasoning_name = name
                self._reasoning.add(text)
                break
        self._kept.read(said)
        if refusal := text_of(said.get("refusal")):
            self._refused = True
            self._content.add(refusal)
        for call in items_of(said.get("tool_calls")):
            self._read_call(call)

    def _read_call(self, delta: dict[str, Any]) -> None:
        """Deltas belong together by their index; where a server gives all calls one index, by their id."""
        identity = text_of(delta.get("id"))
        index = delta.get("index")
        if not isinstance(index, int):
            index = len(self._calls) if identity or not self._calls else len(self._calls) - 1
        call = self._open.get(index)
        if call is None or (identity and call.id and identity != call.id):
            call = self._open[index] = _Call()
            self._calls.append(call)
        call.id = call.id or identity
        if isinstance(extra := delta.get("extra_content"), dict):
            call.extra = extra
        function = delta.get("function")
        if isinstance(function, dict):
            call.name = call.name or text_of(function.get("name"))
            if arguments := function.get("arguments"):
                call.arguments.append(
                    arguments if isinstance(arguments, str) else to_json(arguments).decode()
                )

    def _respond(self) -> ModelResponse:
        if self._finish_reason is None and not self.done:
            raise StreamFault("the stream ended before the answer was complete")
        if self._finish_reason in _CUT:
            raise CutFault(_CUT[self._finish_reason], _usage(self._usage))
        calls = [self._tool_call(call) for call in self._calls]
        reason = "refusal" if self._refused else self._finish_reason
        reasoning = self._reasoning.whole()
        response = answer(self._content.whole(), reasoning, calls, _usage(self._usage), reason)
        kept = self._kept.record
        if reasoning and calls:
            kept["reasoning"] = self._reasoning_name
        if self._halved:
            kept = mended_json(kept)
        if kept:
            response.message.provider_data = {PROVIDER: {"model": self._model, **kept}}
        response.message.images = self._kept.images
        return response

    def _tool_call(self, call: _Call) -> ToolCall:
        kept = {PROVIDER: {"model": self._model, "extra_content": call.extra}} if call.extra else None
        return ToolCall(
            call.id or f"call_{uuid4().hex}", call.name, self._whole_text("".join(call.arguments)), kept
        )


def _usage(usage: Any) -> Usage:
    spent, said = count(usage, "prompt_tokens"), count(usage, "completion_tokens")
    details = usage if isinstance(usage, dict) else {}
    return Usage(
        input_tokens=spent,
        output_tokens=said,
        total_tokens=count(usage, "total_tokens") or spent + said,
        cached_tokens=count(details.get("prompt_tokens_details"), "cached_tokens"),
        reasoning_tokens=count(details.get("completion_tokens_details"), "reasoning_tokens"),
        requests=1,
    )
