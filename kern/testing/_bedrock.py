"""Answers in the protocol of Amazon Bedrock's Converse API, whose stream consists of binary messages.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html, and
https://smithy.io/2.0/aws/amazon-eventstream.html. The tests read every answer with botocore's client.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal
from uuid import uuid4

from pydantic_core import from_json, to_json

from kern.testing._events import Deltas, Event, deltas_of, strike_index, usage_of
from kern.testing._provider_calls import converse_blocks
from kern.testing._refusal import Refused
from kern.testing.answers import Answer
from kern.testing.request import ReceivedRequest
from kern.usage import Usage

FRAMES = "application/vnd.amazon.eventstream"
SEAL = b"kern-reasoning-"
"""What the signatures of this server begin with, under their base64."""

_STOP = {"max_output_tokens": "max_tokens", "content_filter": "content_filtered"}
_ERRORS: dict[int, tuple[str, str]] = {
    400: ("ValidationException", "The provided request is not valid"),
    401: ("UnrecognizedClientException", "The security token included in the request is invalid."),
    403: ("AccessDeniedException", "You don't have access to the model with the specified model ID."),
    404: (
        "ResourceNotFoundException",
        "Could not resolve the foundation model from the model identifier: {model}",
    ),
    408: ("ModelTimeoutException", "Model has timed out in processing the request. Try your request again."),
    424: ("ModelErrorException", "The system encountered an unexpected error during processing."),
    429: ("ThrottlingException", "Too many requests, please wait before trying again."),
    500: ("InternalServerException", "The system encountered an unexpected error during processing."),
    503: ("ServiceUnavailableException", "Bedrock is unable to process your request."),
}
_STRING = 7
"""The type of a header's value."""


def whole(request: ReceivedRequest, answer: Answer) -> bytes:
    """The answer as one JSON body.

    Raises:
        Refused: The answer's fault cannot be played without a stream.
    """
    fault = answer.fault
    if fault is not None and fault.kind in ("failed", "error_event"):
        raise Refused(500, fault.message, model=request.model)
    deltas = _deltas(answer)
    content: list[dict[str, Any]] = []
    if deltas.reasoning:
        told = {"text": deltas.reasoning_text, "signature": _signature()}
        content.append({"reasoningContent": {"reasoningText": told}})
    for played in answer.provider_calls:
        use, result, found = converse_blocks(played)
        content.append({"toolUse": {**use, "input": from_json(played.arguments or "{}")}})
        content.append({"toolResult": {**result, "content": found}})
    if deltas.content:
        content.append({"text": deltas.content})
    content += [
        {"toolUse": {"toolUseId": call.id, "name": call.name, "input": from_json(call.arguments or "{}")}}
        for call, _ in deltas.calls
    ]
    return to_json(
        {
            "metrics": {"latencyMs": 1},
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": _stop_reason(answer, deltas),
            "usage": _usage(usage_of(answer, deltas, request)),
        }
    )


def stream(request: ReceivedRequest, answer: Answer) -> list[Event]:
    """The answer as messages of an event stream."""
    deltas = _deltas(answer)
    events = [_event("messageStart", {"role": "assistant"})]
    index = 0
    if deltas.reasoning:
        events += [_delta(index, {"reasoningContent": {"text": piece}}) for piece in deltas.reasoning]
        events += [_delta(index, {"reasoningContent": {"signature": _signature()}}, "frame"), _stop(index)]
        index += 1
    for played in answer.provider_calls:
        use, result, found = converse_blocks(played)
        events += [
            _event("contentBlockStart", {"contentBlockIndex": index, "start": {"toolUse": use}}),
            _delta(index, {"toolUse": {"input": played.arguments or "{}"}}),
            _stop(index),
            _event("contentBlockStart", {"contentBlockIndex": index + 1, "start": {"toolResult": result}}),
            *([_delta(index + 1, {"toolResult": found})] if found else []),
            _stop(index + 1),
        ]
        index += 2
    if deltas.content:
        events += [_delta(index, {"text": piece}) for piece in deltas.text or () if piece]
        events.append(_stop(index))
        index += 1
    for number, (call, _) in enumerate(deltas.calls):
        start = {"toolUse": {"toolUseId": call.id, "name": call.name}}
        events.append(_event("contentBlockStart", {"contentBlockIndex": index + number, "start": start}))
    for number, piece in deltas.argument_order():
        events.append(_delta(index + number, {"toolUse": {"input": piece}}))
    events += [_stop(index + number) for number in range(len(deltas.calls))]
    events.append(_event("messageStop", {"stopReason": _stop_reason(answer, deltas)}, "end"))
    usage = _usage(usage_of(answer, deltas, request))
    events.append(_event("metadata", {"usage": usage, "metrics": {"latencyMs": 1}}, "end"))
    fault = answer.fault
    if fault is not None and fault.kind in ("failed", "error_event"):
        del events[strike_index(events, fault.after) :]
        events.append(_exception(503, fault.message))
    return events


def given_key(headers: Mapping[str, str]) -> str:
    """The API key of a request, or the id of the access key that signed it."""
    given = headers.get("authorization", "")
    if given.startswith("Bearer "):
        return given.removeprefix("Bearer ").strip()
    return given.partition("Credential=")[2].partition("/")[0]


def refusal(refused: Refused) -> bytes:
    """The JSON body of an error."""
    return to_json({"message": refused.message or _error(refused.status)[1].format(model=refused.model)})


def refusal_headers(refused: Refused) -> Mapping[str, str]:
    """The header that names an error."""
    kind = _error(refused.status)[0]
    return {"x-amzn-errortype": f"{kind}:http://internal.amazon.com/coral/com.amazon.bedrock/"}


def aws_headers() -> Mapping[str, str]:
    """The headers of every answer."""
    return {"x-amzn-requestid": str(uuid4())}


def _error(status: int) -> tuple[str, str]:
    return _ERRORS.get(status) or _ERRORS[500 if status >= 500 else 400]


def _deltas(answer: Answer) -> Deltas:
    if answer.commentary is not None:
        texts = [text for text in (answer.commentary, answer.text) if text]
        answer = replace(answer, commentary=None, text="\n\n".join(texts))
    return deltas_of(answer)


def _stop_reason(answer: Answer, deltas: Deltas) -> str:
    fault = answer.fault
    if fault is not None and fault.kind == "incomplete":
        return _STOP[fault.code or "max_output_tokens"]
    return answer.finish_reason or ("tool_use" if deltas.calls else "end_turn")


def _usage(usage: Usage) -> dict[str, int]:
    """The counts. Unlike Kern, Bedrock does not include cached tokens in `inputTokens`."""
    read, written = usage.cached_tokens, usage.cache_write_tokens
    counts = {
        "inputTokens": max(usage.input_tokens - read - written, 0),
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.total_tokens or usage.input_tokens + usage.output_tokens,
    }
    return {
        **counts,
        **({"cacheReadInputTokens": read, "cacheWriteInputTokens": written} if read or written else {}),
    }


def _signature() -> str:
    return base64.b64encode(SEAL + uuid4().hex.encode()).decode()


def _delta(index: int, delta: dict[str, Any], kind: Literal["frame", "delta"] = "delta") -> Event:
    return _event("contentBlockDelta", {"contentBlockIndex": index, "delta": delta}, kind)


def _stop(index: int) -> Event:
    return _event("contentBlockStop", {"contentBlockIndex": index})


def _event(name: str, body: dict[str, Any], kind: Literal["frame", "delta", "end"] = "frame") -> Event:
    headers = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    return Event(_message(headers, to_json(body)), kind)


def _exception(status: int, message: str | None) -> Event:
    name, usual = _error(status)
    name = name[:1].lower() + name[1:]
    headers = {":exception-type": name, ":content-type": "application/json", ":message-type": "exception"}
    return Event(_message(headers, to_json({"message": message or usual})), "end")


def _message(headers: Mapping[str, str], payload: bytes) -> bytes:
    """A message: its lengths and their checksum, the headers, the payload, and a checksum of everything."""
    block = b"".join(
        bytes([len(name)]) + name.encode() + struct.pack("!BH", _STRING, len(value)) + value.encode()
        for name, value in headers.items()
    )
    lengths = struct.pack("!II", len(block) + len(payload) + 16, len(block))
    data = lengths + struct.pack("!I", zlib.crc32(lengths)) + block + payload
    return data + struct.pack("!I", zlib.crc32(data))
