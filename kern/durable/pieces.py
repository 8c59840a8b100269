"""The stored form of a run's events: consecutive pieces of one text are joined.

A text that was sent live, piece by piece, is stored as one event, with the number and the end of each piece,
so that a follower that got some of the pieces gets the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Final

from pydantic_core import from_json

from kern._json import json_bytes
from kern._log import named
from kern.db.journals import LAST_NUMBER
from kern.durable.deltas import Delta
from kern.errors import UsageError
from kern.run.events import Event, ReasoningContentDeltaEvent, RunContentEvent, event_from_dict

log: Final = named("kern")

Cut = tuple[int, int]
"""The `seq` of a piece that was sent by itself, and the length of the text including it."""

_CUTS = "cuts"
_UNREADABLE = (UsageError, ValueError, TypeError, LookupError, AttributeError)


@dataclass(slots=True, frozen=True)
class Piece:
    """An event, and the places where its text may be cut.

    Args:
        event: The event, with the `seq` of its last piece.
        cuts: The pieces of its text that were sent by themselves, except the last one, in order.
    """

    event: Event
    cuts: Sequence[Cut] = ()

    def after(self, seq: int) -> Event | None:
        """The part of the event that a follower lacks that has everything up to `seq`; None if nothing."""
        if self.event.seq <= seq:
            return None
        seen = max((length for number, length in self.cuts if number <= seq), default=0)
        if not seen:
            return self.event
        return _with_text(self.event, (_text(self.event) or "")[seen:])

    def to_dict(self) -> dict[str, Any]:
        """The event and the cuts as JSON."""
        data = self.event.to_dict()
        if self.cuts:
            data[_CUTS] = [list(cut) for cut in self.cuts]
        return data


def written(pieces: Iterable[Piece]) -> bytes:
    """The pieces as a JSON array (UTF-8)."""
    return json_bytes([piece.to_dict() for piece in pieces])


def joined(events: Iterable[Event], sent_live: int = 0) -> list[Piece]:
    """Join consecutive pieces of one text.

    Args:
        events: The events.
        sent_live: The `seq` of the last event that was sent live. Each event up to it was sent by itself.
    """
    groups: list[tuple[list[Event], list[str]]] = []
    for event in events:
        text = _text(event)
        if text is not None and groups and groups[-1][1] and _go_together(groups[-1][0][-1], event):
            groups[-1][0].append(event)
            groups[-1][1].append(text)
        else:
            groups.append(([event], [] if text is None else [text]))
    return [_whole(parts, texts, sent_live) for parts, texts in groups]


def _text(event: Event) -> str | None:
    """The text of the event, if it is a piece of a text; None otherwise."""
    if isinstance(event, RunContentEvent):
        return event.content if event.content_type is None and isinstance(event.content, str) else None
    return event.reasoning_content if isinstance(event, ReasoningContentDeltaEvent) else None


def _go_together(first: Event, second: Event) -> bool:
    return type(first) is type(second) and first.source is second.source


def _whole(parts: Sequence[Event], texts: Sequence[str], sent_live: int) -> Piece:
    """Join pieces of one text into a new event; the old ones may still be in use."""
    last = parts[-1]
    if len(parts) == 1:
        return Piece(last)
    lengths = accumulate(len(text) for text in texts)
    cuts = [
        (part.seq, length) for part, length in zip(parts[:-1], lengths, strict=False) if part.seq <= sent_live
    ]
    return Piece(_with_text(last, "".join(texts)), tuple(cuts))


def _with_text(event: Event, text: str) -> Event:
    """A copy of the event with another text."""
    whole = copy.copy(event)
    if isinstance(whole, RunContentEvent):
        whole.content = text
    elif isinstance(whole, ReasoningContentDeltaEvent):
        whole.reasoning_content = text
    return whole


def pieces_in(delta: Delta, session_id: str) -> list[Piece] | None:
    """Read a delta; None if its events are not exactly those that Kern sent for a run of this session."""
    try:
        items = from_json(delta.data)
        pieces = [Piece(event_from_dict(item), _cuts(item.get(_CUTS, ()))) for item in items]
    except _UNREADABLE:
        return None
    numbers = [delta.after, *(piece.event.seq for piece in pieces)]
    rise = all(before < number for before, number in pairwise(numbers))
    if not pieces or not rise or numbers[-1] != delta.last_seq or delta.last_seq > LAST_NUMBER:
        return None
    return pieces if all(piece.event.source.session_id == session_id for piece in pieces) else None


def pieces_of(run_id: str, data: bytes) -> list[Piece]:
    """Read the result of `written`. Events that cannot be read are logged and skipped."""
    try:
        items: Any = from_json(data)
    except ValueError as error:
        log.warning("run %s: some of its events cannot be read, and are skipped: %s", run_id, error)
        return []
    pieces = []
    for item in items if isinstance(items, list) else [items]:
        try:
            pieces.append(Piece(event_from_dict(item), _cuts(item.get(_CUTS, ()))))
        except _UNREADABLE as error:
            log.warning("run %s: an event cannot be read, and is skipped: %s", run_id, error)
    return pieces


def _cuts(data: Any) -> Sequence[Cut]:
    return tuple((int(number), int(length)) for number, length in data)
