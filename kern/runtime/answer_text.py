"""The text that a run shows as its answer, as it comes together."""

from __future__ import annotations

from collections.abc import Sequence

BREAK = "\n\n"
"""Stands between what two turns say, streamed or not."""


class AnswerText:
    """What a run has shown as its answer: texts of turns, results of tools, what a member says for it.

    Args:
        parts: What it had shown before a pause: pairs of a text, and of what in it is more than words on the
            way to a call.
    """

    __slots__ = ("_open", "_parts", "_withdrawn")

    def __init__(self, parts: Sequence[Sequence[str]] = ()) -> None:
        self._parts = [(part[0], part[1]) for part in parts] if parts else []
        self._open: list[str] = []
        self._withdrawn = False

    def begin(self) -> list[str]:
        """The pieces of a part that is about to be streamed, to be filled by whoever streams it."""
        self._open = []
        return self._open

    def drop(self) -> None:
        """What was streamed of a part is void: it is made again."""
        self._open = []

    def add(self, text: str, last_turn: str | None = None) -> None:
        """A whole part, which takes the place of its pieces.

        Args:
            last_turn: What of it is more than words on the way to a call; None if all of it is.
        """
        self._open = []
        if text:
            self._parts.append((text, text if last_turn is None else last_turn))

    def close(self) -> None:
        """What was streamed of a part was all of it."""
        self.add("".join(self._open))

    def withdraw(self) -> None:
        """What was shown is no part of the answer, since a check has refused it."""
        self._withdrawn = True

    def leads_to_call(self) -> None:
        """The newest part has led to a call."""
        self._parts[-1] = (self._parts[-1][0], "")

    @property
    def begun(self) -> bool:
        """Something was shown."""
        return bool(self._parts or self._open or self._withdrawn)

    @property
    def unfinished(self) -> str:
        """What was streamed of a part that has not come to its end."""
        return "".join(self._open)

    @property
    def text(self) -> str:
        """All of it."""
        if len(self._parts) == 1 and not self._open:
            return self._parts[0][0]
        return BREAK.join([*(text for text, _ in self._parts), *([self.unfinished] if self._open else [])])

    @property
    def last_turn(self) -> str:
        """The same without what was said on the way to a call."""
        if len(self._parts) == 1:
            return self._parts[0][1]
        return BREAK.join([kept for _, kept in self._parts if kept])

    def to_list(self) -> list[list[str]]:
        """The parts as JSON."""
        return [list(part) for part in self._parts]
