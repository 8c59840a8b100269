"""Server-sent events, cut out of a byte stream: no I/O, any chunking of the bytes gives the same events.

The format is the WHATWG's: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
Lines end in LF, CR or CRLF and in nothing else: U+2028 is legal inside of JSON text, which is why the line
iterators of HTTP clients, made with `str.splitlines`, must not be used here.
"""

from __future__ import annotations

_BOM = b"\xef\xbb\xbf"


class EventStream:
    """Feed it bytes, take out events.

    An event is a pair of bytes: its name (empty if it has none) and its data. Bytes, since the JSON parser
    reads UTF-8 itself. `id` and `retry` are of no use to a single POST and are left out. What stands after
    the last blank line when the stream ends is no event, as the standard says.
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
            if chunk[:1] == b"\n":  # the other half of a CRLF that was cut in two
                chunk = chunk[1:]
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not self._started:
            chunk = self._start(chunk)
        if not chunk:
            return []
        parts = self._parts
        # Pieces of a long event are joined once, when its end is there, and not at every chunk.
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
    """One event out of its lines; None if they hold no data. The two usual forms are tried first."""
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
    return (name, b"\n".join(data)) if data else None
