"""The end of a growing text, as much as a screen can show, at a cost that does not depend on its length."""

from __future__ import annotations

import re
from bisect import bisect_right

_REACH = 500
_FENCE = re.compile(r"^[ \t>]*(`{3,}|~{3,})(.*)$")


class MarkdownTail:
    """Cuts off the last part of growing Markdown at a place where it still renders the same.

    A cut inside a fenced code block begins with the block's opening line. The text is scanned only once,
    however often it is cut. (This is for the live view; the final answer is rendered from the whole text.)
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._text = ""
        self._scanned = 0
        self._offsets = [0]
        self._fences = [""]

    def cut(self, text: str, size: int) -> str:
        """The end of `text`: at least `size` characters, if it has that many, and few more."""
        if not text.startswith(self._text):
            self._reset()  # the text was taken back
        self._scan(text)
        if len(text) <= size:
            return text
        start = self._start(text, len(text) - size)
        opening = self._fences[bisect_right(self._offsets, start) - 1]
        return f"{opening}\n{text[start:]}" if opening else text[start:]

    def _scan(self, text: str) -> None:
        """Note where fenced blocks begin and end, in the complete lines."""
        end = text.rfind("\n") + 1
        position = self._scanned
        for line in text[position:end].splitlines(keepends=True):
            position += len(line)
            if (found := _FENCE.match(line.rstrip())) is None:
                continue
            marks, info = found[1], found[2]
            opening = self._fences[-1]
            if not opening:
                self._note(position, line.strip())
            elif opening.lstrip("> ").startswith(marks[0]) and not info.strip():
                self._note(position, "")
        self._scanned = position
        self._text = text

    def _note(self, offset: int, fence: str) -> None:
        self._offsets.append(offset)
        self._fences.append(fence)

    @staticmethod
    def _start(text: str, latest: int) -> int:
        """A place shortly before `latest`: the start of a paragraph, else of a line, else `latest`."""
        for gap in ("\n\n", "\n"):
            found = text.rfind(gap, max(0, latest - _REACH), latest)
            if found >= 0:
                return found + len(gap)
        return latest
