"""Answers in the protocol of Anthropic's Messages API.

Source: https://platform.claude.com/docs/en/api/messages and .../build-with-claude/streaming, and the types of
the official Python client, with which the tests read every answer.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal
from uuid import uuid4

from pydantic_core import from_json, to_json

from kern.messages import ToolCall
from kern.testing._events import Deltas, Event, deltas_of, strike_index, usage_of
from kern.testing._provider_calls import message_blocks, searches
from kern.testing._refusal import Refused, bearer_key
from kern.testing.answers import Answer
from kern.testing.request import ReceivedRequest
from kern.usage import Usage

_SEAL = b"kern-thought-"
_STOPS = {"max_output_tokens": "max_tokens", "content_filter": "refusal"}
_WORDS: dict[int, tuple[str, str]] = {
    400: ("invalid_request_error", "Invalid request."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "There is an issue with your billing or payment information."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "model: {model}"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your account's rate limit."),
    500: ("api_error", "Internal server error"),
    504: ("timeout_error", "The request timed out."),
    529: ("overloaded_error", "Overloaded"),
}
_STATUS_OF_CODE = {"overloaded_error": 529, "rate_limit_error": 429, "rate_limit_exceeded": 429}


def signature_of(thinking: str) -> str:
    """The signature that this server puts on a block of thinking."""
    return base64.b64encode(_SEAL + hashlib.sha256(thinking.encode()).digest()).decode()


def is_ours(signature: str) -> bool:
    """Whether this server made a signature."""
    return signature.startswith(base64.b64encode(_SEAL).decode()[:16])


def whole(request: ReceivedRequest, answer: Answer) -> bytes:
    """The answer as one JSON body.

    Raises:
        Refused: The answer's fault cannot be played without a stream.
    """
    fault = answer.fault
    if fault is not None and fault.kind in ("failed", "error_event"):
        raise _failure(answer)
    deltas = _deltas(answer)
    content: list[dict[str, Any]] = []
    if deltas.reasoning:
        text = deltas.reasoning_text
        content.append({"type": "thinking", "thinking": text, "signature": signature_of(text)})
    content += [block for call in answer.provider_calls for block in message_blocks(call)]
    if deltas.content:
        content.append({"type": "text", "text": deltas.content, "citations": None})
    for call, pieces in deltas.calls:
        content.append(_tool_use(call, _arguments("".join(pieces))))
    usage = _usage(usage_of(answer, deltas, request), answer)
    return to_json({**_head(request), "content": content, **_stop(answer, deltas), "usage": usage})


def stream(request: ReceivedRequest, answer: Answer) -> list[Event]:
    """The answer as server-sent events."""
    deltas = _deltas(answer)
    usage = _usage(usage_of(answer, deltas, request), answer)
    out = _Stream()
    nothing = {"stop_reason": None, "stop_sequence": None}
    begun = {**_head(request), "content": [], **nothing, "usage": {**usage, "output_tokens": 1}}
    out.event("message_start", message=begun)
    out.event("ping")
    if deltas.reasoning:
        block = out.open({"type": "thinking", "thinking": "", "signature": ""})
        for piece in deltas.reasoning:
            out.delta(block, {"type": "thinking_delta", "thinking": piece})
        signature = signature_of(deltas.reasoning_text)
        out.delta(block, {"type": "signature_delta", "signature": signature}, "frame")
        out.close(block)
    out.provider_calls(answer)
    if deltas.content:
        block = out.open({"type": "text", "text": ""})
        for piece in deltas.text or ():
            out.delta(block, {"type": "text_delta", "text": piece})
        out.close(block)
    out.calls(deltas)
    out.event("message_delta", "end", delta=_stop(answer, deltas), usage=usage)
    out.event("message_stop")
    fault = answer.fault
    if fault is not None and fault.kind in ("failed", "error_event"):
        del out.events[strike_index(out.events, fault.after) :]
        out.event("error", "end", error=_error(_failure(answer))["error"])
    return out.events


def given_key(headers: Mapping[str, str]) -> str:
    """The key of a request, in either of the two headers that the service reads."""
    return headers.get("x-api-key", "").strip() or bearer_key(headers)


def refusal(refused: Refused) -> bytes:
    """The JSON body of an error."""
    return to_json(_error(refused))


def anthropic_headers() -> Mapping[str, str]:
    """The headers of every answer."""
    return {"request-id": f"req_{uuid4().hex[:24]}", "anthropic-organization-id": "kern"}


class _Stream:
    """Writes the events."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._blocks = 0

    def event(self, name: str, kind: Literal["frame", "delta", "end"] = "frame", /, **fields: Any) -> None:
        """One event."""
        data = to_json({"type": name, **fields})
        self.events.append(Event(b"event: %b\ndata: %b\n\n" % (name.encode(), data), kind))

    def open(self, block: dict[str, Any]) -> int:
        """The start of a block; returns its index."""
        self.event("content_block_start", index=self._blocks, content_block=block)
        self._blocks += 1
        return self._blocks - 1

    def delta(self, block: int, delta: dict[str, Any], kind: Literal["frame", "delta"] = "delta") -> None:
        """A delta of a block."""
        self.event("content_block_delta", kind, index=block, delta=delta)

    def close(self, block: int) -> None:
        """The end of a block."""
        self.event("content_block_stop", index=block)

    def provider_calls(self, answer: Answer) -> None:
        """The calls that the service carries out itself, each with its result."""
        for call in answer.provider_calls:
            use, result = message_blocks(call)
            block = self.open({**use, "input": {}})
            self.delta(block, {"type": "input_json_delta", "partial_json": call.arguments or "{}"}, "frame")
            self.close(block)
            self.close(self.open(result))

    def calls(self, deltas: Deltas) -> None:
        """The calls, one after the other; calls whose deltas alternate are open at the same time."""
        if not deltas.interleave:
            for call, pieces in deltas.calls:
                block = self.open(_tool_use(call, {}))
                for piece in pieces:
                    self.delta(block, {"type": "input_json_delta", "partial_json": piece})
                self.close(block)
            return
        blocks = [self.open(_tool_use(call, {})) for call, _ in deltas.calls]
        for index, piece in deltas.argument_order():
            self.delta(blocks[index], {"type": "input_json_delta", "partial_json": piece})
        for block in blocks:
            self.close(block)


def _deltas(answer: Answer) -> Deltas:
    """The answer in deltas; commentary is the beginning of the text."""
    if answer.commentary is not None:
        texts = [text for text in (answer.commentary, answer.text) if text]
        answer = replace(answer, commentary=None, text="\n\n".join(texts))
    return deltas_of(answer)


def _head(request: ReceivedRequest) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "container": None,
    }


def _tool_use(call: ToolCall, arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": arguments}


def _arguments(text: str) -> Any:
    try:
        return from_json(text or "{}")
    except ValueError:
        return from_json(text, allow_partial=True)


def _stop(answer: Answer, deltas: Deltas) -> dict[str, Any]:
    fault = answer.fault
    if fault is not None and fault.kind == "incomplete":
        reason = _STOPS[fault.code or "max_output_tokens"]
    else:
        reason = answer.finish_reason or ("tool_use" if deltas.calls else "end_turn")
    return {"stop_reason": reason, "stop_sequence": None, "stop_details": None}


def _usage(usage: Usage, answer: Answer) -> dict[str, Any]:
    cached = usage.cached_tokens + usage.cache_write_tokens
    return {
        "input_tokens": max(usage.input_tokens - cached, 0),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        "service_tier": "standard",
        "server_tool_use": {"web_search_requests": found}
        if (found := searches(answer.provider_calls))
        else None,
    }


def _failure(answer: Answer) -> Refused:
    fault = answer.fault
    assert fault is not None
    return Refused(_STATUS_OF_CODE.get(fault.code or "", 500), fault.message)


def _error(refused: Refused) -> dict[str, Any]:
    fallback = 400 if refused.status < 500 else 500
    kind, usual = _WORDS.get(refused.status, _WORDS[fallback])
    message = refused.message or usual.format(model=refused.model)
    error = {"type": kind, "message": message}
    return {"type": "error", "error": error, "request_id": f"req_{uuid4().hex[:24]}"}
