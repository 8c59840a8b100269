"""Text that arrives in pieces, put together and shown as it comes, wherever the provider has cut it."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import Any

_HALF = re.compile(r"[\ud800-\udbff]\Z")
_STRAY = re.compile(r"[\ud800-\udc7f\udd00-\udfff]")


class CharacterJoiner:
    """Joins characters that were cut in two: halves of a surrogate pair, and bytes of one character.

    A piece holds them as `json.loads` gives them out: a lone surrogate for half a pair, and for a byte that
    is no UTF-8 by itself the surrogate of Python's error handler `surrogateescape`. What stays without its
    other half becomes U+FFFD.
    """

    __slots__ = ("_bytes", "_half")

    def __init__(self) -> None:
        self._half = ""
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, text: str) -> str:
        """The characters that `text` completes."""
        text = self._half + text
        self._half = ""
        if _HALF.search(text):
            self._half, text = text[-1], text[:-1]
        return self._bytes.decode(_paired(text))

    def end(self) -> str:
        """What is left of a character whose other half never came."""
        rest = self._bytes.decode(_paired(self._half), final=True)
        self._half = ""
        return rest


def _paired(text: str) -> bytes:
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return _STRAY.sub("\ufffd", whole).encode("utf-8", "surrogateescape")


def mended(text: str) -> str:
    """`text` with every surrogate joined to its other half, or replaced."""
    if text.isascii():
        return text
    joiner = CharacterJoiner()
    return joiner.feed(text) + joiner.end()


def mended_json(value: Any) -> Any:
    """`mended`, for every text of a JSON value."""
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, dict):
        return {mended(key): mended_json(item) for key, item in value.items()}
    return [mended_json(item) for item in value] if isinstance(value, list) else value


class TextStream:
    """One kind of text of an answer: the answer itself, its reasoning, or its commentary.

    Args:
        show: Where pieces go as they arrive; None if nobody wants them.
    """

    __slots__ = ("_joiner", "_lead", "_marked", "_pieces", "_show", "shown")

    def __init__(self, show: Callable[[str], None] | None) -> None:
        self._show = show
        self._pieces: list[str] = []
        self._joiner: CharacterJoiner | None = None
        self._lead = ""
        self._marked: int | None = None
        self.shown = False
        """A piece was shown."""

    def add(self, text: str) -> None:
        """Take a piece."""
        if self._joiner is not None:
            text = self._joiner.feed(text)
        if text:
            if self._lead:
                text, self._lead = self._lead + text, ""
            self._pieces.append(text)
            if self._show is not None:
                self.shown = True
                self._show(text)

    def part(self) -> None:
        """What comes next is another paragraph: another message, or part, of the provider's."""
        self.end()
        if self._pieces:
            self._lead = "\n\n"

    def watch(self) -> None:
        """Pieces may from now on begin or end within a character."""
        if self._joiner is None:
            self._joiner = CharacterJoiner()

    def end(self) -> None:
        """Nothing more comes."""
        if self._joiner is not None and (rest := self._joiner.end()):
            held_back = self._marked == len(self._pieces)
            self._put(rest)
            if held_back:
                self.mark()

    def mark(self) -> None:
        """The text is said to end here."""
        self._marked = len(self._pieces)

    @property
    def went_on(self) -> bool:
        """There was more after the mark."""
        return self._marked is not None and len(self._pieces) > self._marked

    def whole(self) -> str:
        """All text so far."""
        if len(self._pieces) > 1:
            self._marked = 0 if self.went_on else None if self._marked is None else 1
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def _put(self, text: str) -> None:
        if self._lead:
            text = self._lead + text
            self._lead = ""
        self._pieces.append(text)
        if self._show is not None:
            self.shown = True
            self._show(text)
