"""The answer of `POST /responses`, streamed or whole, as a `ModelResponse`: no I/O.

The events: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import Any

from kern.models._failures import CutFault, StreamFault, explain
from kern.models.base import DeltaSink, ModelResponse
from kern.models.openai._reading import AnswerReader, answer, count, items_of, text_of
from kern.models.openai._responses_output import Output
from kern.models.openai._strand import mended_json
from kern.usage import Usage

_TEXT = "response.output_text.delta"
_REFUSAL = "response.refusal.delta"
_REASONING = {
    "response.reasoning_summary_text.delta": "summary_index",
    "response.reasoning_text.delta": "content_index",
}
_ADDED, _DONE = "response.output_item.added", "response.output_item.done"
_ARGUMENTS = "response.function_call_arguments.delta"
_ENDS = ("response.completed", "response.incomplete", "response.failed")

# The other kinds repeat what these say, or say it in parts: they are passed over unparsed.
_READ = frozenset(
    kind.encode() for kind in (_TEXT, _REFUSAL, *_REASONING, _ADDED, _DONE, _ARGUMENTS, *_ENDS, "error")
)


class _Item:
    """An output item that is being streamed."""

    __slots__ = ("arguments", "data", "whole")

    def __init__(self, data: dict[str, Any]) -> None:
        self.data = data
        self.whole = False
        self.arguments: list[str] = []


class ResponsesReader(AnswerReader):
    """Reads one answer of the Responses API."""

    def __init__(
        self, model: str, sink: DeltaSink | None, *, streamed: bool, structured: bool = False
    ) -> None:
        super().__init__(model, sink, streamed=streamed)
        self._structured = structured
        self._items: list[_Item] = []
        self._by_index: dict[Any, _Item] = {}
        self._by_id: dict[Any, _Item] = {}
        self._spoken: Any = None
        self._voice = self._content
        self._reasoning_part: tuple[Any, Any] | None = None
        self._final: dict[str, Any] | None = None

    def _read_event(self, name: bytes, data: bytes) -> None:
        if name and name not in _READ:
            return
        if data == b"[DONE]":  # some servers end this protocol, too, with the mark of the other one
            return
        event = self._parse(data)
        kind = event.get("type")
        if kind in (_TEXT, _REFUSAL):
            if event.get("output_index", 0) != self._spoken:
                self._begin_message(event)
            self._voice.add(text_of(event.get("delta")))
        elif kind in _REASONING:
            self._read_reasoning(event, _REASONING[kind])
        elif kind == _ARGUMENTS:
            self._item(event).arguments.append(text_of(event.get("delta")))
        elif kind in (_ADDED, _DONE):
            self._read_item(event, whole=kind == _DONE)
        elif kind in _ENDS:
            self._read_whole(event.get("response"), kind.rpartition(".")[2])
            self.done = True
        elif kind == "error" or (kind is None and event.get("error")):
            raise StreamFault(*explain(event))

    def _begin_message(self, event: dict[str, Any]) -> None:
        """Text of another message than the last: a paragraph by itself, of the answer or the commentary."""
        self._spoken = event.get("output_index", 0)
        commentary = self._item(event).data.get("phase") == "commentary"
        self._voice = self._commentary if commentary else self._content
        self._voice.part()

    def _read_reasoning(self, event: dict[str, Any], index: str) -> None:
        part = (event.get("output_index"), event.get(index))
        if part != self._reasoning_part:
            self._reasoning_part = part
            self._reasoning.part()
        self._reasoning.add(text_of(event.get("delta")))

    def _item(self, event: dict[str, Any]) -> _Item:
        """The item that an event belongs to. Some servers count all items 0, some make up ids as they go."""
        item = self._by_id.get(event.get("item_id")) or self._by_index.get(event.get("output_index", 0))
        return item or self._add_item(event, {})

    def _add_item(self, event: dict[str, Any], data: dict[str, Any]) -> _Item:
        item = _Item(data)
        self._items.append(item)
        self._by_index[event.get("output_index", 0)] = item
        if data.get("id"):
            self._by_id[data["id"]] = item
        return item

    def _read_item(self, event: dict[str, Any], *, whole: bool) -> None:
        data = event.get("item")
        if not isinstance(data, dict):
            return
        item = self._by_id.get(data.get("id"))
        if item is None:
            item = self._by_index.get(event.get("output_index", 0))
            if item is None or item.whole:
                item = self._add_item(event, data)
        if not whole and data.get("type") == "message":
            self._spoken = None  # even under the index of the message before
        item.data = data
        item.whole = whole

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
        if "output" not in answer and not self._items and not self._content.whole():
            raise StreamFault("the answer is no response: it has no output")
        self._final = answer

    def _respond(self) -> ModelResponse:
        if self._final is None:
            raise StreamFault("the stream ended before the answer was complete")
        items = items_of(self._final.get("output")) or self._streamed_output()
        built = Output(mended_json(items) if self._halved else items, structured=self._structured)
        content, commentary = built.content, built.commentary
        if not content and not commentary:
            content, commentary = self._content.whole(), self._commentary.whole()
        response = answer(
            content,
            "\n\n".join(built.reasoning) or self._reasoning.whole(),
            built.calls,
            _usage(self._final.get("usage")),
            "refusal" if built.refused else "completed",
            commentary,
        )
        response.message.images = built.images
        built.put_record(response.message, self._model)
        return response

    def _streamed_output(self) -> list[dict[str, Any]]:
        """The items as the stream told them, for servers whose last event does not repeat them."""
        return [
            {**item.data, "arguments": "".join(item.arguments)}
            if item.arguments and not item.whole
            else item.data
            for item in self._items
            if item.data
        ]


def _usage(usage: Any) -> Usage:
    spent, said = count(usage, "input_tokens"), count(usage, "output_tokens")
    details = usage if isinstance(usage, dict) else {}
    return Usage(
        input_tokens=spent,
        output_tokens=said,
        total_tokens=max(count(usage, "total_tokens"), spent + said),
        cached_tokens=count(details.get("input_tokens_details"), "cached_tokens"),
        reasoning_tokens=count(details.get("output_tokens_details"), "reasoning_tokens"),
        requests=1,
    )
