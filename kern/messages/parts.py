"""The parts of a message: text, reasoning, calls, media."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from kern.messages._checks import PLACE, RECORD, TEXT, Types, check_types, readable
from kern.messages.media import MEDIA, Media, Shelf
from kern.messages.origin import Origin

CallStatus = Literal["running", "completed", "failed"]
_STATUSES: tuple[str, ...] = get_args(CallStatus)


@dataclass(slots=True, kw_only=True)
class Citation:
    """The source of a piece of the model's text.

    Args:
        url: The cited page.
        title: The title of the page or document.
        text: The cited passage of the source.
        start, end: The piece of the part's text that the citation supports, as character offsets.
        file_id: The provider's id of the cited file.
        document: The index of the cited document in the prompt, from 0.
        provider_data: Data to send back to the provider with it.
        part: Which of the message's texts the citation belongs to, from 0.
        span: In `RunOutput.citations`, the cited piece as offsets in `RunOutput.content`; None if the
            provider does not report the place, or `content` does not contain that text.
    """

    url: str | None = None
    title: str | None = None
    text: str | None = None
    start: int | None = None
    end: int | None = None
    file_id: str | None = None
    document: int | None = None
    provider_data: dict[str, Any] | None = None
    part: int | None = field(default=None, compare=False)
    span: tuple[int, int] | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The citation as JSON, without fields that are None."""
        data = {name: value for name in _CITATION_TYPES if (value := getattr(self, name)) is not None}
        return readable("Citation", data, _CITATION_TYPES)

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
        text: The text.
        citations: The sources of the text.
        commentary: The text is about the model's work, and the provider keeps it apart from the answer.
        paragraph: It begins a paragraph: `Message.content` puts an empty line before it. If False, it
            continues the text before it.
        provider_data: Data to send back to the provider with it, such as its id.
        origin: The model that made it; None: the application did.
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
        text: The reasoning, as far as the provider shows it.
        signature: The provider's signature, to send back with the text.
        redacted: The redacted or encrypted form that only the provider can read, as it was sent.
        provider_data: Further data to send back to the provider, such as its id.
        origin: The model that made it; None: unknown.
    """

    text: str = ""
    _: KW_ONLY
    signature: str | None = None
    redacted: str | None = None
    provider_data: dict[str, Any] | None = None
    origin: Origin | None = field(default=None, compare=False)


@dataclass(slots=True)
class ToolCall:
    """A tool call of the model.

    Args:
        id: The id of the call, which the message with its result refers to.
        name: The tool's name.
        arguments: The arguments as the model wrote them: JSON text, perhaps invalid.
        provider_data: Data to send back to the provider with the call, such as its item id.
        origin: The model that made it; None: unknown.
    """

    id: str
    name: str
    arguments: str = ""
    provider_data: dict[str, Any] | None = None
    origin: Origin | None = field(default=None, compare=False, kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        """The call as JSON."""
        data: dict[str, Any] = {"id": self.id, "name": self.name, "arguments": self.arguments}
        if self.provider_data is not None:
            data["provider_data"] = self.provider_data
        for name, value in data.items():
            if not isinstance(value, _CALL_TYPES[name]):
                return readable("ToolCall", data, _CALL_TYPES)
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
    """A call that the provider ran itself: web search, code execution, file search, MCP, image generation.

    Args:
        id: The provider's id of the call.
        name: The provider's tool, such as "web_search".
        arguments: The arguments as JSON text.
        result: The result as JSON data.
        status: "completed" or "failed"; "running" only in events, while the call is in progress.
        media: Images and files that the call made.
        provider_data: The call as the provider sent it, to send it back.
        origin: The model that made the call.
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
        """The call as JSON; `Media.to_dict` writes the bytes of media."""
        data: dict[str, Any] = {"id": self.id, "name": self.name, "arguments": self.arguments}
        if self.result is not None:
            data["result"] = self.result
        if self.status != "completed" and self.status in _STATUSES:
            data["status"] = self.status
        if self.media:
            data["media"] = [{"kind": kind_of_media(item), **item.to_dict(shelf)} for item in self.media]
        if self.provider_data is not None:
            data["provider_data"] = self.provider_data
        return readable("ProviderCall", data, _PROVIDER_CALL_TYPES)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ProviderCall:
        """The reverse of `to_dict`.

        Raises:
            ValueError: A value is not of its type.
        """
        check_types(cls.__name__, data, _PROVIDER_CALL_TYPES)
        if (status := data.get("status", "completed")) not in _STATUSES:
            raise ValueError(
                f"{cls.__name__}: status must be one of {', '.join(_STATUSES)}, not {status!r:.60}"
            )
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
    """The name of the item's kind in `MEDIA`, such as "images"."""
    return next(name for name, kind in MEDIA.items() if isinstance(item, kind))


def media_from_dict(data: Mapping[str, Any]) -> Media:
    """Read media from JSON that has its "kind".

    Raises:
        ValueError: The kind is unknown, or a value is not of its type.
    """
    values = dict(data)
    kind = MEDIA.get(str(values.pop("kind", None)))
    if kind is None:
        raise ValueError(f"media: kind must be one of {', '.join(MEDIA)}, not {data.get('kind')!r:.60}")
    return kind.from_dict(values)


_CITATION_TYPES: Types = {
    **dict.fromkeys(("url", "title", "text", "file_id"), TEXT),
    **dict.fromkeys(("start", "end", "document", "part"), PLACE),
    "provider_data": RECORD,
}
_CALL_TYPES: Types = {"id": str, "name": str, "arguments": str, "provider_data": RECORD}
_PROVIDER_CALL_TYPES: Types = {**_CALL_TYPES, "status": str, "media": list}
