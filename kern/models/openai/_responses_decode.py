"""The answer of `POST /responses`, streamed or whole, as a `ModelResponse`: no I/O.

The events: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kern.messages import Message, Origin, ReasoningPart
from kern.models._billed import billed_of, terms_of
from kern.models._codes import explain, has_content
from kern.models._ends import Ends, cut_reason, finish_reason_of
from kern.models._failures import CutFault, StreamFault
from kern.models._reading import AnswerReader, count, sure_text, text_beside, text_of
from kern.models._text_stream import mended_json
from kern.models.base import DeltaSink, ModelResponse, tool_arguments_of
from kern.models.openai._call_sink import CallSink
from kern.models.openai._chained import chained_to
from kern.models.openai._responses_items import (
    StreamedItem,
    check_items,
    check_whole,
    output_items,
    together,
    with_text,
)
from kern.models.openai._responses_output import Output
from kern.usage import Usage

_TEXT = "response.output_text.delta"
_REFUSAL = "response.refusal.delta"
_REASONING = {
    "response.reasoning_summary_text.delta": "summary_index",
    "response.reasoning_text.delta": "content_index",
}
_ADDED, _DONE = "response.output_item.added", "response.output_item.done"
_ARGUMENTS = "response.function_call_arguments.delta"
_ALL_ARGUMENTS = "response.function_call_arguments.done"
_SPOKEN = ("message", "function_call", "reasoning")
_ENDS = {
    "response.completed": "completed",
    "response.incomplete": "incomplete",
    "response.failed": "failed",
    "response.cancelled": "cancelled",
    "response.done": None,  # of a server that reports the status only in the response
}

# The other kinds repeat these, or parts of them: they are skipped without parsing.
_READ = frozenset(
    kind.encode()
    for kind in (_TEXT, _REFUSAL, *_REASONING, _ADDED, _DONE, _ARGUMENTS, _ALL_ARGUMENTS, *_ENDS, "error")
)


class ResponsesReader(AnswerReader):
    """Reads one answer of the Responses API.

    Args:
        chained: The message gets the id of the response, so that the next request can continue it.
    """

    def __init__(
        self,
        origin: Origin,
        sink: DeltaSink | None,
        *,
        streamed: bool,
        ends: Ends,
        structured: bool = False,
        chained: bool = False,
    ) -> None:
        super().__init__(origin.model, sink, streamed=streamed)
        self._origin = origin
        self._ends = ends
        self._chained = chained
        self._put_arguments = tool_arguments_of(sink if streamed else None)
        self._calls = CallSink(sink, origin)
        self._structured = structured
        self._items: list[StreamedItem] = []
        self._by_index: dict[int, StreamedItem] = {}
        self._by_id: dict[str, StreamedItem] = {}
        self._texts = 0
        self._spoken: Any = None
        self._speaking = False
        self._voice = self._content
        self._reasoning_part: tuple[Any, Any] | None = None
        self._final: dict[str, Any] | None = None
        self._ended: dict[str, Any] | None = None
        self._last = b""
        self._words: tuple[str, str | None, int | None] | None = None

    def _read_event(self, name: bytes, data: bytes) -> None:
        if name:
            self._last = name
            if name not in _READ:
                return
        if data == b"[DONE]":  # some servers end this protocol with the mark of Chat Completions
            return
        event = self._parse(data)
        kind = text_of(event.get("type")) or name.decode(errors="replace")
        if kind in (_TEXT, _REFUSAL):
            if event.get("output_index") != self._spoken or not self._speaking:
                self._begin_message(event)
            self._voice.add(sure_text(event.get("delta"), "the delta of a text"))
        elif kind in _REASONING:
            self._read_reasoning(event, _REASONING[kind])
        elif kind == _ARGUMENTS:
            self._read_arguments(event)
        elif kind == _ALL_ARGUMENTS:
            self._item(event).final_arguments = text_of(event.get("arguments"))
        elif kind in (_ADDED, _DONE):
            self._read_item(event, whole=kind == _DONE)
        elif kind in _ENDS:
            self._read_whole(event.get("response", event if "output" in event else None), _ENDS[kind])
            self.done = True
        elif "error" in (kind, event.get("object")) or name == b"error" or (not kind and event.get("error")):
            raise StreamFault(*explain(event))
        elif not kind and (words := explain(event))[0]:
            self._words = words  # perhaps the error message of a server

    def _read_arguments(self, event: dict[str, Any]) -> None:
        item, delta = self._item(event), sure_text(event.get("delta"), "the delta of a call's arguments")
        item.arguments.append(delta)
        if self._put_arguments is not None and delta:
            call_id = text_of(item.data.get("call_id")) or text_of(item.data.get("id"))
            self._put_arguments(call_id, text_of(item.data.get("name")), self._whole_text(delta))

    def _tell_call(self, data: dict[str, Any]) -> None:
        """Tell the arguments of a call that were not streamed, as by LM Studio."""
        if self._put_arguments is not None and data.get("type") == "function_call":
            call_id, arguments = (
                text_of(data.get("call_id")) or text_of(data.get("id")),
                data.get("arguments"),
            )
            if call_id and isinstance(arguments, str) and arguments:
                self._put_arguments(call_id, text_of(data.get("name")), self._whole_text(arguments))

    def _begin_message(self, event: dict[str, Any]) -> None:
        """Begin a new message: its text is a paragraph of the answer or of the commentary."""
        self._spoken, self._speaking = event.get("output_index"), True
        commentary = self._item(event).data.get("phase") == "commentary"
        self._voice = self._commentary if commentary else self._content
        self._voice.part()
        self._texts += 1

    def _read_reasoning(self, event: dict[str, Any], index: str) -> None:
        part = (event.get("output_index"), event.get(index))
        if part != self._reasoning_part:
            self._reasoning_part = part
            self._reasoning.part()
        self._reasoning.add(text_beside(event.get("delta"), "the delta of reasoning", self.remarks))

    def _item(self, event: dict[str, Any]) -> StreamedItem:
        """Return the item of an event. Some servers number all items 0, some change ids on the way."""
        item = self._by_id.get(text_of(event.get("item_id"))) or self._by_index.get(_index(event))
        return item or self._add_item(event, {})

    def _add_item(self, event: dict[str, Any], data: dict[str, Any]) -> StreamedItem:
        item = StreamedItem(data)
        self._items.append(item)
        self._by_index[_index(event)] = item
        if identity := text_of(data.get("id")):
            self._by_id[identity] = item
        return item

    def _read_item(self, event: dict[str, Any], *, whole: bool) -> None:
        data = event.get("item")
        if not isinstance(data, dict):
            return
        item = self._by_id.get(text_of(data.get("id")))
        if item is None:
            item = self._by_index.get(_index(event))
            if item is None or item.whole:
                item = self._add_item(event, data)
        if not whole and data.get("type") == "message":
            self._speaking = False  # even under the index of the message before
        if whole and item.data.get("name") and not data.get("name"):
            data = {**data, "name": item.data["name"]}
        item.data = data
        item.whole = whole
        if whole and self._put_arguments is not None and not item.arguments:
            self._tell_call(data)
        if data.get("type") not in _SPOKEN:
            self._calls.streamed(data, ended=whole)

    def _read_whole(self, answer: Any, event: str | None = None) -> None:
        if not isinstance(answer, dict):
            raise StreamFault("the final event has no response")
        self._ended = answer
        if has_content(answer.get("error")):
            message, code, status = explain(answer)
            raise StreamFault(f"the response failed: {message}", code, status)
        self._check_status(answer, event)
        if not _has_output(answer) and not self._items and not self._content.whole():
            text, code, status = explain(answer)
            detail = f": {text}" if text else ""
            raise StreamFault(f"the answer is not a response: it has no output{detail}", code, status)
        self._final = answer

    def _check_status(self, answer: dict[str, Any], event: str | None) -> None:
        """Check that the response is whole: by its status, and by the event that brought it."""
        said = answer.get("status")
        status = text_of(said) or event or ("completed" if said is None else str(said))
        if event is not None and (event != "completed" or status in ("queued", "in_progress")):
            status = event  # some servers do not update the status
        details = answer.get("incomplete_details")
        word = details.get("reason") if isinstance(details, dict) else None
        if status == "incomplete" or (word and status == "completed"):
            if reason := cut_reason(word):
                raise CutFault(reason, _usage(answer), self._text_so_far(answer), word=word)
            raise StreamFault(f"the answer is incomplete: {word or 'unknown'}")
        if status == "failed":
            raise StreamFault("the response failed, without a reason")
        if status != "completed" and not self._ends.good(status):
            raise StreamFault(
                f"the response is not complete: its status is {status!r}; Kern neither waits for it nor "
                "repeats the request",
                again=False,
            )

    def _text_so_far(self, answer: dict[str, Any]) -> str:
        """Return the text of a response that was cut off."""
        messages = [item for item in output_items(answer) if item.get("type") == "message"]
        said = Output(messages, self._origin, structured=self._structured).message
        return said.content or self._content.whole()

    def _respond(self) -> ModelResponse:
        if self._final is None and self._words is not None:
            raise StreamFault(*self._words)
        if self._final is None:
            last = f", after {self._last.decode(errors='replace')!r}" if self._last else ""
            waits = self._last == b"response.queued"  # a job, which another request would only repeat
            raise StreamFault(f"the stream ended before the answer was complete{last}", again=not waits)
        check_items(self._final, self.remarks)
        final = [self._streamed_reasoning(item) for item in output_items(self._final)]
        items = together(self._items, final)
        if self._texts == 1:
            items = with_text(items, self._content.whole() or self._commentary.whole())
        check_whole(items)
        built = Output(
            mended_json(items) if self._halved else items, self._origin, structured=self._structured
        )
        self.remarks += built.remarks
        message = built.message
        self._fill(message)
        message.usage = usage = _usage(self._final)
        self._calls.whole(message)
        response_id = text_of(self._final.get("id")) or None
        if self._chained and response_id:
            message.provider_data = chained_to(response_id, self._model)
        finish = finish_reason_of("refusal" if built.refused else "completed", calls=bool(message.tool_calls))
        status = text_of(self._final.get("status")) or "completed"
        answered_by = text_of(self._final.get("model")) or None
        return ModelResponse(message, usage, finish, status, response_id, answered_by)

    def _used(self) -> tuple[Usage, bool]:
        answer = self._ended or {}
        return _usage(answer), bool(answer.get("usage"))

    def _has_begun(self) -> bool:
        return super()._has_begun() or bool(self._items)

    def _fill(self, message: Message) -> None:
        """Add what only the stream contained. An answer without anything is an empty text."""
        if not message.content and not message.commentary:
            commentary = self._commentary.whole()
            if commentary:
                message.commentary = commentary
            if (content := self._content.whole()) or not (message.tool_calls or commentary):
                message.content = content
        if message.reasoning_content is None and (reasoning := self._reasoning.whole()):
            begun = next((part for part in message.parts if isinstance(part, ReasoningPart)), None)
            if begun is not None:
                begun.text = reasoning
            else:
                message.reasoning_content = reasoning
        for part in message.parts:
            if part.origin is None:
                part.origin = self._origin

    def _streamed_reasoning(self, item: dict[str, Any]) -> dict[str, Any]:
        """Return reasoning as its own event has it, to be sent back: the last event encrypts it again."""
        item_id = item.get("id")
        if item.get("type") != "reasoning" or not isinstance(item_id, str):
            return item
        streamed = self._by_id.get(item_id)
        own = streamed is not None and streamed.whole and streamed.data.get("encrypted_content")
        return streamed.data if streamed is not None and own else item


_TICK = 1e-10
"""xAI's unit of costs, in US dollars."""

_PAID = {
    "web_search_call": "web_searches",
    "file_search_call": "storage_searches",
    "code_interpreter_call": "code_executions",
    "shell_call": "code_executions",
    "image_generation_call": "images_generated",
}
"""What is billed in addition to tokens, by the type of the item that reports it."""


def _has_output(answer: dict[str, Any]) -> bool:
    output = answer.get("output", answer.get("output_text"))
    return (output is None and "output" in answer) or isinstance(output, list | dict | str)


def _index(event: dict[str, Any]) -> int:
    index = event.get("output_index")
    return index if isinstance(index, int) else 0


def _usage(answer: Mapping[str, Any]) -> Usage:
    """Return the usage of a response."""
    usage = answer.get("usage")
    spent, said = count(usage, "input_tokens"), count(usage, "output_tokens")
    details = usage if isinstance(usage, dict) else {}
    ticks = details.get("cost_in_usd_ticks")
    return Usage(
        input_tokens=spent,
        output_tokens=said,
        total_tokens=max(count(usage, "total_tokens"), spent + said),
        cached_tokens=count(details.get("input_tokens_details"), "cached_tokens"),
        cache_write_tokens=count(details.get("input_tokens_details"), "cache_write_tokens"),
        reasoning_tokens=count(details.get("output_tokens_details"), "reasoning_tokens"),
        requests=1,
        cost=None if ticks is None else count(details, "cost_in_usd_ticks") * _TICK,
        billed=_billed(answer),
        terms=terms_of(service_tier=answer.get("service_tier")),
    )


def _billed(answer: Mapping[str, Any]) -> dict[str, int] | None:
    """Count the billed calls of the provider's tools. The pages that a web search opens are not billed."""
    counts: dict[str, int] = {}
    for item in output_items(dict(answer)):
        name = _PAID.get(text_of(item.get("type")))
        action = item.get("action")
        kind = text_of(action.get("type")) if isinstance(action, dict) else ""
        if name is not None and not (
            name == "web_searches" and kind in ("open_page", "find_in_page", "find")
        ):
            counts[name] = counts.get(name, 0) + 1
    tool_usage = answer.get("tool_usage")
    searched = tool_usage.get("web_search") if isinstance(tool_usage, dict) else None
    if "web_searches" in counts:
        counts["web_searches"] = max(counts["web_searches"], count(searched, "num_requests"))
    return billed_of(**counts) if counts else None
