"""Reads the body of an answer: decompresses it, checks its size, and feeds it to a reader."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from kern.models._failures import Origin, StreamFault, of_exception
from kern.models._inflate import CutError, Inflated, encodings
from kern.models.base import DeltaSink, ModelResponse
from kern.usage import Usage

MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_ANSWER_BYTES = 256 * 1024 * 1024

FRAMES = "application/vnd.amazon.eventstream"
"""The type of a stream whose events are binary messages, and not lines; its reader bounds their size."""
_LINES = "text/event-stream"

_TAIL_TICK = 0.1  # seconds
_TAIL_TICKS = 5
_LONGEST_ERROR_BODY = 64 * 1024


class Reader(Protocol):
    """Decodes one answer without I/O: bytes in, deltas to the sink, a `ModelResponse` at the end."""

    @property
    def shown(self) -> bool:
        """Whether a delta was put into the sink; the attempt cannot be repeated after that."""
        ...

    done: bool
    """The answer is complete; the rest of the body can be ignored."""

    @property
    def remarks(self) -> Sequence[str]:
        """Warnings to log about a complete answer; they may quote the provider, and so contain secrets."""
        ...

    def feed(self, chunk: bytes) -> None:
        """Read the next bytes of the body.

        Raises:
            StreamFault: The answer is malformed, or reports an error.
        """
        ...

    def finish(self) -> ModelResponse:
        """Return the answer after the last byte.

        Raises:
            StreamFault: The answer is incomplete or malformed.
        """
        ...

    def spent(self) -> Usage | None:
        """What an answer that is thrown away is paid for; None if it had not begun."""
        ...


@dataclass(slots=True)
class Bounds:
    """How long an answer may be, in bytes after decompression; None means any length.

    Args:
        line: The longest line of an event stream.
        answer: The longest answer.
    """

    line: int | None = MAX_LINE_BYTES
    answer: int | None = MAX_ANSWER_BYTES


class _Measure:
    """Counts the bytes of an answer, and raises `StreamFault` once they exceed the bounds."""

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
                "if that is expected, raise the model's max_answer_bytes",
                again=False,  # another attempt would be as long, and cost as much
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
                "if that is expected, raise the model's max_line_bytes",
                again=False,
            )


async def read(response: Any, reader: Reader, sink: DeltaSink, bounds: Bounds, *, own: bool) -> None:
    """Feed the body to the reader. After the answer is complete, read on only to reuse the connection.

    Args:
        response: An `httpx.Response`, or an object with its interface.
        reader: Decodes the body.
        sink: Reading pauses while it is full.
        bounds: The longest line and answer.
        own: The HTTP client is Kern's, so the body is still compressed.

    Raises:
        StreamFault: The answer is malformed, too long, or cannot be decompressed.
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
                await asyncio.sleep(0)  # let the consumer see the first delta before the rest is decoded
            if sink.full:
                await sink.drain()
            if reader.done:
                await _read_tail(chunks)
                return
    except CutError as error:
        raise StreamFault("the answer was cut off: the end of its compressed body is missing") from error
    except zlib.error as error:
        raise StreamFault("the answer cannot be decompressed") from error


def is_stream(response: Any) -> bool:
    """Whether the answer is a stream of events, by its content type."""
    return _kind_of(response).startswith((_LINES, FRAMES))


def _kind_of(response: Any) -> str:
    kind: str = response.headers.get("content-type", "")
    return kind.lower()


async def read_error(response: Any, *, own: bool) -> bytes:
    """The first 64 KiB of the body of an error response."""
    body = bytearray()
    try:
        async for chunk in _chunks(response, own=own):
            body += chunk
            if len(body) > _LONGEST_ERROR_BODY:
                break
    except (zlib.error, StreamFault):
        body += b"(the rest of the error body cannot be decompressed)"
    return bytes(body[:_LONGEST_ERROR_BODY])


def _chunks(response: Any, *, own: bool) -> AsyncIterator[bytes]:
    """The decompressed body. Kern decompresses it where it can: libraries do so without a limit on memory."""
    names = encodings(response.headers.get("content-encoding", ""))
    known = not names or names in (["gzip"], ["deflate"])
    if not own and (not known or response.is_stream_consumed):
        # The application's client decodes the encodings that it asked for. The body of a mock transport has
        # been read already.
        chunks: AsyncIterator[bytes] = response.aiter_bytes()
        return chunks
    if not known:
        raise StreamFault(
            f"the answer is compressed with {', '.join(names)!r}, which the request did not ask for",
            again=False,
        )
    chunks = response.aiter_raw()  # saves one layer of httpx per token
    return Inflated(aiter(chunks), names[0]) if names else chunks


async def _read_tail(chunks: AsyncIterator[bytes]) -> None:
    """Read what follows the answer, for half a second at most, so that the connection can be reused.

    The time is counted in five ticks instead of one timeout. An event loop that lags by more than half a
    second would run into a single timeout before it reads the end that has arrived, and so close connections
    just when the load is high.
    """
    loop = asyncio.get_running_loop()
    ticks = 0
    timer: asyncio.TimerHandle

    def tick(again: Callable[..., None]) -> None:  # by its own name it would be a reference cycle
        nonlocal ticks, timer
        ticks += 1
        if ticks < _TAIL_TICKS:
            timer = loop.call_later(_TAIL_TICK, again, again)
        else:
            patience.reschedule(loop.time())

    timer = loop.call_later(_TAIL_TICK, tick, tick)
    try:
        async with asyncio.timeout(None) as patience:
            async for _ in chunks:
                pass
    except TimeoutError:
        return  # the server keeps the stream open: the connection is closed, not reused
    except zlib.error:
        return
    except Exception as error:
        if of_exception(error, Origin("", "", ""), reading=True) is None:
            raise
    finally:
        timer.cancel()
