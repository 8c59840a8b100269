"""Joins text that arrives in pieces and shows each piece at once, even if a piece ends within a character."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from typing import Any

_HALF = re.compile(r"[\ud800-\udbff]\Z")
_STRAY = re.compile(r"[\ud800-\udc7f\udd00-\udfff]")


class CharacterJoiner:
    """Joins characters that were split between pieces: surrogate pairs, and the UTF-8 bytes of one character.

    Pieces come from `json.loads`: half of a pair is a lone surrogate, and a byte that is not valid UTF-8 by
    itself is a surrogate of Python's error handler `surrogateescape`. A half without its other half becomes
    U+FFFD.
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
        """What remains: U+FFFD if the other half of a character never came."""
        rest = self._bytes.decode(_paired(self._half), final=True)
        self._half = ""
        return rest


def _paired(text: str) -> bytes:
    whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return _STRAY.sub("\ufffd", whole).encode("utf-8", "surrogateescape")


def mended(text: str) -> str:
    """`text` with all split characters joined, and lone halves replaced by U+FFFD."""
    if text.isascii():
        return text
    joiner = CharacterJoiner()
    return joiner.feed(text) + joiner.end()


def mended_json(value: Any) -> Any:
    """`mended` applied to every text in a JSON value."""
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, dict):
        return {mended(key): mended_json(item) for key, item in value.items()}
    return [mended_json(item) for item in value] if isinstance(value, list) else value


class TextStream:
    """One kind of text of an answer: the answer itself, its reasoning, or its commentary.

    Args:
        show: Called with each piece as it arrives; None if nobody listens.
    """

    __slots__ = ("_joiner", "_lead", "_marked", "_pieces", "_show", "shown")

    def __init__(self, show: Callable[[str], None] | None) -> None:
        self._show = show
        self._pieces: list[str] = []
        self._joiner: CharacterJoiner | None = None
        self._lead = ""
        self._marked: int | None = None
        self.shown = False
        """Whether a piece was shown."""

    def add(self, text: str) -> None:
        """Take the next piece."""
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
        """Begin a new paragraph: the provider has begun another message or part."""
        self.end()
        if self._pieces:
            self._lead = "\n\n"

    def watch(self) -> None:
        """From now on, join characters that are split between pieces."""
        if self._joiner is None:
            self._joiner = CharacterJoiner()

    def end(self) -> None:
        """Flush half a character that was held back; no more pieces follow."""
        if self._joiner is not None and (rest := self._joiner.end()):
            held_back = self._marked == len(self._pieces)
            self._put(rest)
            if held_back:
                self.mark()

    def mark(self) -> None:
        """Remember that the provider says the text ends here."""
        self._marked = len(self._pieces)

    @property
    def went_on(self) -> bool:
        """Whether text followed after `mark`."""
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
