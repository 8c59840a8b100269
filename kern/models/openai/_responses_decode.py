"""The answer of `POST /responses`, streamed or whole, as a `ModelResponse`: no I/O.

The events: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import Any

from kern.messages import ToolCall
from kern.models._failures import CutFault, StreamFault, explain
from kern.models.base import DeltaSink, ModelResponse
from kern.models.openai._reading import AnswerReader, answer, count, items_of, parse, text_of
from kern.models.openai._responses_encode import PROVIDER
from kern.usage import Usage

_TEXT = "response.output_text.delta"
_REFUSAL = "response.refusal.delta"
_REASONING = {
    "response.reasoning_summary_text.delta": "summary_index",
    "response.reasoning_text.delta": "content_index",
}
_ITEMS = ("response.output_item.added", "response.output_item.done")
_ARGUMENTS = "response.function_call_arguments.delta"
_ENDS = ("response.completed", "response.incomplete", "response.failed")

# The other kinds repeat what these say, or say it in parts: they are passed over unparsed.
_READ = frozenset(
    kind.encode() for kind in (_TEXT, _REFUSAL, *_REASONING, *_ITEMS, _ARGUMENTS, *_ENDS, "error")
)


class ResponsesReader(AnswerReader):
    """Reads one answer of the Responses API."""

    def __init__(self, model: str, sink: DeltaSink | None, *, streamed: bool) -> None:
        super().__init__(model, sink, streamed=streamed)
        self._output: dict[int, dict[str, Any]] = {}
        self._arguments: dict[int, list[str]] = {}
        self._reasoning_part: tuple[Any, Any] | None = None
        self._final: dict[str, Any] | None = None

    def _read_event(self, name: bytes, data: bytes) -> None:
        if name and name not in _READ:
            return
        if data == b"[DONE]":  # some servers end this protocol, too, with the mark of the other one
            return
        event = parse(data)
        kind = event.get("type")
        if kind in (_TEXT, _REFUSAL):
            self._put_content(text_of(event.get("delta")))
        elif kind in _REASONING:
            self._read_reasoning(event, _REASONING[kind])
        elif kind == _ARGUMENTS:
            pieces = self._arguments.setdefault(event.get("output_index", 0), [])
            pieces.append(text_of(event.get("delta")))
        elif kind in _ITEMS:
            self._read_item(event, whole=kind == _ITEMS[1])
        elif kind in _ENDS:
            self._read_whole(event.get("response"), kind.rpartition(".")[2])
            self.done = True
        elif kind == "error" or (kind is None and event.get("error")):
            raise StreamFault(*explain(event))

    def _read_reasoning(self, event: dict[str, Any], index: str) -> None:
        part = (event.get("output_index"), event.get(index))
        text = text_of(event.get("delta"))
        if self._reasoning and part != self._reasoning_part:
            text = f"\n\n{text}"
        self._reasoning_part = part
        self._put_reasoning(text)

    def _read_item(self, event: dict[str, Any], *, whole: bool) -> None:
        item, index = event.get("item"), event.get("output_index", 0)
        if isinstance(item, dict):
            self._output[index] = item
            if whole:
                self._arguments.pop(index, None)

    def _read_whole(self, answer: Any, status: str | None = None) -> None:
        if not isinstance(answer, dict):
            raise StreamFault("the final event holds no response")
        status = status or answer.get("status") or "completed"
        if status == "incomplete":
            reason = (answer.get("incomplete_details") or {}).get("reason") or "unknown"
            if reason in CutFault.reasons:
                raise CutFault(reason, _usage(answer.get("usage")))
            raise StreamFault(f"the answer is incomplete: {reason}")
        if answer.get("error") or status != "completed":
            message, code = explain(answer) if answer.get("error") else (f"its status is {status}", None)
            raise StreamFault(f"the response failed: {message}", code)
        if "output" not in answer and not self._output and not self._content:
            raise StreamFault("the answer is no response: it has no output")
        self._final = answer

    def _respond(self) -> ModelResponse:
        if self._final is None:
            raise StreamFault("the stream ended before the answer was complete")
        output = items_of(self._final.get("output")) or self._streamed_output()
        built = _Output(output)
        content = "".join(built.content) or "".join(self._content)
        reasoning = "\n\n".join(built.reasoning) or "".join(self._reasoning)
        usage = _usage(self._final.get("usage"))
        response = answer(content, reasoning, built.calls, usage, "refusal" if built.refused else "completed")
        if built.notable:
            response.message.provider_data = {PROVIDER: {"model": self._model, "items": built.record}}
        return response

    def _streamed_output(self) -> list[dict[str, Any]]:
        """The items as the stream told them, for servers whose last event does not repeat them."""
        items = []
        for index, item in sorted(self._output.items()):
            if index in self._arguments:
                item = {**item, "arguments": "".join(self._arguments[index])}
            items.append(item)
        return items


class _Output:
    """What an answer's output items come to.

    `record` is what it takes to send the items again: reasoning whole, of texts and calls only their places.
    It is worth keeping (`notable`) if plain messages could not say the same.
    """

    def __init__(self, items: list[dict[str, Any]]) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.calls: list[ToolCall] = []
        self.record: list[dict[str, Any]] = []
        self.refused = False
        self.notable = False
        for item in items:
            kind = item.get("type")
            if kind == "message":
                self._message(item)
            elif kind == "function_call":
                self._call(item)
            elif kind == "reasoning":
                self._reason(item)
            else:
                self.record.append(item)
                self.notable = True

    def _message(self, item: dict[str, Any]) -> None:
        place = {name: item[name] for name in ("type", "id", "phase") if item.get(name) is not None}
        chars = 0
        for part in items_of(item.get("content")):
            text = text_of(part.get("text") or part.get("refusal"))
            if part.get("type") == "refusal":
                self.refused = place["refusal"] = True
            self.content.append(text)
            chars += len(text)
        self.record.append({**place, "chars": chars})
        self.notable = self.notable or "phase" in place

    def _call(self, item: dict[str, Any]) -> None:
        call = ToolCall(
            text_of(item.get("call_id") or item.get("id")),
            text_of(item.get("name")),
            text_of(item.get("arguments")),
        )
        self.calls.append(call)
        place = {"type": "function_call", "call_id": call.id}
        if item.get("id"):
            place["id"] = item["id"]
        self.record.append(place)

    def _reason(self, item: dict[str, Any]) -> None:
        parts = items_of(item.get("content")) or items_of(item.get("summary"))
        self.reasoning.extend(text for part in parts if (text := text_of(part.get("text"))))
        # An item without its content is a name that only the provider's own store could resolve.
        if item.get("encrypted_content") or item.get("content"):
            self.record.append({name: value for name, value in item.items() if value is not None})
            self.notable = True


def _usage(usage: Any) -> Usage:
    spent, said = count(usage, "input_tokens"), count(usage, "output_tokens")
    details = usage if isinstance(usage, dict) else {}
    return Usage(
        input_tokens=spent,
        output_tokens=said,
        total_tokens=count(usage, "total_tokens") or spent + said,
        cached_tokens=count(details.get("input_tokens_details"), "cached_tokens"),
        reasoning_tokens=count(details.get("output_tokens_details"), "reasoning_tokens"),
        requests=1,
    )
