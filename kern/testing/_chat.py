"""Answers in OpenAI's Chat Completions protocol.

Source: https://platform.openai.com/docs/api-reference/chat and .../chat-streaming, and the types of the
official Python client, against which the tests validate every chunk.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any
from uuid import uuid4

from pydantic_core import to_json

from kern.testing._events import Deltas, Event, deltas_of, strike_index, usage_of
from kern.testing._provider_calls import executed_tools
from kern.testing._refusal import Refused, error_object
from kern.testing.answers import Answer
from kern.testing.request import ReceivedRequest
from kern.usage import Usage

_FINISH = {"max_output_tokens": "length", "content_filter": "content_filter"}


def whole(request: ReceivedRequest, answer: Answer) -> bytes:
    """The answer as one JSON body.

    Raises:
        Refused: The answer's fault cannot be played without a stream.
    """
    fault = answer.fault
    if fault is not None and fault.kind in ("failed", "error_event"):
        raise Refused(500, fault.message, code=fault.code, model=request.model)
    deltas = deltas_of(_without_commentary(answer))
    message: dict[str, Any] = {"role": "assistant", "content": deltas.content, "refusal": None}
    if deltas.reasoning:
        message["reasoning_content"] = deltas.reasoning_text
    if answer.provider_calls:
        message["executed_tools"] = executed_tools(answer.provider_calls)
    if deltas.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": "".join(pieces)},
            }
            for call, pieces in deltas.calls
        ]
    message["annotations"] = []
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(answer, deltas)}
    usage = _usage(usage_of(answer, deltas, request))
    return to_json({**_base(request, "chat.completion"), "choices": [choice], "usage": usage})


def stream(request: ReceivedRequest, answer: Answer) -> list[Event]:
    """The answer as server-sent events."""
    deltas = deltas_of(_without_commentary(answer))
    options = request.body.get("stream_options") or {}
    out = _Stream(request, with_usage=bool(options.get("include_usage")))
    opening: dict[str, Any] = {"role": "assistant", "content": None if deltas.text is None else ""}
    out.choice(opening | {"refusal": None})
    for piece in deltas.reasoning:
        out.choice({"reasoning_content": piece}, kind="delta")
    for told in executed_tools(answer.provider_calls):
        out.choice({"executed_tools": [{name: told[name] for name in ("index", "type", "arguments")}]})
        out.choice({"executed_tools": [told]})
    for piece in deltas.text or ():
        out.choice({"content": piece}, kind="delta")
    out.calls(deltas)
    out.choice({}, finish=_finish(answer, deltas), kind="end")
    if options.get("include_usage"):
        out.chunk([], usage=_usage(usage_of(answer, deltas, request)))
    out.events.append(Event(b"data: [DONE]\n\n"))
    fault = answer.fault
    if fault is not None and fault.kind in ("failed", "error_event"):
        del out.events[strike_index(out.events, fault.after) :]
        error = error_object(500, fault.message, code=fault.code, model=request.model)
        out.events.append(Event(b"data: %b\n\n" % to_json({"error": error}), "end"))
    return out.events


class _Stream:
    """Writes the chunks."""

    def __init__(self, request: ReceivedRequest, *, with_usage: bool) -> None:
        self.events: list[Event] = []
        # One line per token: what the chunks have in common is made once.
        self._head = b"data: %b," % to_json(_base(request, "chat.completion.chunk"))[:-1]
        self._tail = b',"usage":null}\n\n' if with_usage else b"}\n\n"

    def choice(self, delta: dict[str, Any], *, finish: str | None = None, kind: Any = "frame") -> None:
        """A chunk with a delta."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        self.events.append(Event(b'%b"choices":[%b]%b' % (self._head, to_json(choice), self._tail), kind))

    def chunk(self, choices: list[Any], **fields: Any) -> None:
        """A chunk without a delta."""
        body = to_json({"choices": choices, **fields})[1:]
        self.events.append(Event(b"%b%b\n\n" % (self._head, body)))

    def calls(self, deltas: Deltas) -> None:
        """The calls' ids and names, and their arguments by index."""
        opened: set[int] = set()

        def open_call(index: int) -> None:
            call = deltas.calls[index][0]
            function = {"name": call.name, "arguments": ""}
            head = {"index": index, "id": call.id, "type": "function", "function": function}
            self.choice({"tool_calls": [head]})
            opened.add(index)

        for index, piece in deltas.argument_order():
            for missing in range(index + 1):
                if missing not in opened:
                    open_call(missing)
            self.choice({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}, kind="delta")
        for index in range(len(opened), len(deltas.calls)):
            open_call(index)


def _base(request: ReceivedRequest, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": request.model,
        "service_tier": "default",
        "system_fingerprint": "fp_kern",
    }


def _without_commentary(answer: Answer) -> Answer:
    texts = [text for text in (answer.commentary, answer.text) if text]
    return answer if answer.commentary is None else replace(answer, commentary=None, text="\n\n".join(texts))


def _finish(answer: Answer, deltas: Deltas) -> str:
    fault = answer.fault
    if fault is not None and fault.kind == "incomplete":
        return _FINISH[fault.code or "max_output_tokens"]
    if answer.finish_reason is not None:
        return answer.finish_reason
    return "tool_calls" if deltas.calls else "stop"


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
