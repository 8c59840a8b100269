"""The parts of a message in its JSON.

The JSON holds the message's views as they have always been written (`content`, `tool_calls`, `images` and so
on). Where they do not say all, "parts" holds beside them, in order, what they do not say of each part; the
text of a kind that has one part alone, calls and media are not written twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kern.messages._checks import FLAG, RECORD, TEXT, Types, check_types
from kern.messages._views import rank, reasoning_of, text_of
from kern.messages.media import MEDIA, Media, Shelf
from kern.messages.origin import Origin, origin_in
from kern.messages.parts import Citation, Part, ProviderCall, ReasoningPart, TextPart, ToolCall, kind_of_media

_TEXT_VIEWS = {"text": "content", "commentary": "commentary", "reasoning": "reasoning_content"}


def put_parts(data: dict[str, Any], parts: Sequence[Part], shelf: Shelf | None) -> None:
    """Put the parts, of which there are some, into the JSON of their message."""
    first = parts[0]
    if len(parts) == 1 and type(first) is TextPart and not _says_more(first):  # as most messages are
        data["commentary" if first.commentary else "content"] = first.text
        origin = first.origin
    else:
        origin = maker(parts)
        data |= _texts(parts)
        for part in parts:
            if isinstance(part, ToolCall):
                data.setdefault("tool_calls", []).append(part.to_dict())
            elif isinstance(part, Media):
                data.setdefault(kind_of_media(part), []).append(part.to_dict(shelf))
        if not is_plain(parts, origin):
            data["parts"] = _parts_to_list(parts, origin, shelf)
    if origin is not None:
        data["origin"] = list(origin)


def _says_more(part: TextPart) -> bool:
    """Whether there is more to say of the part than its text, and who made it."""
    return bool(part.citations) or part.paragraph or part.provider_data is not None


def _texts(parts: Sequence[Part]) -> dict[str, str]:
    texts = {
        "content": text_of(parts, commentary=False),
        "reasoning_content": reasoning_of(parts),
        "commentary": text_of(parts, commentary=True),
    }
    return {name: text for name, text in texts.items() if text is not None}


def parts_from_dict(data: Mapping[str, Any]) -> list[Part]:
    """The parts of a message, out of its JSON.

    Raises:
        ValueError: A value is not of its type, or a part is not there.
    """
    origin = origin_in(data)
    calls: list[Part] = [ToolCall.from_dict(call) for call in data.get("tool_calls", ())]
    media = {
        name: [kind.from_dict(item) for item in data[name]] for name, kind in MEDIA.items() if name in data
    }
    if "parts" in data:
        views: dict[str, Iterator[Part]] = {name: iter(items) for name, items in media.items()}
        return _parts_from_list(data["parts"], data, views | {"tool_call": iter(calls)}, origin)
    parts: list[Part] = []
    if (reasoning := data.get("reasoning_content")) is not None:
        parts.append(ReasoningPart(reasoning, origin=origin))
    if (commentary := data.get("commentary")) is not None:
        parts.append(TextPart(commentary, commentary=True, origin=origin))
    if (content := data.get("content")) is not None:
        parts.append(TextPart(content, origin=origin))
    for items in media.values():
        parts += items
    if origin is not None:
        for call in calls:
            call.origin = origin
    return parts + calls


def maker(parts: Sequence[Part]) -> Origin | None:
    """Who made the first of the parts, which is most often who made all; media tell it themselves."""
    return next((part.origin for part in parts if not isinstance(part, Media)), None)


def is_plain(parts: Sequence[Part], origin: Origin | None) -> bool:
    """Whether the views and the origin say all that there is to say of the parts."""
    last = -1
    for part in parts:
        if not isinstance(part, Media) and part.origin != origin:  # media tell it themselves
            return False
        if isinstance(part, TextPart):
            if _says_more(part):
                return False
        elif isinstance(part, ReasoningPart):
            told = part.signature is None and part.redacted is None and part.provider_data is None
            if not (told and part.text):
                return False
        elif isinstance(part, ProviderCall):
            return False
        place = rank(part)
        if place < last or (place == last and place < 3):  # of texts and reasoning one each
            return False
        last = place
    return _media_sorted(parts)


def _media_sorted(parts: Sequence[Part]) -> bool:
    kinds = [kind_of_media(part) for part in parts if isinstance(part, Media)]
    return len(kinds) < 2 or kinds == sorted(kinds, key=list(MEDIA).index)


def _parts_to_list(parts: Sequence[Part], origin: Origin | None, shelf: Shelf | None) -> list[dict[str, Any]]:
    """The parts as JSON, without what the views say of them."""
    kinds = [kind_name(part) for part in parts]
    counts = Counter(kinds)
    entries = []
    for part, kind in zip(parts, kinds, strict=True):
        entry: dict[str, Any] = {"type": kind}
        if isinstance(part, TextPart | ReasoningPart):
            if counts[kind] > 1 or not part.text:
                entry["text"] = part.text
            if part.provider_data is not None:
                entry["provider_data"] = part.provider_data
        if isinstance(part, TextPart):
            if part.citations:
                entry["citations"] = [citation.to_dict() for citation in part.citations]
            if part.paragraph:
                entry["paragraph"] = True
        elif isinstance(part, ReasoningPart):
            if part.signature is not None:
                entry["signature"] = part.signature
            if part.redacted is not None:
                entry["redacted"] = part.redacted
        elif isinstance(part, ProviderCall):
            entry |= part.to_dict(shelf)
        if part.origin != origin and not isinstance(part, Media):  # media tell it themselves
            entry["origin"] = part.origin and list(part.origin)
        entries.append(entry)
    return entries


def kind_name(part: Part) -> str:
    """The name of a part's kind in JSON; of media the name of their view."""
    match part:
        case TextPart():
            return "commentary" if part.commentary else "text"
        case ReasoningPart():
            return "reasoning"
        case ToolCall():
            return "tool_call"
        case ProviderCall():
            return "provider_call"
    return kind_of_media(part)


def _parts_from_list(
    entries: Sequence[Any],
    data: Mapping[str, Any],
    views: Mapping[str, Iterator[Part]],
    origin: Origin | None,
) -> list[Part]:
    """The reverse of `_parts_to_list`.

    Args:
        entries: What was written of the parts.
        data: The message's JSON, which holds the texts.
        views: The calls and the media, by the names of their kinds.
        origin: Who made the parts that say nothing of it.

    Raises:
        ValueError: A value is not of its type, or a part is not there.
    """
    parts = []
    for entry in entries:
        check_types("Message", {"part": entry}, {"part": dict})
        check_types("Message: a part", entry, _ENTRY_TYPES)
        part = _part(entry, data, views)
        if "origin" in entry:
            part.origin = origin_in(entry)
        elif not isinstance(part, Media):
            part.origin = origin
        parts.append(part)
    if any(next(view, None) is not None for view in views.values()):
        raise ValueError("Message: parts has not all of its calls and media")
    return parts


def _part(entry: dict[str, Any], data: Mapping[str, Any], views: Mapping[str, Iterator[Part]]) -> Part:
    kind, own = entry.get("type"), entry.get("provider_data")
    if kind == "provider_call":
        return ProviderCall.from_dict(entry)
    if (view := views.get(kind or "")) is not None:
        part = next(view, None)
        if part is None:
            raise ValueError(f"Message: parts has more of {kind!r} than there are")
        return part
    if kind not in _TEXT_VIEWS:
        raise ValueError(f"Message: a part is of an unknown type, {kind!r:.60}")
    text: Any = entry["text"] if "text" in entry else data.get(_TEXT_VIEWS[kind])
    check_types("Message: a part", {"text": text}, {"text": str})
    if kind == "reasoning":
        signature, redacted = entry.get("signature"), entry.get("redacted")
        return ReasoningPart(text, signature=signature, redacted=redacted, provider_data=own)
    cited = [Citation.from_dict(citation) for citation in entry.get("citations", ())]
    paragraph = bool(entry.get("paragraph"))
    return TextPart(
        text, citations=cited, commentary=kind == "commentary", paragraph=paragraph, provider_data=own
    )


_ENTRY_TYPES: Types = {
    "type": str,
    **dict.fromkeys(("text", "signature", "redacted"), TEXT),
    "provider_data": RECORD,
    "citations": list,
    "paragraph": FLAG,
}
