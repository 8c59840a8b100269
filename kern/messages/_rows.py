"""Writes the parts of a message as JSON for a database, and reads them back.

The JSON contains the message's views (`content`, `tool_calls`, `images` and so on), as older versions of Kern
wrote them. If the views do not say all, "parts" lists for each part, in order, what they leave out. Calls and
media, and a text that is the only one of its kind, are not written twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kern.messages._checks import FLAG, RECORD, TEXT, Types, as_stored, check_types, readable
from kern.messages._views import rank, reasoning_of, text_of
from kern.messages.media import MEDIA, Media, Shelf
from kern.messages.origin import Origin, origin_in
from kern.messages.parts import Citation, Part, ProviderCall, ReasoningPart, TextPart, ToolCall, kind_of_media

_TEXT_VIEWS = {"text": "content", "commentary": "commentary", "reasoning": "reasoning_content"}


def put_parts(data: dict[str, Any], parts: Sequence[Part], shelf: Shelf | None) -> None:
    """Write the parts, at least one, into the JSON of their message."""
    origin = maker(parts)
    for part in parts:
        if type(part) is not ToolCall or part.origin != origin:
            break
    else:  # only calls, as in most answers that have any
        data["tool_calls"] = [part.to_dict() for part in parts if type(part) is ToolCall]
        if origin is not None:
            data["origin"] = list(origin)
        return
    parts = _with_texts(parts)
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


def _with_texts(parts: Sequence[Part]) -> Sequence[Part]:
    """The same parts, with texts that are text."""
    for part in parts:
        if isinstance(part, TextPart | ReasoningPart) and type(part.text) is not str:
            break
    else:
        return parts
    return [
        replace(part, text=as_stored("Message: a part", "text", part.text, str))
        if isinstance(part, TextPart | ReasoningPart)
        else part
        for part in parts
    ]


def _says_more(part: TextPart) -> bool:
    """Whether the part has more than its text and origin."""
    return bool(part.citations) or part.paragraph or part.provider_data is not None


def _texts(parts: Sequence[Part]) -> dict[str, str]:
    texts = {
        "content": text_of(parts, commentary=False),
        "reasoning_content": reasoning_of(parts),
        "commentary": text_of(parts, commentary=True),
    }
    return {name: text for name, text in texts.items() if text is not None}


def parts_from_dict(data: Mapping[str, Any]) -> list[Part]:
    """Read the parts of a message from its JSON.

    Raises:
        ValueError: A value is not of its type, or a part is missing.
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
    """The origin of the first part, which is usually that of all; media write their own."""
    return next((part.origin for part in parts if not isinstance(part, Media)), None)


def is_plain(parts: Sequence[Part], origin: Origin | None) -> bool:
    """Whether the views and the origin describe the parts completely."""
    last = -1
    for part in parts:
        if not isinstance(part, Media) and part.origin != origin:  # media write their own
            return False
        if isinstance(part, TextPart):
            if _says_more(part):
                return False
        elif isinstance(part, ReasoningPart):
            is_plain = part.signature is None and part.redacted is None and part.provider_data is None
            if not (is_plain and part.text):
                return False
        elif isinstance(part, ProviderCall):
            return False
        place = rank(part)
        if place < last or (place == last and place < 3):  # at most one text and one reasoning
            return False
        last = place
    return _media_sorted(parts)


def _media_sorted(parts: Sequence[Part]) -> bool:
    kinds = [kind_of_media(part) for part in parts if isinstance(part, Media)]
    return len(kinds) < 2 or kinds == sorted(kinds, key=list(MEDIA).index)


def _parts_to_list(parts: Sequence[Part], origin: Origin | None, shelf: Shelf | None) -> list[dict[str, Any]]:
    """The parts as JSON, without what the views contain."""
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
        entry = readable("Message: a part", entry, _ENTRY_TYPES)
        if part.origin != origin and not isinstance(part, Media):  # media write their own
            entry["origin"] = part.origin and list(part.origin)
        entries.append(entry)
    return entries


def kind_name(part: Part) -> str:
    """The name of a part's kind in JSON; for media the name of their view."""
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
        entries: The entries of "parts".
        data: The JSON of the message, which contains the texts.
        views: The calls and the media, by the names of their kinds.
        origin: The origin of parts without an entry for it.

    Raises:
        ValueError: A value is not of its type, or a part is missing.
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
        raise ValueError("Message: parts does not list all of the message's calls and media")
    return parts


def _part(entry: dict[str, Any], data: Mapping[str, Any], views: Mapping[str, Iterator[Part]]) -> Part:
    kind, own = entry.get("type"), entry.get("provider_data")
    if kind == "provider_call":
        return ProviderCall.from_dict(entry)
    if (view := views.get(kind or "")) is not None:
        part = next(view, None)
        if part is None:
            raise ValueError(f"Message: parts lists more of {kind!r} than the message has")
        return part
    if kind not in _TEXT_VIEWS:
        raise ValueError(f"Message: a part has the unknown type {kind!r:.60}")
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
