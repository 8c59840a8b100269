"""The body of an answer: decompressed, bounded, and read into a reader."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kern.models._failures import Origin, StreamFault, of_exception
from kern.models._inflate import CutError, Inflated, encodings
from kern.models.base import DeltaSink, ModelResponse

MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_ANSWER_BYTES = 256 * 1024 * 1024

FRAMES = "application/vnd.amazon.eventstream"
"""The type of a stream whose events are binary messages, and not lines; its reader bounds their size."""
_LINES = "text/event-stream"

_TAIL_TICK = 0.1  # seconds
_TAIL_TICKS = 5
_LONGEST_ERROR_BODY = 64 * 1024


class Reader(Protocol):
    """Reads one answer: bytes in, pieces into the sink, a `ModelResponse` at the end. No I/O.

    All three raise `StreamFault` when the answer is no valid one.
    """

    @property
    def shown(self) -> bool:
        """A piece was put into the sink: the attempt cannot be repeated."""
        ...

    done: bool
    """The answer is whole; what follows on the wire says nothing."""

    @property
    def remarks(self) -> Sequence[str]:
        """What is to be logged about a whole answer; it may repeat words of the provider's, and secrets."""
        ...

    def feed(self, chunk: bytes) -> None:
        """Read on."""
        ...

    def finish(self) -> ModelResponse:
        """The whole answer, after the last byte."""
        ...


@dataclass(slots=True, frozen=True)
class Bounds:
    """How much of an answer is taken in, in bytes, after decompression; None: any.

    Args:
        line: The longest line of an event stream.
        answer: The longest answer.
    """

    line: int | None = MAX_LINE_BYTES
    answer: int | None = MAX_ANSWER_BYTES


class _Measure:
    """Counts what has come of an answer."""

    __slots__ = ("_answer", "_bounds", "_line", "_lines")

    def __init__(self, bounds: Bounds, *, lines: bool) -> None:
        self._bounds = bounds
        self._lines = lines and bounds.line is not None
        self._line = 0
        self._answer = 0

    def count(self, chunk: bytes) -> None:
        self._answer += len(chunk)
        if self._bounds.answer is not None and self._answer > self._bounds.answer:
            raise StreamFault(
                f"the answer is longer than {self._bounds.answer:,} bytes; "
                "if that is no mistake, raise the model's max_answer_bytes",
                again=False,  # the next one would be as long, and cost as much
            )
        if not self._lines:
            return
        end = chunk.rfind(b"\n")
        if end < 0:
            end = chunk.rfind(b"\r")
        self._line = len(chunk) - end - 1 if end >= 0 else self._line + len(chunk)
        if self._bounds.line is not None and self._line > self._bounds.line:
            raise StreamFault(
                f"a line of the answer is longer than {self._bounds.line:,} bytes; "
                "if that is no mistake, raise the model's max_line_bytes",
                again=False,
            )


async def read(response: Any, reader: Reader, sink: DeltaSink, bounds: Bounds, *, own: bool) -> None:
    """Feed the body to the reader. Once the answer is whole, the rest is read only to keep the connection.

    Args:
        response: An `httpx.Response`, or one like it.
        reader: Takes the body in.
        sink: Waited for when it is full.
        bounds: What is too much.
        own: The client is one of ours, and undoes no compression itself.
    """
    chunks = _chunks(response, own=own)
    measure = _Measure(bounds, lines=_kind_of(response).startswith(_LINES))
    shown = False
    try:
        async for chunk in chunks:
            measure.count(chunk)
            reader.feed(chunk)
            if not shown and reader.shown:
                shown = True
                await asyncio.sleep(0)  # the consumer has the first piece before what came with it is read
            if sink.full:
                await sink.drain()
            if reader.done:
                await _read_tail(chunks)
                return
    except CutError as error:
        raise StreamFault("the answer broke off: the end of its compressed body is missing") from error
    except zlib.error as error:
        raise StreamFault("the answer cannot be decompressed") from error


def is_stream(response: Any) -> bool:
    """The answer comes as an event stream."""
    return _kind_of(response).startswith((_LINES, FRAMES))


def _kind_of(response: Any) -> str:
    kind: str = response.headers.get("content-type", "")
    return kind.lower()


async def read_error(response: Any, *, own: bool) -> bytes:
    """The beginning of the body of an answer that is an error."""
    body = bytearray()
    try:
        async for chunk in _chunks(response, own=own):
            body += chunk
            if len(body) > _LONGEST_ERROR_BODY:
                break
    except (zlib.error, StreamFault):
        body += b"(the rest of the explanation cannot be decompressed)"
    return bytes(body[:_LONGEST_ERROR_BODY])


def _chunks(response: Any, *, own: bool) -> AsyncIterator[bytes]:
    """The body, decompressed here where we can, since libraries do so without a bound."""
    names = encodings(response.headers.get("content-encoding", ""))
    known = not names or names in (["gzip"], ["deflate"])
    if not own and (not known or response.is_stream_consumed):
        # What the application's client has asked for, it understands. And what a mock transport answered has
        # been read already.
        chunks: AsyncIterator[bytes] = response.aiter_bytes()
        return chunks
    if not known:
        raise StreamFault(
            f"the answer is compressed as {', '.join(names)!r}, which was not asked for", again=False
        )
    chunks = response.aiter_raw()  # one layer less per token is time saved
    return Inflated(aiter(chunks), names[0]) if names else chunks


async def _read_tail(chunks: AsyncIterator[bytes]) -> None:
    """Read what follows the answer, for a few ticks of the clock.

    Not for their sum at one go: on a loop that is late by more than that, the end of the stream would be
    there but not yet seen, and just when much is going on connections would be thrown away.
    """
    loop = asyncio.get_running_loop()
    ticks = 0
    timer: asyncio.TimerHandle

    def tick() -> None:
        nonlocal ticks, timer
        ticks += 1
        if ticks < _TAIL_TICKS:
            timer = loop.call_later(_TAIL_TICK, tick)
        else:
            patience.reschedule(loop.time())

    timer = loop.call_later(_TAIL_TICK, tick)
    try:
        async with asyncio.timeout(None) as patience:
            async for _ in chunks:
                pass
    except TimeoutError:
        return  # the server keeps the stream open; the connection is closed instead of kept
    except zlib.error:
        return
    except Exception as error:
        if of_exception(error, Origin("", "", ""), reading=True) is None:
            raise
    finally:
        timer.cancel()
