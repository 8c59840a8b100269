"""Views of a message's parts: as one text, or as the list of the parts of one kind."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Self, SupportsIndex, TypeVar, cast

from kern.errors import UsageError
from kern.messages.media import Media
from kern.messages.parts import Citation, Part, ProviderCall, ReasoningPart, TextPart, ToolCall

P = TypeVar("P", bound=Part)
BREAK = "\n\n"
"""The separator of paragraphs in text views."""

_RANKS: tuple[tuple[type, int], ...] = ((ReasoningPart, 0), (TextPart, 2), (Media, 3), (ToolCall, 4))


def rank(part: Part) -> int:
    """The position of a part's kind in a message that is made from its views."""
    if isinstance(part, TextPart):
        return 1 if part.commentary else 2
    return next((place for kind, place in _RANKS if isinstance(part, kind)), 3)


def text_of(parts: Sequence[Part], *, commentary: bool) -> str | None:
    """The commentary, or the text without it, joined; None if there is none."""
    text: str | None = None
    for part in parts:
        if isinstance(part, TextPart) and part.commentary is commentary:
            if text:
                text += BREAK + part.text if part.paragraph and part.text else part.text
            else:
                text = part.text
    return text


def number_citations(parts: Iterable[Part]) -> None:
    """Tell each citation which of the texts it belongs to."""
    number = 0
    for part in parts:
        if isinstance(part, TextPart):
            for citation in part.citations:
                citation.part = number
            number += 1


def placed_citations(content: str, messages: Iterable[tuple[str | None, Sequence[Part]]]) -> list[Citation]:
    """The citations of messages, with their places in a text that is made of the messages' own texts.

    Args:
        content: The text.
        messages: Of each message what `text_of` makes of its parts, and the parts.
    """
    placed: list[Citation] = []
    behind = 0
    for said, parts in messages:
        at = content.find(said, behind) if said else -1
        length = 0
        for number, part in enumerate(part for part in parts if isinstance(part, TextPart)):
            begin = None
            if not part.commentary:
                length += len(BREAK) if length and part.paragraph and part.text else 0
                begin, length = at + length, length + len(part.text)
            for cited in part.citations:
                span = None
                start, end = cited.start, cited.end
                if at >= 0 and begin is not None and start is not None and end is not None:
                    end = min(end, len(part.text))
                    span = (begin + start, begin + end) if 0 <= start <= end else None
                placed.append(replace(cited, part=number, span=span))
        if said and at >= 0:
            behind = at + len(said)
    return placed


def reasoning_of(parts: Sequence[Part]) -> str | None:
    """The visible reasoning, each step a paragraph; None if there is none."""
    texts = [part.text for part in parts if isinstance(part, ReasoningPart) and part.text]
    return BREAK.join(texts) if texts else None


def not_text(name: str, value: object) -> UsageError:
    """The error for a value that is set as the text of a message."""
    return UsageError(
        f"Message: {name} must be a str or None, not {repr(value)[:60]} ({type(value).__name__})"
    )


def put_text(parts: list[Part], text: str | None, *, commentary: bool) -> None:
    """Replace all texts of a kind by one; remove them if it is None."""
    if not isinstance(text, str | None):
        raise not_text("commentary" if commentary else "content", text)
    if text == text_of(parts, commentary=commentary):
        return
    new: list[Part] = [] if text is None else [TextPart(text, commentary=commentary)]
    put(parts, lambda part: isinstance(part, TextPart) and part.commentary is commentary, new)


def put_reasoning(parts: list[Part], text: str | None) -> None:
    """Replace all reasoning by one text; remove it if it is None."""
    if not isinstance(text, str | None):
        raise not_text("reasoning_content", text)
    if text != reasoning_of(parts):
        put(
            parts, lambda part: isinstance(part, ReasoningPart), [] if text is None else [ReasoningPart(text)]
        )


def put(parts: list[Part], wanted: Callable[[Part], bool], new: Sequence[Part]) -> None:
    """Replace the wanted parts by `new`, each at the position of an old one; the rest follow the last.

    Without any old ones, `new` goes to the position of its kind in a message that is made from views.
    """
    left = deque(new)
    kept: list[Part] = []
    last = -1
    for part in parts:
        if not wanted(part):
            kept.append(part)
        elif left:
            kept.append(left.popleft())
            last = len(kept)
    if left:
        if last < 0:
            wish = rank(left[0])
            last = next((at for at, part in enumerate(kept) if rank(part) > wish), len(kept))
        kept[last:last] = left
    parts[:] = kept


def media_of(parts: Sequence[Part]) -> list[Media]:
    """All media in order, including those that calls of the provider made."""
    media: list[Media] = []
    for part in parts:
        if isinstance(part, Media):
            media.append(part)
        elif isinstance(part, ProviderCall):
            media += part.media
    return media


def plain(part: Part) -> Part | None:
    """The part without data for its provider; None if nothing is left of it."""
    match part:
        case TextPart():
            return replace(part, provider_data=None, origin=None)
        case ReasoningPart():
            return ReasoningPart(part.text) if part.text else None
        case ProviderCall():
            return None
    return replace(part, provider_data=None, origin=None)


class PartsView(list[P]):
    """The parts of one kind as a list; changing the list changes the message.

    Args:
        parts: The parts of the message.
        kind: The kind of parts in the view.
    """

    __slots__ = ("_kind", "_parts")

    def __init__(self, parts: list[Part], kind: type[P]) -> None:
        super().__init__([part for part in parts if isinstance(part, kind)])
        self._parts = parts
        self._kind = kind

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        """Copy and pickle as a plain list, without the message."""
        return list, (list(self),)

    def _write(self) -> None:
        kind = self._kind
        put(self._parts, lambda part: isinstance(part, kind), cast("list[Part]", self))

    def append(self, item: P, /) -> None:
        """Add a part after the last of its kind."""
        super().append(item)
        self._write()

    def extend(self, items: Iterable[P], /) -> None:
        """Add parts after the last of their kind."""
        super().extend(items)
        self._write()

    def insert(self, at: SupportsIndex, item: P, /) -> None:
        """Add a part before another of its kind."""
        super().insert(at, item)
        self._write()

    def pop(self, at: SupportsIndex = -1, /) -> P:
        """Remove a part and return it."""
        item = super().pop(at)
        self._write()
        return item

    def remove(self, item: P, /) -> None:
        """Remove the first part that equals this one."""
        super().remove(item)
        self._write()

    def clear(self) -> None:
        """Remove all parts of this kind."""
        super().clear()
        self._write()

    def reverse(self) -> None:
        """Reverse their order, in the positions that they have."""
        super().reverse()
        self._write()

    def sort(self, **options: Any) -> None:
        """Sort them, in the positions that they have."""
        super().sort(**options)
        self._write()

    def __setitem__(self, at: Any, item: Any, /) -> None:
        super().__setitem__(at, item)
        self._write()

    def __delitem__(self, at: Any, /) -> None:
        super().__delitem__(at)
        self._write()

    def __iadd__(self, items: Iterable[P], /) -> Self:  # type: ignore[override, misc]  # as in list
        self.extend(items)
        return self
