"""Answers in OpenAI's Responses protocol.

Source: https://platform.openai.com/docs/api-reference/responses and .../responses-streaming, and the types of
the official Python client, against which the tests validate every event.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal
from uuid import uuid4

from pydantic_core import to_json

from kern.messages import ToolCall
from kern.testing._events import Deltas, Event, deltas_of, strike_index, usage_of
from kern.testing._items import ItemIds
from kern.testing._provider_calls import response_item
from kern.testing._refusal import Refused, error_object
from kern.testing.answers import Answer, Fault, words
from kern.testing.request import ReceivedRequest
from kern.usage import Usage

_PADDING = "aB3dE5gH7jK9mN1p"
_ECHOED: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
"""What a response repeats of its request, with the API's defaults."""


def whole(request: ReceivedRequest, answer: Answer) -> bytes:
    """The answer as one JSON body.

    Raises:
        Refused: The answer's fault cannot be played without a stream.
    """
    reply = _Reply(request, answer)
    fault = answer.fault
    if fault is not None and fault.kind == "error_event":
        raise Refused(500, fault.message, code=fault.code, model=request.model)
    if fault is not None and fault.kind == "failed":
        return to_json(reply.failed(fault))
    return to_json(reply.ended())


def stream(request: ReceivedRequest, answer: Answer) -> list[Event]:
    """The answer as server-sent events."""
    out = _Stream(_Reply(request, answer), request)
    out.opening()
    out.reasoning()
    out.commentary()
    out.provider_calls()
    out.message()
    out.calls()
    out.ending()
    fault = answer.fault
    if fault is not None and fault.kind in ("failed", "error_event"):
        out.fail(fault)
    return out.events


class _Reply:
    """The response object and its finished items."""

    def __init__(self, request: ReceivedRequest, answer: Answer) -> None:
        self.deltas: Deltas = deltas_of(answer)
        self.usage = usage_of(answer, self.deltas, request)
        fault = answer.fault
        self.commentary = answer.commentary
        self.played = [response_item(call) for call in answer.provider_calls]
        self.status = answer.finish_reason or "completed"
        self.incomplete = fault.code if fault is not None and fault.kind == "incomplete" else None
        self.item_status = "incomplete" if self.incomplete else "completed"
        body = request.body
        self._encrypted = "reasoning.encrypted_content" in (body.get("include") or ())
        self._base = {
            "id": f"resp_{uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "model": request.model,
            "reasoning": {"effort": None, "summary": None} | (body.get("reasoning") or {}),
            **{name: body.get(name, default) for name, default in _ECHOED.items()},
        }
        ids = ItemIds(reasoned=bool(self.deltas.reasoning), stored=body.get("store") is not False)
        self.reasoning_id = ids.of("rs")
        self.commentary_id = ids.of("msg")
        self.message_id = ids.of("msg", 1)
        self.call_ids = [ids.of("fc", number) for number in range(len(self.deltas.calls))]

    def response(self, status: str, output: Sequence[dict[str, Any]] = (), **changed: Any) -> dict[str, Any]:
        """The response object in one of its states."""
        fresh = {"completed_at": None, "error": None, "incomplete_details": None, "usage": None}
        return {**self._base, "status": status, "output": output, **fresh, **changed}

    def ended(self) -> dict[str, Any]:
        """The response object at its end, complete or incomplete."""
        usage = _usage(self.usage)
        if self.incomplete:
            details = {"reason": self.incomplete}
            return self.response("incomplete", self.items(), incomplete_details=details, usage=usage)
        return self.response(self.status, self.items(), completed_at=int(time.time()), usage=usage)

    def failed(self, fault: Fault) -> dict[str, Any]:
        """The response object of a failure."""
        error = error_object(500, fault.message, code=fault.code, model=self._base["model"])
        return self.response("failed", error={"code": error["code"], "message": error["message"]})

    def items(self) -> list[dict[str, Any]]:
        """The finished output items."""
        items = [self.reasoning_item()] if self.deltas.reasoning else []
        if self.commentary is not None:
            items.append(self.commentary_item())
        items += [played.done for played in self.played]
        if self.deltas.text is not None:
            items.append(self.message_item())
        return items + [self.call_item(index) for index in range(len(self.deltas.calls))]

    def reasoning_item(self) -> dict[str, Any]:
        """The reasoning, its summary in one part."""
        return self.open_reasoning() | {"summary": [_summary(self.deltas.reasoning_text)]}

    def open_reasoning(self) -> dict[str, Any]:
        """The reasoning as it starts; with encrypted content only if the request includes it."""
        item: dict[str, Any] = {"id": self.reasoning_id, "type": "reasoning", "summary": []}
        if self._encrypted:
            item["encrypted_content"] = f"gAAAAA{self.reasoning_id}=="
        return item

    def message_item(self) -> dict[str, Any]:
        """The message, its text in one part."""
        part = _text(self.deltas.content or "")
        return self.open_message() | {"status": self.item_status, "content": [part]}

    def open_message(self) -> dict[str, Any]:
        """The message as it starts."""
        item = {"id": self.message_id, "type": "message", "status": "in_progress"}
        phase = {} if self.commentary is None else {"phase": "final_answer"}
        return item | {"role": "assistant", "content": []} | phase

    def commentary_item(self) -> dict[str, Any]:
        """The message of commentary, its text in one part."""
        said = {"status": "completed", "content": [_text(self.commentary or "")]}
        return self.open_message() | {"id": self.commentary_id, "phase": "commentary"} | said

    def open_commentary(self) -> dict[str, Any]:
        """The message of commentary as it starts."""
        return self.commentary_item() | {"status": "in_progress", "content": []}

    def call_item(self, index: int) -> dict[str, Any]:
        """A function call."""
        arguments = "".join(self.deltas.calls[index][1])
        return self.open_call(index) | {"status": self.item_status, "arguments": arguments}

    def open_call(self, index: int) -> dict[str, Any]:
        """A function call as it starts."""
        call: ToolCall = self.deltas.calls[index][0]
        item = {"id": self.call_ids[index], "type": "function_call", "status": "in_progress"}
        return item | {"arguments": "", "call_id": call.id, "name": call.name}


class _Stream:
    """Writes the events; an event's sequence number is its index."""

    def __init__(self, reply: _Reply, request: ReceivedRequest) -> None:
        self.events: list[Event] = []
        self._reply = reply
        self._output_index = 0
        options = request.body.get("stream_options") or {}
        self._obfuscate = options.get("include_obfuscation", True)

    def _emit(self, kind: str, *, role: Literal["frame", "end"] = "frame", **fields: Any) -> None:
        body = {"type": kind, "sequence_number": len(self.events), **fields}
        self.events.append(Event(b"event: %b\ndata: %b\n\n" % (kind.encode(), to_json(body)), role))

    def _emit_deltas(self, kind: str, pieces: Sequence[str], **fields: Any) -> None:
        # One line per token: what the pieces have in common is made once.
        head = b'event: %b\ndata: {"type":"%b","sequence_number":' % (kind.encode(), kind.encode())
        tail = to_json(fields)[1:-1]
        for piece in pieces:
            line = b'%b%d,%b,"delta":%b' % (head, len(self.events), tail, to_json(piece))
            if self._obfuscate:
                line += b',"obfuscation":"%b"' % _PADDING[len(piece) % 16 :].encode()
            self.events.append(Event(line + b"}\n\n", "delta"))

    def opening(self) -> None:
        """The events that open the response."""
        for kind in ("response.created", "response.in_progress"):
            self._emit(kind, response=self._reply.response("in_progress"))

    def reasoning(self) -> None:
        """The reasoning item and the summary in it."""
        reply = self._reply
        if not reply.deltas.reasoning:
            return
        self._item("added", reply.open_reasoning())
        where: dict[str, Any] = {
            "item_id": reply.reasoning_id,
            "output_index": self._output_index,
            "summary_index": 0,
        }
        text = reply.deltas.reasoning_text
        self._emit("response.reasoning_summary_part.added", **where, part=_summary(""))
        self._emit_deltas("response.reasoning_summary_text.delta", reply.deltas.reasoning, **where)
        self._emit("response.reasoning_summary_text.done", **where, text=text)
        self._emit("response.reasoning_summary_part.done", **where, part=_summary(text))
        self._item("done", reply.reasoning_item())

    def commentary(self) -> None:
        """The message of commentary, with its text."""
        reply = self._reply
        if reply.commentary is not None:
            self._said(reply.open_commentary(), words(reply.commentary), reply.commentary_item())

    def provider_calls(self) -> None:
        """The calls that the provider carries out itself: each item, with its progress events."""
        for played in self._reply.played:
            self._item("added", played.opened)
            for step in played.steps:
                self._emit(step, item_id=played.done["id"], output_index=self._output_index)
            self._item("done", played.done)

    def message(self) -> None:
        """The message item and the text in it."""
        reply = self._reply
        if reply.deltas.text is not None:
            self._said(reply.open_message(), reply.deltas.text, reply.message_item())

    def _said(self, opened: dict[str, Any], pieces: Sequence[str], done: dict[str, Any]) -> None:
        self._item("added", opened)
        where: dict[str, Any] = {
            "item_id": done["id"],
            "output_index": self._output_index,
            "content_index": 0,
        }
        text = "".join(pieces)
        self._emit("response.content_part.added", **where, part=_text(""))
        self._emit_deltas("response.output_text.delta", pieces, **where, logprobs=[])
        self._emit("response.output_text.done", **where, text=text, logprobs=[])
        self._emit("response.content_part.done", **where, part=_text(text))
        self._item("done", done)

    def calls(self) -> None:
        """The function calls: one after the other, or all open at the same time."""
        reply, first = self._reply, self._output_index
        count = len(reply.deltas.calls)
        if not reply.deltas.interleave:
            for index, (_, pieces) in enumerate(reply.deltas.calls):
                self._item("added", reply.open_call(index))
                self._arguments(index, self._output_index, pieces)
                self._close_call(index)
            return
        for index in range(count):
            self._output_index = first + index
            self._item("added", reply.open_call(index))
        for index, piece in reply.deltas.argument_order():
            self._arguments(index, first + index, [piece])
        self._output_index = first
        for index in range(count):
            self._close_call(index)

    def _arguments(self, index: int, output_index: int, pieces: Sequence[str]) -> None:
        kind, item_id = "response.function_call_arguments.delta", self._reply.call_ids[index]
        self._emit_deltas(kind, pieces, item_id=item_id, output_index=output_index)

    def _close_call(self, index: int) -> None:
        item = self._reply.call_item(index)
        where = {"item_id": item["id"], "output_index": self._output_index}
        self._emit("response.function_call_arguments.done", **where, arguments=item["arguments"])
        self._item("done", item)

    def _item(self, verb: Literal["added", "done"], item: dict[str, Any]) -> None:
        self._emit(f"response.output_item.{verb}", output_index=self._output_index, item=item)
        self._output_index += verb == "done"

    def ending(self) -> None:
        """The final event, with the whole response."""
        response = self._reply.ended()
        self._emit(f"response.{response['status']}", role="end", response=response)

    def fail(self, fault: Fault) -> None:
        """Drop the events after the fault, and end with a failure."""
        del self.events[strike_index(self.events, fault.after) :]
        response = self._reply.failed(fault)
        if fault.kind == "error_event":
            # The reference shows code and message at the top level; recorded streams have them in `error`.
            error = error_object(500, response["error"]["message"], code=response["error"]["code"])
            self._emit("error", role="end", error=error)
        self._emit("response.failed", role="end", response=response)


def _text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _summary(text: str) -> dict[str, Any]:
    return {"type": "summary_text", "text": text}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
