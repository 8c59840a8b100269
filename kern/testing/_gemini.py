"""Answers in the protocol of Google's Gemini API.

Source: https://ai.google.dev/api/generate-content, and the types of the official Python client, with which
the tests read every answer.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal
from uuid import uuid4

from pydantic_core import from_json, to_json

from kern.messages import ToolCall
from kern.models.google.generation import wants_signatures
from kern.testing._events import Deltas, Event, deltas_of, strike_index, usage_of
from kern.testing._provider_calls import gemini_metadata, gemini_parts
from kern.testing._refusal import Refused
from kern.testing.answers import Answer
from kern.testing.request import ReceivedRequest
from kern.usage import Usage

SEAL = b"kern-thought-"
"""What the signatures of this server begin with, under their base64."""

_FINISH = {"max_output_tokens": "MAX_TOKENS", "content_filter": "SAFETY"}
_WORDS: dict[int, tuple[str, str]] = {
    400: ("INVALID_ARGUMENT", "Request contains an invalid argument."),
    401: ("UNAUTHENTICATED", "API key not valid. Please pass a valid API key."),
    403: ("PERMISSION_DENIED", "The caller does not have permission"),
    404: (
        "NOT_FOUND",
        "models/{model} is not found for API version v1beta, or is not supported for generateContent. Call "
        "ModelService.ListModels to see the list of available models and their supported methods.",
    ),
    429: ("RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
    500: (
        "INTERNAL",
        "An internal error has occurred. Please retry or report in https://discuss.ai.google.dev/",
    ),
    503: ("UNAVAILABLE", "The model is overloaded. Please try again later."),
    504: ("DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
}


def whole(request: ReceivedRequest, answer: Answer) -> bytes:
    """The answer as one JSON body.

    Raises:
        Refused: The answer's fault cannot be played without a stream.
    """
    fault = answer.fault
    if fault is not None and fault.kind in ("failed", "error_event"):
        raise Refused(500, fault.message, model=request.model)
    deltas = _deltas(answer)
    parts: list[dict[str, Any]] = []
    if deltas.reasoning:
        parts.append({"text": deltas.reasoning_text, "thought": True})
    parts += gemini_parts(answer.provider_calls)
    if deltas.content:
        parts.append({"text": deltas.content})
    parts += _calls(request, deltas)
    finish = _finish(answer)
    beside = gemini_metadata(answer.provider_calls)
    return to_json(_chunk(parts, finish, _frame(request, usage_of(answer, deltas, request)), beside))


def stream(request: ReceivedRequest, answer: Answer) -> list[Event]:
    """The answer as server-sent events. A call is one event, with all of its arguments."""
    deltas = _deltas(answer)
    frame = _frame(request, usage_of(answer, deltas, request))
    parts: list[dict[str, Any]] = [
        *({"text": piece, "thought": True} for piece in deltas.reasoning),
        *gemini_parts(answer.provider_calls),
        *({"text": piece} for piece in deltas.text or () if piece),
        *_calls(request, deltas),
    ]
    events = [_event(_chunk([part], None, frame), "delta") for part in parts]
    beside = gemini_metadata(answer.provider_calls)
    events.append(_event(_chunk([{"text": ""}], _finish(answer), frame, beside), "end"))
    fault = answer.fault
    if fault is not None and fault.kind in ("failed", "error_event"):
        del events[strike_index(events, fault.after) :]
        error = _error(Refused(503, fault.message, model=request.model))
        events.append(_event(error, "end"))
    return events


def given_key(headers: Mapping[str, str]) -> str:
    """The key or the token of a request."""
    token = headers.get("authorization", "").removeprefix("Bearer ")
    return headers.get("x-goog-api-key", token).strip()


def refusal(refused: Refused) -> bytes:
    """The JSON body of an error."""
    return to_json(_error(refused), indent=2)


def google_headers() -> Mapping[str, str]:
    """The headers of every answer."""
    return {"server": "scaffolding on HTTPServer2", "server-timing": "gfet4t7; dur=1"}


def _error(refused: Refused) -> dict[str, Any]:
    fallback = (500, 400)[refused.status < 500]
    word, usual = _WORDS.get(refused.status, _WORDS[fallback])
    message = refused.message or usual.format(model=refused.model)
    return {"error": {"code": refused.status, "message": message, "status": word}}


def _deltas(answer: Answer) -> Deltas:
    """The answer in deltas. A call that a limit cuts is missing."""
    if answer.commentary is not None:
        texts = [text for text in (answer.commentary, answer.text) if text]
        answer = replace(answer, commentary=None, text="\n\n".join(texts))
    deltas = deltas_of(answer)
    whole_calls = [(call, pieces) for call, pieces in deltas.calls if "".join(pieces) == call.arguments]
    return replace(deltas, calls=whole_calls)


def _calls(request: ReceivedRequest, deltas: Deltas) -> list[dict[str, Any]]:
    """The calls: since Gemini 3 they have ids, and the first of them a signature."""
    signed = wants_signatures(request.model)
    parts: list[dict[str, Any]] = []
    for call, _ in deltas.calls:
        part: dict[str, Any] = {"functionCall": {"name": call.name, "args": _arguments(call)}}
        if signed:
            part["functionCall"]["id"] = call.id
            if not parts:
                part["thoughtSignature"] = base64.b64encode(SEAL + uuid4().hex.encode()).decode()
        parts.append(part)
    return parts


def _arguments(call: ToolCall) -> Any:
    return from_json(call.arguments or "{}")


def _frame(request: ReceivedRequest, usage: Usage) -> dict[str, Any]:
    """The fields of every chunk, beside its candidate."""
    counts = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": max(usage.output_tokens - usage.reasoning_tokens, 0),
        "totalTokenCount": usage.total_tokens or usage.input_tokens + usage.output_tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage.input_tokens}],
    }
    if usage.cached_tokens:
        counts["cachedContentTokenCount"] = usage.cached_tokens
    if usage.reasoning_tokens:
        counts["thoughtsTokenCount"] = usage.reasoning_tokens
    return {"usageMetadata": counts, "modelVersion": request.model, "responseId": uuid4().hex[:22]}


def _chunk(
    parts: Sequence[dict[str, Any]],
    finish: str | None,
    frame: dict[str, Any],
    beside: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    content: dict[str, Any] = {"parts": parts, "role": "model"} if parts else {"role": "model"}
    candidate: dict[str, Any] = {"content": content, "index": 0, **(beside or {})}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], **frame}


def _finish(answer: Answer) -> str:
    fault = answer.fault
    if fault is not None and fault.kind == "incomplete":
        return _FINISH[fault.code or "max_output_tokens"]
    return answer.finish_reason or "STOP"


def _event(body: dict[str, Any], kind: Literal["delta", "end"]) -> Event:
    return Event(b"data: %b\r\n\r\n" % to_json(body), kind)
