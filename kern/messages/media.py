"""Images, audio, videos and files: parts of messages, and results of tools and runs."""

from __future__ import annotations

import base64
import hashlib
import mimetypes
import os
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from kern._keywords import ChecksArguments
from kern.errors import UsageError
from kern.messages._checks import RECORD, TEXT, Types, as_stored, check_types, readable
from kern.messages.origin import CacheMark, Origin, cache_in, origin_in

Shelf: TypeAlias = MutableMapping[str, bytes]
"""Holds bytes by their SHA-256 (hex), which the JSON of a message refers to."""


def _short(value: object) -> str:
    return f"{repr(value)[:60]} ({type(value).__name__})"


_GIVEN_AS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "content": (bytes, "bytes (of base64 text: base64.b64decode(text))"),
    "filepath": ((str, os.PathLike), "a path, a str or a pathlib.Path"),
    **dict.fromkeys(("url", "mime_type", "name", "id", "sha256"), (str, "a str")),
}


@dataclass(slots=True, kw_only=True, repr=False)
class Media(ChecksArguments):
    """An image, audio, video or file. Pass exactly one of `url`, `content` and `filepath`, or an `id`.

    Args:
        url: The address from which the provider fetches it.
        content: The bytes.
        filepath: The path of a file. It is read once, at the beginning of the run; later changes of the file
            have no effect on the message.
        mime_type: The MIME type, such as "image/png"; by default guessed from the file's name.
        name: The file's name, which the model may read.
        id: The id of a file that was uploaded to the provider, or an id of the application.
        sha256: Set by Kern if the database stores the bytes under this hash. After loading they are in
            `content`; if `content` is None, the database no longer has them.
        cache: The provider may cache the prompt up to here, for this time.
        provider_data: Data to send back to the provider that made it.
        origin: The model that made it; None: the application did.

    Raises:
        UsageError: A value has the wrong type, or not exactly one source is given.
    """

    url: str | None = None
    content: bytes | None = None
    filepath: str | Path | None = None
    mime_type: str | None = None
    name: str | None = None
    id: str | None = None
    sha256: str | None = field(default=None, compare=False)
    cache: CacheMark | None = None
    provider_data: dict[str, Any] | None = None
    origin: Origin | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        content: object = self.content
        if isinstance(content, bytearray | memoryview):
            self.content = bytes(content)
        for name, (kinds, hint) in _GIVEN_AS.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kinds):
                raise UsageError(f"{type(self).__name__}({name}=...) must be {hint}, not {_short(value)}")
        given = [name for name in ("url", "content", "filepath") if getattr(self, name) is not None]
        if len(given) != 1 and self.id is None and self.sha256 is None:
            raise UsageError(
                f"{type(self).__name__} needs exactly one of url, content and filepath; "
                f"given: {', '.join(given) or 'none'}"
            )

    def __repr__(self) -> str:
        """The fields that are set; of bytes only their number."""
        values = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        shown = (
            f"{name}=<{len(value)} bytes>" if isinstance(value, bytes) else f"{name}={value!r}"
            for name, value in values.items()
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def read(self) -> bytes:
        """The bytes: `content`, or those of the file (blocking).

        Raises:
            UsageError: It has neither, or the file cannot be read.
        """
        if self.content is not None:
            return self.content
        if self.filepath is None:
            raise UsageError(f"{self!r} has no bytes: pass content or filepath")
        try:
            return Path(self.filepath).read_bytes()
        except (OSError, ValueError) as error:
            raise UsageError(
                f"the file {str(self.filepath)!r} of a message cannot be read: {error}"
            ) from error

    def loaded(self) -> Self:
        """A copy with the bytes of its file (blocking); itself if it has no file.

        Raises:
            UsageError: The file cannot be read.
        """
        if self.filepath is None:
            return self
        return replace(self, content=self.read(), filepath=None, name=self.name or Path(self.filepath).name)

    def guess_mime_type(self, default: str) -> str:
        """`mime_type`, or a guess from the name of the file or url, or `default`."""
        name = self.name or (str(self.filepath) if self.filepath else self.url) or ""
        return self.mime_type or mimetypes.guess_type(name)[0] or default

    def to_dict(self, shelf: Shelf | None = None) -> dict[str, Any]:
        """The media as JSON; the bytes in base64 or, if a shelf is given, put there and named by their
        hash.
        """
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
        if self.cache is not None:
            data["cache"] = self.cache
        if self.provider_data is not None:
            data["provider_data"] = self.provider_data
        if self.origin is not None:
            data["origin"] = list(self.origin)
        return readable(type(self).__name__, data, _MEDIA_TYPES)

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
        if "cache" in values:
            values["cache"] = cache_in(values)
        if "origin" in values:
            values["origin"] = origin_in(values)
        return cls(**values)


@dataclass(slots=True, kw_only=True, repr=False)
class Image(Media):
    """An image for the model, or made by it."""

    detail: Literal["low", "high", "auto"] | None = None
    """The resolution at which OpenAI's models see the image; None leaves it to the provider."""

    def to_dict(self, shelf: Shelf | None = None) -> dict[str, Any]:
        """The image as JSON; see `Media.to_dict`."""
        data = Media.to_dict(self, shelf)
        if self.detail is not None:
            data["detail"] = as_stored("Image", "detail", self.detail, TEXT)
        return data


@dataclass(slots=True, kw_only=True, repr=False)
class Audio(Media):
    """Audio for the model, or made by it."""


@dataclass(slots=True, kw_only=True, repr=False)
class Video(Media):
    """A video for the model, or made by it."""


@dataclass(slots=True, kw_only=True, repr=False)
class File(Media):
    """A document for the model."""


_MEDIA_TYPES: Types = {
    **dict.fromkeys(("url", "content", "filepath", "mime_type", "name", "id", "sha256", "detail"), TEXT),
    "provider_data": RECORD,
}

MEDIA: dict[str, type[Media]] = {"images": Image, "audio": Audio, "videos": Video, "files": File}
"""The kinds of media, by the name of their field in messages, outputs and rows."""


def media_by_kind(items: Iterable[Media]) -> dict[str, list[Any]]:
    """Media grouped by kind, by the names in `MEDIA`; without kinds that do not occur."""
    sorted_by: dict[str, list[Any]] = {}
    for item in items:
        for name, kind in MEDIA.items():
            if isinstance(item, kind):
                sorted_by.setdefault(name, []).append(item)
    return sorted_by
