"""What a message is made of, in order: texts, reasoning, calls, media."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from kern.messages._checks import PLACE, RECORD, TEXT, Types, check_types
from kern.messages.media import MEDIA, Media, Shelf
from kern.messages.origin import Origin

CallStatus = Literal["running", "completed", "failed"]
_STATUSES: tuple[str, ...] = get_args(CallStatus)


@dataclass(slots=True, kw_only=True)
class Citation:
    """Where words of the model come from.

    Args:
        url: The page that is cited.
        title: Its title, or the document's.
        text: The words of the source that are cited.
        start, end: The place that the citation belongs to, in characters of the part's text.
        file_id: The provider's id of the file that is cited.
        document: Which of the documents in the prompt is cited, counted from 0.
        provider_data: What the provider needs to see again with it.
    """

    url: str | None = None
    title: str | None = None
    text: str | None = None
    start: int | None = None
    end: int | None = None
    file_id: str | None = None
    document: int | None = None
    provider_data: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without what is not known."""
        return {name: value for name in _CITATION_TYPES if (value := getattr(self, name)) is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Citation:
        """The reverse of `to_dict`.

        Raises:
            ValueError: A value is not of its type.
        """
        check_types(cls.__name__, data, _CITATION_TYPES)
        return cls(**{name: data[name] for name in _CITATION_TYPES if name in data})


@dataclass(slots=True)
class TextPart:
    """A text, or a piece of one.

    Args:
        text: The words.
        citations: Where they come from.
        commentary: What the model said about its work, marked by the provider as no part of the answer.
        paragraph: It begins a paragraph: in `Message.content` an empty line separates it from the text
            before it. Otherwise it goes on where that text ends.
        provider_data: What the provider needs to see again with it, such as its id.
        origin: Who made it; None: the application.
    """

    text: str
    _: KW_ONLY
    citations: list[Citation] = field(default_factory=list)
    commentary: bool = False
    paragraph: bool = False
    provider_data: dict[str, Any] | None = None
    origin: Origin | None = field(default=None, compare=False)


@dataclass(slots=True)
class ReasoningPart:
    """A step of the model's reasoning.

    Args:
        text: What the provider shows of it.
        signature: The provider's signature of it, which goes back with it.
        redacted: The form in which only the provider can read it (redacted, or encrypted), as it was sent.
        provider_data: What else the provider needs to see again with it, such as its id.
        origin: Who made it; None: unknown.
    """

    text: str = ""
    _: KW_ONLY
    signature: str | None = None
    redacted: str | None = None
    provider_data: dict[str, Any] | None = None
    origin: Origin | None = field(default=None, compare=False)


@dataclass(slots=True)
class ToolCall:
    """A call that the model asks for.

    Args:
        id: The provider's id of the call; the result goes back under it.
        name: The tool's name.
        arguments: The arguments as the model wrote them: JSON text, possibly broken.
        provider_data: What the provider needs to see again with the call, such as its item id.
        origin: Who asked for it; None: unknown.
    """

    id: str
    name: str
    arguments: str = ""
    provider_data: dict[str, Any] | None = None
    origin: Origin | None = field(default=None, compare=False, kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        data: dict[str, Any] = {"id": self.id, "name": self.name, "arguments": self.arguments}
        if self.provider_data is not None:
            data["provider_data"] = self.provider_data
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ToolCall:
        """The reverse of `to_dict`.

        Raises:
            ValueError: A value is not of its type.
        """
        check_types(cls.__name__, data, _CALL_TYPES)
        return cls(data["id"], data["name"], data.get("arguments", ""), data.get("provider_data"))


@dataclass(slots=True)
class ProviderCall:
    """A call that the provider itself carried out: a web search, code, files, an MCP server, a picture.

    Args:
        id: The provider's id of the call.
        name: The provider's tool, such as "web_search".
        arguments: What it was called with, as JSON text.
        result: What came out of it, as JSON.
        status: "running" while it goes on; in a message, "completed" or "failed".
        media: Pictures and files that it made.
        provider_data: What the provider needs to see again: the call as it sent it.
        origin: Who carried it out.
    """

    id: str
    name: str
    arguments: str = ""
    _: KW_ONLY
    result: Any = None
    status: CallStatus = "completed"
    media: list[Media] = field(default_factory=list)
    provider_data: dict[str, Any] | None = None
    origin: Origin | None = field(default=None, compare=False)

    def to_dict(self, shelf: Shelf | None = None) -> dict[str, Any]:
        """As JSON; bytes as `Media.to_dict` writes them."""
        data: dict[str, Any] = {"id": self.id, "name": self.name, "arguments": self.arguments}
        if self.result is not None:
            data["result"] = self.result
        if self.status != "completed":
            data["status"] = self.status
        if self.media:
            data["media"] = [{"kind": kind_of_media(item), **item.to_dict(shelf)} for item in self.media]
        if self.provider_data is not None:
            data["provider_data"] = self.provider_data
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProviderCall:
        """The reverse of `to_dict`.

        Raises:
            ValueError: A value is not of its type.
        """
        check_types(cls.__name__, data, _PROVIDER_CALL_TYPES)
        if (status := data.get("status", "completed")) not in _STATUSES:
            raise ValueError(f"{cls.__name__}: status is one of {', '.join(_STATUSES)}, not {status!r:.60}")
        return cls(
            data["id"],
            data["name"],
            data.get("arguments", ""),
            result=data.get("result"),
            status=status,
            media=[media_from_dict(item) for item in data.get("media", ())],
            provider_data=data.get("provider_data"),
        )


Part: TypeAlias = TextPart | ReasoningPart | ToolCall | ProviderCall | Media
"""A part of a message."""


def kind_of_media(item: Media) -> str:
    """The name in `MEDIA` of the item's kind."""
    return next(name for name, kind in MEDIA.items() if isinstance(item, kind))


def media_from_dict(data: Mapping[str, Any]) -> Media:
    """Media written with its "kind".

    Raises:
        ValueError: Its kind is not known, or a value is not of its type.
    """
    values = dict(data)
    kind = MEDIA.get(str(values.pop("kind", None)))
    if kind is None:
        raise ValueError(f"media are of a kind such as images, not {data.get('kind')!r:.60}")
    return kind.from_dict(values)


_CITATION_TYPES: Types = {
    **dict.fromkeys(("url", "title", "text", "file_id"), TEXT),
    **dict.fromkeys(("start", "end", "document"), PLACE),
    "provider_data": RECORD,
}
_CALL_TYPES: Types = {"id": str, "name": str, "arguments": str, "provider_data": RECORD}
_PROVIDER_CALL_TYPES: Types = {**_CALL_TYPES, "status": str, "media": list}
