"""Cuts AWS's binary event stream into its messages: no I/O, and independent of how the bytes are chunked.

botocore parses a message and verifies its two checksums. It copies its whole buffer with every chunk, so
Kern passes each message in one piece, when it is complete.
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
"""The suffix of the name of every exception; no event has it."""

_PRELUDE = 12
"""The size in bytes of the lengths of the message and of its headers, and a checksum of both."""


class Frames:
    """Turns bytes into events, each with a name and a payload.

    Args:
        longest: The longest message, in bytes; None: any length.
    """

    __slots__ = ("_buffer", "_data", "_longest", "_total")

    def __init__(self, longest: int | None) -> None:
        self._longest = longest
        self._data = bytearray()
        self._buffer = EventStreamBuffer()
        self._total = 0  # the length of the current message; 0: not known yet

    @property
    def pending(self) -> bool:
        """Whether a message has begun and is incomplete."""
        return bool(self._data or self._total)

    def feed(self, chunk: bytes) -> Iterator[tuple[bytes, bytes]]:
        """The events that `chunk` completes.

        Raises:
            StreamFault: The stream is damaged, or reports an error.
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
                raise StreamFault(
                    "the answer is not a valid event stream: a message is shorter than its head"
                )
            yield _event(message)

    def _begin(self) -> None:
        """Read the length of the message from its head, before the rest has arrived."""
        total = int.from_bytes(self._data[:4])
        # Verify the checksum first: in bytes that are not an event stream, the length is arbitrary.
        self._check_head()
        if self._longest is not None and total > self._longest:
            raise StreamFault(
                f"a message of the answer is longer than {self._longest:,} bytes; "
                "if the answer is correct, raise the model's max_line_bytes",
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
                f"the answer is not a valid event stream: {str(error) or type(error).__name__}",
                again=not isinstance(error, InvalidHeadersLength | InvalidPayloadLength),
                quoting=data,
            ) from error


def _event(message: EventStreamMessage) -> tuple[bytes, bytes]:
    """The name and the payload of an event or an exception."""
    headers = message.headers
    kind = headers.get(":message-type")
    if kind == "error":  # an error of the stream itself, whose text is in a header
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
