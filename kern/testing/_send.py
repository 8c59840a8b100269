"""Sends an answer over a connection, with its delays and its fault."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn
from uuid import uuid4

from kern.testing._events import Event, strike_index
from kern.testing._http import HttpConnection, HttpRequest
from kern.testing._refusal import Refused, bearer_key, error_body
from kern.testing.answers import Answer, Fault
from kern.testing.request import ReceivedRequest

_BATCH = 65_536
"""Bytes after which a stream looks whether the client keeps up."""


def openai_headers() -> Mapping[str, str]:
    """The headers of every answer of OpenAI's."""
    return {
        "openai-version": "2020-10-01",
        "openai-processing-ms": "1",
        "x-request-id": f"req_{uuid4().hex}",
    }


def _no_headers(refused: Refused) -> Mapping[str, str]:
    return {}


@dataclass(slots=True, frozen=True)
class WireProtocol:
    """A protocol: decodes HTTP requests, and encodes an answer as events or as one body.

    Args:
        matches: Whether a path, without what stands before it in every address, is this protocol's.
        decode: Reads a request; raises `Refused` for what the real service refuses.
        stream: The answer as events of a stream.
        whole: The answer as one JSON body.
        key: The key that a request carries; empty, if there is none.
        refusal: The body of an error.
        headers: The headers of every answer.
        refusal_headers: Further headers of an error.
        stream_type: The content type of a stream.
    """

    matches: Callable[[str], bool]
    decode: Callable[[HttpRequest], ReceivedRequest]
    stream: Callable[[ReceivedRequest, Answer], list[Event]]
    whole: Callable[[ReceivedRequest, Answer], bytes]
    key: Callable[[Mapping[str, str]], str] = bearer_key
    refusal: Callable[[Refused], bytes] = error_body
    headers: Callable[[], Mapping[str, str]] = openai_headers
    refusal_headers: Callable[[Refused], Mapping[str, str]] = _no_headers
    stream_type: str = "text/event-stream; charset=utf-8"


async def send_answer(
    out: HttpConnection, protocol: WireProtocol, request: ReceivedRequest, answer: Answer
) -> None:
    """Send the answer, with its delays and its fault.

    Raises:
        Refused: The answer is an error status.
    """
    if answer.latency > 0:
        await asyncio.sleep(answer.latency)
    fault = answer.fault
    if fault is not None and fault.kind == "status":
        _send_status(out, protocol, fault, request, answer.headers)
    elif fault is not None and fault.kind == "disconnect":
        out.close()
    elif fault is not None and fault.kind == "hang":
        await _forever()
    elif request.stream:
        await _send_stream(out, protocol, protocol.stream(request, answer), answer)
    else:
        await _send_body(out, protocol, protocol.whole(request, answer), answer)


def _send_status(
    out: HttpConnection,
    protocol: WireProtocol,
    fault: Fault,
    request: ReceivedRequest,
    headers: Mapping[str, str],
) -> None:
    refused = Refused(fault.http_status, fault.message, code=fault.code, model=request.model)
    body = protocol.refusal(refused) if fault.body is None else fault.body
    told = {**protocol.headers(), **protocol.refusal_headers(refused), **headers, **fault.headers}
    send_whole(out, fault.http_status, body, told)


def send_whole(out: HttpConnection, status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Send a JSON body."""
    out.start(status, {"content-type": "application/json", **headers}, length=len(body))
    out.send(body)
    out.finish()


async def _send_body(out: HttpConnection, protocol: WireProtocol, body: bytes, answer: Answer) -> None:
    """Send one JSON body; a fault that counts deltas hits its middle."""
    fault = answer.fault
    length = len(body)
    if fault is not None and fault.kind in ("cut", "stall", "malformed"):
        body = body[: len(body) // 2 if fault.at_byte is None else fault.at_byte]
        if fault.kind == "malformed" or (fault.kind == "cut" and fault.clean):
            length = len(body)
    out.start(
        200,
        {"content-type": "application/json", **protocol.headers(), **answer.headers},
        length=None if answer.split is not None else length,
    )
    await _send_pieces(out, answer.split(body) if answer.split is not None else (body,), answer.pace)
    await _end(out, fault)


async def _send_stream(
    out: HttpConnection, protocol: WireProtocol, events: list[Event], answer: Answer
) -> None:
    """Send server-sent events, each as one chunk, or as `split` cuts them."""
    fault = answer.fault
    if fault is not None and fault.at_byte is None:
        events = _struck(events, fault)
    kind = {"content-type": protocol.stream_type}
    out.start(200, {**kind, **protocol.headers(), **answer.headers}, length=None)
    at_byte = fault.at_byte if fault is not None else None
    if answer.split is not None or at_byte is not None:
        body = b"".join([event.data for event in events])[:at_byte]
        await _send_pieces(out, answer.split(body) if answer.split is not None else (body,), answer.pace)
    elif answer.pace > 0:
        for event in events:
            if event.kind == "delta":
                await asyncio.sleep(answer.pace)
            out.send(event.data)
            await out.drain()
    else:
        await _send_pieces(out, (event.data for event in events), 0)
    await _end(out, fault)


def _struck(events: list[Event], fault: Fault) -> list[Event]:
    if fault.kind not in ("cut", "stall", "malformed"):
        return events
    index = strike_index(events, fault.after)
    if fault.kind != "malformed" or index == len(events):
        return events[:index]
    line = events[index].data.rstrip(b"\n")
    broken = Event(line[: -len(line) // 4] + b"\n\n", "delta")
    return [*events[:index], broken, *events[index + 1 :]]


async def _send_pieces(out: HttpConnection, pieces: Iterable[bytes], pace: float) -> None:
    batch: list[bytes] = []
    size = 0
    for piece in pieces:
        if pace > 0:
            out.send(piece)
            await asyncio.sleep(pace)
            continue
        batch.append(piece)
        size += len(piece)
        if size >= _BATCH:
            out.send(*batch)
            await out.drain()
            batch, size = [], 0
    out.send(*batch)
    await out.drain()


async def _end(out: HttpConnection, fault: Fault | None) -> None:
    if fault is not None and fault.kind == "stall":
        await _forever()
    if fault is not None and fault.kind == "cut" and not fault.clean:
        out.close()
    else:
        out.finish()


async def _forever() -> NoReturn:
    """Wait until the client disconnects, which cancels this."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody resolves this future")
