"""What a run has told, as it is kept for others: neighbouring pieces of one text are one piece.

A text that was told live, piece by piece, is kept as one: with the numbers of the pieces and where each of
them ended, so that whoever has heard some of them is told the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from pydantic_core import from_json

from kern._json import json_bytes
from kern._log import named
from kern.errors import UsageError
from kern.run.events import Event, ReasoningContentDeltaEvent, RunContentEvent, event_from_dict

log: Final = named("kern")

Cut = tuple[int, int]
"""The number of a piece that was told by itself, and how long the text was with it."""

_CUTS = "cuts"
_UNREADABLE = (UsageError, ValueError, TypeError, LookupError, AttributeError)


@dataclass(slots=True, frozen=True)
class Piece:
    """An event, and where its text may be cut.

    Args:
        event: The event, under the number of its last part.
        cuts: The parts of its text that some have heard, but for the last, in their order.
    """

    event: Event
    cuts: Sequence[Cut] = ()

    def after(self, seq: int) -> Event | None:
        """What the event tells whoever has heard all up to that number; None: nothing."""
        if self.event.seq <= seq:
            return None
        heard = max((length for number, length in self.cuts if number <= seq), default=0)
        if not heard:
            return self.event
        return _with_text(self.event, (_text(self.event) or "")[heard:])

    def to_dict(self) -> dict[str, Any]:
        """The event and the cuts as JSON."""
        data = self.event.to_dict()
        if self.cuts:
            data[_CUTS] = [list(cut) for cut in self.cuts]
        return data


def written(pieces: Iterable[Piece]) -> bytes:
    """The pieces as a JSON array (UTF-8)."""
    return json_bytes([piece.to_dict() for piece in pieces])


def joined(events: Iterable[Event], told: int = 0) -> list[Piece]:
    """The events, with neighbouring pieces of one text as one piece.

    Args:
        told: The number of the last event that was told live: up to there each was told by itself.
    """
    groups: list[tuple[list[Event], list[str]]] = []
    for event in events:
        text = _text(event)
        if text is not None and groups and groups[-1][1] and _go_together(groups[-1][0][-1], event):
            groups[-1][0].append(event)
            groups[-1][1].append(text)
        else:
            groups.append(([event], [] if text is None else [text]))
    return [_whole(parts, texts, told) for parts, texts in groups]


def _text(event: Event) -> str | None:
    """The text that the event brings, if it is a piece of one."""
    if isinstance(event, RunContentEvent):
        return event.content if event.content_type is None and isinstance(event.content, str) else None
    return event.reasoning_content if isinstance(event, ReasoningContentDeltaEvent) else None


def _go_together(first: Event, second: Event) -> bool:
    return type(first) is type(second) and first.source is second.source


def _whole(parts: Sequence[Event], texts: Sequence[str], told: int) -> Piece:
    """Pieces of one text as one; a new event, since others hear theirs."""
    last = parts[-1]
    if len(parts) == 1:
        return Piece(last)
    lengths = accumulate(len(text) for text in texts)
    cuts = [(part.seq, length) for part, length in zip(parts[:-1], lengths, strict=False) if part.seq <= told]
    return Piece(_with_text(last, "".join(texts)), tuple(cuts))


def _with_text(event: Event, text: str) -> Event:
    """The event with another text."""
    whole = copy.copy(event)
    if isinstance(whole, RunContentEvent):
        whole.content = text
    elif isinstance(whole, ReasoningContentDeltaEvent):
        whole.reasoning_content = text
    return whole


def pieces_of(run_id: str, data: bytes) -> list[Piece]:
    """What `written` has made; what cannot be read of it is logged and left out."""
    try:
        items: Any = from_json(data)
    except ValueError as error:
        log.warning("run %s: some of its events cannot be read, and are left out: %s", run_id, error)
        return []
    pieces = []
    for item in items if isinstance(items, list) else [items]:
        try:
            pieces.append(Piece(event_from_dict(item), _cuts(item.get(_CUTS, ()))))
        except _UNREADABLE as error:
            log.warning("run %s: an event cannot be read, and is left out: %s", run_id, error)
    return pieces


def _cuts(data: Any) -> Sequence[Cut]:
    return tuple((int(number), int(length)) for number, length in data)
