"""Parses server-sent events from bytes, without I/O; how the bytes are split into chunks does not matter.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
Lines end in LF, CR or CRLF only. `str.splitlines`, which the line iterators of HTTP clients use, also splits
at U+2028, which JSON text may contain; so they cannot be used here.
"""

from __future__ import annotations

_BOM = b"\xef\xbb\xbf"


class EventStream:
    """Takes bytes in and gives events out.

    An event is a pair of bytes, its name (empty if it has none) and its data; the JSON parser decodes the
    UTF-8. The fields `id` and `retry` are ignored: they serve reconnecting, and a POST cannot reconnect. By
    the standard, what follows the last blank line at the end of the stream is not an event. A field `error`,
    in which older llama.cpp servers say that they failed in the middle of an answer, is an event "error".
    """

    __slots__ = ("_after_cr", "_parts", "_started")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._after_cr = False
        self._started = False

    def feed(self, chunk: bytes) -> list[tuple[bytes, bytes]]:
        """The events that `chunk` completes."""
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[:1] == b"\n":  # the second half of a CRLF that was split between chunks
                chunk = chunk[1:]
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not self._started:
            chunk = self._start(chunk)
        if not chunk:
            return []
        parts = self._parts
        # Join the pieces of a long event once at its end: joining at every chunk would be quadratic.
        if b"\n\n" not in chunk and not (parts and chunk[:1] == b"\n" and parts[-1][-1:] == b"\n"):
            parts.append(chunk)
            return []
        if parts:
            parts.append(chunk)
            chunk = b"".join(parts)
        head, _, tail = chunk.rpartition(b"\n\n")
        self._parts = [tail] if tail else []
        return [event for block in head.split(b"\n\n") if (event := _parse(block)) is not None]

    def _start(self, chunk: bytes) -> bytes:
        """Drop a byte order mark; empty while the first bytes could still become one."""
        chunk = b"".join((*self._parts, chunk))
        self._parts = []
        if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
            if chunk:
                self._parts = [chunk]
            return b""
        self._started = True
        return chunk.removeprefix(_BOM)


def _parse(block: bytes) -> tuple[bytes, bytes] | None:
    """Parse the lines of one event; None if they have no data. The two usual forms come first, for speed."""
    if block[:6] == b"data: " and b"\n" not in block:
        return b"", block[6:]
    if block[:7] == b"event: ":
        first, _, rest = block.partition(b"\n")
        if rest[:6] == b"data: " and b"\n" not in rest:
            return first[7:], rest[6:]
    name = b""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")  # a comment's field is empty
        if field == b"data":
            data.append(value[1:] if value[:1] == b" " else value)
        elif field == b"event":
            name = value[1:] if value[:1] == b" " else value
        elif field == b"error":
            name = b"error"
            data.append(value)
    return (name, b"\n".join(data)) if data else None
