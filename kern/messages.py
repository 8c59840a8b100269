"""A conversation's messages and their parts: plain data, the same for every provider."""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import os
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, get_args

from kern.errors import UsageError
from kern.usage import Usage

Shelf: TypeAlias = MutableMapping[str, bytes]
"""Where bytes are put that JSON names by their SHA-256."""

Role = Literal["system", "developer", "user", "assistant", "tool"]
ROLES: tuple[str, ...] = get_args(Role)


def _short(value: object) -> str:
    return f"{repr(value)[:60]} ({type(value).__name__})"


_GIVEN_AS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "content": (bytes, "bytes (of base64 text: base64.b64decode(text))"),
    "filepath": ((str, os.PathLike), "a path, a str or a pathlib.Path"),
    **dict.fromkeys(("url", "mime_type", "name", "id", "sha256"), (str, "a str")),
}


@dataclass(slots=True, kw_only=True, repr=False)
class Media:
    """A picture, sound, video or file: exactly one of `url`, `content` and `filepath`.

    Args:
        url: Where the provider fetches it.
        content: The bytes themselves.
        filepath: A file, read once, when the run that is given it begins: what is written to it later does
            not change what was said.
        mime_type: Such as "image/png"; guessed from the file's name if not given.
        name: The file's name, as the model is told.
        id: An id of the application's, or of the provider's.
        sha256: Set by Kern where the bytes lie in a database, with the session, under this hash. Read back,
            they are in `content`; without them, they are not stored there any more.
    """

    url: str | None = None
    content: bytes | None = None
    filepath: str | Path | None = None
    mime_type: str | None = None
    name: str | None = None
    id: str | None = None
    sha256: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        content: object = self.content
        if isinstance(content, bytearray | memoryview):
            self.content = bytes(content)
        for name, (kinds, hint) in _GIVEN_AS.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kinds):
                raise UsageError(f"{type(self).__name__}({name}=...) takes {hint}, not {_short(value)}")
        given = [name for name in ("url", "content", "filepath") if getattr(self, name) is not None]
        if len(given) != 1 and self.id is None and self.sha256 is None:
            raise UsageError(
                f"{type(self).__name__} takes exactly one of url, content and filepath; "
                f"given: {', '.join(given) or 'none'}"
            )

    def __repr__(self) -> str:
        """What is set; of bytes how many, since a picture has millions."""
        values = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        shown = (
            f"{name}=<{len(value)} bytes>" if isinstance(value, bytes) else f"{name}={value!r}"
            for name, value in values.items()
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def read(self) -> bytes:
        """The bytes: `content`, or the file's (blocking)."""
        if self.content is not None:
            return self.content
        if self.filepath is None:
            raise UsageError(f"this {type(self).__name__} has no bytes, and no file to read them from")
        try:
            return Path(self.filepath).read_bytes()
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot read the file of a message: {error}") from error

    def loaded(self) -> Self:
        """The same with the bytes of its file (blocking); itself, if it names none.

        Raises:
            UsageError: The file cannot be read.
        """
        if self.filepath is None:
            return self
        return replace(self, content=self.read(), filepath=None, name=self.name or Path(self.filepath).name)

    def guess_mime_type(self, default: str) -> str:
        """`mime_type`, or what the name of the file or url tells, or `default`."""
        name = self.name or (str(self.filepath) if self.filepath else self.url) or ""
        return self.mime_type or mimetypes.guess_type(name)[0] or default

    def to_dict(self, shelf: Shelf | None = None) -> dict[str, Any]:
        """As JSON; bytes in base64, or, where there is a shelf for them, by their hash."""
        data: dict[str, Any] = {
            name: value
            for name in ("url", "mime_type", "name", "id")
            if (value := getattr(self, name)) is not None
        }
        if self.content is None and self.sha256 is not None:
            data["sha256"] = self.sha256
        elif self.content is not None and shelf is not None:
            data["sha256"] = hashlib.sha256(self.content).hexdigest()
            shelf[data["sha256"]] = self.content
        elif self.content is not None:
            data["content"] = base64.b64encode(self.content).decode()
        if self.filepath is not None:
            data["filepath"] = str(self.filepath)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The reverse of `to_dict`.

        Raises:
            ValueError: A value is not of its type.
        """
        values = dict(data)
        check_types(cls.__name__, values, _MEDIA_TYPES)
        if values.get("content") is not None:
            values["content"] = base64.b64decode(values["content"], validate=True)
        return cls(**values)


@dataclass(slots=True, kw_only=True, repr=False)
class Image(Media):
    """A picture for the model, or made by it."""

    detail: Literal["low", "high", "auto"] | None = None

    def to_dict(self, shelf: Shelf | None = None) -> dict[str, Any]:
        """As JSON; bytes in base64, or, where there is a shelf for them, by their hash."""
        data = Media.to_dict(self, shelf)
        if self.detail is not None:
            data["detail"] = self.detail
        return data


@dataclass(slots=True, kw_only=True, repr=False)
class Audio(Media):
    """Sound for the model, or made by it."""


@dataclass(slots=True, kw_only=True, repr=False)
class Video(Media):
    """A video for the model, or made by it."""


@dataclass(slots=True, kw_only=True, repr=False)
class File(Media):
    """A document for the model."""


@dataclass(slots=True)
class ToolCall:
    """A call that the model asks for.

    Args:
        id: The provider's id of the call; the result goes back under it.
        name: The tool's name.
        arguments: The arguments as the model wrote them: JSON text, possibly broken.
        provider_data: What the provider needs to see again with the call, such as its item id.
    """

    id: str
    name: str
    arguments: str = ""
    provider_data: dict[str, Any] | None = None

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


@dataclass(slots=True, repr=False)
class Message:
    """One message of a conversation.

    Args:
        role: Who speaks.
        content: The text.
        reasoning_content: The model's reasoning, where the provider shows it.
        commentary: What the model said about its work, marked by the provider as no part of the answer.
        said: The part of `content` that somebody said, where the application has added to it (dependencies,
            the context of a task) or put in all of it, which is "" (examples, corrections to the model).
            Only this part stands in later prompts and in the chat history.
        tool_calls: What an assistant message asks to be called.
        tool_call_id: For a tool message: the call that it answers.
        tool_name: For a tool message: the tool.
        tool_call_error: For a tool message: the call failed.
        stop_after_tool_call: For a tool message: the run ended with it.
        name: Who speaks, where several share a role.
        provider_data: What the provider needs to see again (reasoning items, signatures), under its name.
        usage: For an assistant message: what the request used.
        created_at: Seconds since the epoch.
        from_history: It was said in an earlier run.
    """

    role: Role
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] = field(default_factory=list)
    tool_call_id: str | None = None
    tool_name: str | None = None
    tool_call_error: bool = False
    stop_after_tool_call: bool = False
    name: str | None = None
    images: list[Image] = field(default_factory=list)
    audio: list[Audio] = field(default_factory=list)
    videos: list[Video] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    provider_data: dict[str, Any] | None = None
    usage: Usage | None = None
    created_at: int | None = None
    from_history: bool = False
    commentary: str | None = None
    said: str | None = None

    def __repr__(self) -> str:
        """What is set, without what most messages lack."""
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return f"Message({', '.join(f'{name}={value!r}' for name, value in values if value)})"

    def to_dict(self, shelf: Shelf | None = None) -> dict[str, Any]:
        """As JSON, without what is empty; bytes as `Media.to_dict` writes them."""
        # Spelled out, since it is done for each message of each run, and a loop over names costs far more.
        data: dict[str, Any] = {"role": self.role}
        if self.content is not None:
            data["content"] = self.content
        if self.reasoning_content is not None:
            data["reasoning_content"] = self.reasoning_content
        if self.commentary is not None:
            data["commentary"] = self.commentary
        if self.said is not None:
            data["said"] = self.said
        if self.tool_calls:
            data["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        if self.tool_call_id is not None:
            data["tool_call_id"] = self.tool_call_id
            data["tool_name"] = self.tool_name
        if self.tool_call_error:
            data["tool_call_error"] = True
        if self.stop_after_tool_call:
            data["stop_after_tool_call"] = True
        if self.name is not None:
            data["name"] = self.name
        if self.provider_data is not None:
            data["provider_data"] = self.provider_data
        if self.created_at is not None:
            data["created_at"] = self.created_at
        if self.from_history:
            data["from_history"] = True
        if self.images or self.audio or self.videos or self.files:
            for name in MEDIA:
                if items := getattr(self, name):
                    data[name] = [item.to_dict(shelf) for item in items]
        if self.usage is not None:
            data["usage"] = self.usage.to_dict()
        return data

    @property
    def media(self) -> list[Media]:
        """All that is not text."""
        return [*self.images, *self.audio, *self.videos, *self.files]

    def loaded(self) -> Message:
        """The same with the bytes of all files that it names (blocking); itself, if it names none.

        Raises:
            UsageError: A file cannot be read.
        """
        if all(media.filepath is None for media in self.media):
            return self
        loaded: dict[str, Any] = media_by_kind(media.loaded() for media in self.media)
        return replace(self, **loaded)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Message:
        """The reverse of `to_dict`.

        Raises:
            ValueError: A value is not of its type.
        """
        check_types(cls.__name__, data, _MESSAGE_TYPES)
        if data["role"] not in ROLES:
            raise ValueError(f"Message: role is one of {', '.join(ROLES)}, not {data['role']!r}")
        values = {name: data[name] for name in ("role", *_PLAIN) if name in data}
        values["tool_calls"] = [ToolCall.from_dict(call) for call in data.get("tool_calls", ())]
        for name, media in MEDIA.items():
            values[name] = [media.from_dict(item) for item in data.get(name, ())]
        if "usage" in data:
            values["usage"] = Usage.from_dict(data["usage"])
        return cls(**values)


_PLAIN = (
    "content",
    "reasoning_content",
    "commentary",
    "said",
    "tool_call_id",
    "tool_name",
    "tool_call_error",
    "stop_after_tool_call",
    "name",
    "provider_data",
    "created_at",
    "from_history",
)
_TEXT = (str, type(None))
_FLAG = (bool, type(None))
_RECORD = (dict, type(None))
_Types = Mapping[str, type | tuple[type, ...]]
_MEDIA_TYPES: _Types = dict.fromkeys(
    ("url", "content", "filepath", "mime_type", "name", "id", "sha256", "detail"), _TEXT
)
_CALL_TYPES: _Types = {"id": str, "name": str, "arguments": str, "provider_data": _RECORD}
_MESSAGE_TYPES: _Types = {
    "role": str,
    **dict.fromkeys(
        ("content", "reasoning_content", "commentary", "said", "tool_call_id", "tool_name", "name"), _TEXT
    ),
    **dict.fromkeys(("tool_call_error", "stop_after_tool_call", "from_history"), _FLAG),
    "tool_calls": list,
    **dict.fromkeys(("images", "audio", "videos", "files"), list),
    "provider_data": _RECORD,
    "created_at": (int, float, type(None)),
}


def check_types(what: str, data: Mapping[str, Any], types: _Types) -> None:
    """See that what was read back is of its type: a row is data from outside.

    Raises:
        ValueError: A value is not; the text names it.
    """
    for name, kind in types.items():
        if name in data and not isinstance(data[name], kind):
            raise ValueError(f"{what}: {name} is a {type(data[name]).__name__}")


MEDIA: dict[str, type[Media]] = {"images": Image, "audio": Audio, "videos": Video, "files": File}
"""The kinds of media, by the name under which messages, outputs and rows hold them."""


def media_by_kind(items: Iterable[Media]) -> dict[str, list[Any]]:
    """Media sorted by kind, under the names of `MEDIA`; kinds of which there are none are left out."""
    sorted_by: dict[str, list[Any]] = {}
    for item in items:
        for name, kind in MEDIA.items():
            if isinstance(item, kind):
                sorted_by.setdefault(name, []).append(item)
    return sorted_by


def with_context(messages: Sequence[Message], *, before: str = "", after: str = "") -> list[Message]:
    """The messages, with a text of the application's before or after what their last user says."""
    if not before and not after:
        return list(messages)
    at = max((at for at, message in enumerate(messages) if message.role == "user"), default=len(messages) - 1)
    asked = messages[at]
    if asked.role != "user" or not asked.content:
        return [*messages[:at], Message("user", before or after, said=""), *messages[at:]]
    content = "\n\n".join(text for text in (before, asked.content, after) if text)
    said = asked.content if asked.said is None else asked.said
    return [*messages[:at], replace(asked, content=content, said=said), *messages[at + 1 :]]
