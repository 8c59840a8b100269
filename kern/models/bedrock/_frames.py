"""AWS's binary event stream, cut into its messages: no I/O, any chunking of the bytes gives the same ones.

botocore reads a message and checks its two checksums. It copies all that it holds with every piece that
comes, so it is given a message at once, when that is whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import error as StructError

from botocore.eventstream import (
    EventStreamBuffer,
    EventStreamMessage,
    InvalidHeadersLength,
    InvalidPayloadLength,
    ParserError,
)

from kern.models._failures import StreamFault

EXCEPTION = "Exception"
"""The end of the name of every exception, and of no event."""

_PRELUDE = 12
"""The lengths of the message and of its headers, and a checksum of both."""


class Frames:
    """Feed it bytes, take out events: the name and the payload of each.

    Args:
        longest: The longest message that is taken in; None: any.
    """

    __slots__ = ("_buffer", "_data", "_longest", "_total")

    def __init__(self, longest: int | None) -> None:
        self._longest = longest
        self._data = bytearray()
        self._buffer = EventStreamBuffer()
        self._total = 0  # bytes of the message that is coming; 0: not known yet

    @property
    def pending(self) -> bool:
        """A message has begun and is not whole."""
        return bool(self._data or self._total)

    def feed(self, chunk: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The events that `chunk` completes.

        Raises:
            StreamFault: The stream is damaged, or reports an error of its own.
        """
        self._data += chunk
        while True:
            if not self._total:
                if len(self._data) < _PRELUDE:
                    return
                self._begin()
            if len(self._data) < self._total:
                return
            message = self._read(self._total)
            self._total = 0
            if message is None:
                raise StreamFault("the answer is no valid event stream: a message is shorter than its head")
            yield _event(message)

    def _begin(self) -> None:
        """Learn from its head how long the message is, before its bytes are waited for."""
        total = int.from_bytes(self._data[:4])
        # Only bytes with the right checksum tell a length: what is no event stream at all tells any.
        self._check_head()
        if self._longest is not None and total > self._longest:
            raise StreamFault(
                f"a message of the answer is longer than {self._longest:,} bytes; "
                "if that is no mistake, raise the model's max_line_bytes",
                again=False,
            )
        self._total = total

    def _check_head(self) -> None:
        self._parse(EventStreamBuffer(), bytes(self._data[:_PRELUDE]))

    def _read(self, size: int) -> EventStreamMessage | None:
        data = bytes(self._data[:size])
        del self._data[:size]
        return self._parse(self._buffer, data)

    def _parse(self, buffer: EventStreamBuffer, data: bytes) -> EventStreamMessage | None:
        buffer.add_data(data)
        try:
            return next(buffer, None)
        except (ParserError, StructError, LookupError, ValueError) as error:
            raise StreamFault(
                f"the answer is no valid event stream: {str(error) or type(error).__name__}",
                again=not isinstance(error, InvalidHeadersLength | InvalidPayloadLength),
                quoting=data,
            ) from error


def _event(message: EventStreamMessage) -> tuple[bytes, bytes]:
    """The name of an event, or of an exception, and what it says."""
    headers = message.headers
    kind = headers.get(":message-type")
    if kind == "error":  # one of the stream itself, whose text stands in a header
        code = headers.get(":error-code")
        raise StreamFault(
            str(headers.get(":error-message") or "the event stream reports an error"),
            code if isinstance(code, str) else None,
        )
    if kind == "exception":
        name = headers.get(":exception-type")
        return (
            name if isinstance(name, str) and name.endswith(EXCEPTION) else EXCEPTION
        ).encode(), message.payload
    name = headers.get(":event-type")
    return (name if isinstance(name, str) else "").encode(), message.payload
