"""Decompresses responses in pieces: a small one may expand to any size, so the reader can stop in between."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Self

ACCEPTED = "gzip, deflate"
"""The accepted encodings: those that Python itself can decompress with a limit on the size."""

_PIECE = 1024 * 1024
_GZIP = b"\x1f\x8b"


class CutError(zlib.error):
    """The compressed data is incomplete."""


class Inflate:
    """Takes compressed bytes, and returns pieces of at most one megabyte.

    Args:
        encoding: "gzip" or "deflate"; the latter with zlib's header or, as some servers send it, without.
    """

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding
        self._head = b""
        self._inflate: zlib._Decompress | None = None
        self._over = False
        self._whole = True

    def finish(self) -> None:
        """Note that there are no more bytes.

        Raises:
            CutError: The compressed data is incomplete.
        """
        if not self._whole:
            raise CutError("the compressed response is incomplete: its end is missing")

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Decompress `chunk`.

        Raises:
            zlib.error: The data is not compressed with this encoding.
        """
        self._whole = self._whole and (self._over or not chunk)
        if self._inflate is None:
            self._head = chunk = self._head + chunk
            if len(chunk) < 2:
                return
            self._inflate = self._made(chunk)
        size = _PIECE
        while not self._over and (chunk or size == _PIECE):
            piece = self._inflate.decompress(chunk, _PIECE)
            size = len(piece)
            chunk = self._inflate.unconsumed_tail
            if self._inflate.eof:  # gzip data may have further members; ignore anything else that follows
                chunk = self._inflate.unused_data
                self._over = bool(chunk) and not chunk.startswith(_GZIP[:1])
                self._whole = self._over or not chunk
                self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)
            if piece:
                yield piece

    def _made(self, head: bytes) -> zlib._Decompress:
        if self._encoding == "gzip":
            return zlib.decompressobj(zlib.MAX_WBITS | 16)
        framed = head[0] & 0x0F == 8 and int.from_bytes(head[:2], "big") % 31 == 0  # RFC 1950, 2.2
        return zlib.decompressobj(zlib.MAX_WBITS if framed else -zlib.MAX_WBITS)


class Inflated:
    """The decompressed chunks of a response. Large ones let other tasks run in between."""

    __slots__ = ("_chunks", "_inflate", "_pieces")

    def __init__(self, chunks: AsyncIterator[bytes], encoding: str) -> None:
        self._chunks = chunks
        self._inflate = Inflate(encoding)
        self._pieces: Iterator[bytes] = iter(())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while True:
            piece = next(self._pieces, None)
            if piece is not None:
                if len(piece) == _PIECE:
                    await asyncio.sleep(0)
                return piece
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                self._inflate.finish()
                raise
            self._pieces = self._inflate.feed(chunk)


def encodings(header: str) -> list[str]:
    """Return the names in a `content-encoding` header, without those that change nothing."""
    if not header:
        return []
    names = [name.strip().lower() for name in header.split(",")]
    return [{"x-gzip": "gzip"}.get(name, name) for name in names if name not in ("", "identity")]
