"""Converts what a tool returned into a text for the model, and media."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pydantic
from pydantic_core import PydanticSerializationError

from kern._json import json_bytes
from kern.messages import Media

_JSON = (Mapping, list, tuple, set, frozenset)


class Chunks(list[Any]):
    """The values that a generator yielded."""


@dataclass(slots=True, frozen=True)
class Result:
    """A tool's return value as text and media.

    Args:
        text: The text for the model; it mentions each image, audio, video and file.
        media: The media themselves.
    """

    text: str
    media: Sequence[Media] = ()


def result_of(value: Any) -> Result:
    """Split a tool's return value into text and media.

    Media may be the value itself, or items of a list, tuple or generator. The texts of a generator's pieces
    are concatenated; those of a list with media are joined by newlines.
    """
    if isinstance(value, Media):
        return Result(mention(value), (value,))
    generated = isinstance(value, Chunks)
    if not generated and not (
        isinstance(value, list | tuple) and any(isinstance(item, Media) for item in value)
    ):
        return Result(result_text(value))
    parts = [mention(item) if isinstance(item, Media) else result_text(item) for item in value]
    media = [item for item in value if isinstance(item, Media)]
    return Result(("" if generated else "\n").join(parts), media)


def _is_structured(value: Any) -> bool:
    if isinstance(value, type):
        return False
    return isinstance(value, (*_JSON, pydantic.BaseModel)) or dataclasses.is_dataclass(value)


def result_text(value: Any) -> str:
    """A tool's result as text: a str as it is, None as "", a member of an Enum as its value, structured
    values as JSON.

    Objects without a JSON form are written with `str()`, also inside a structure. So is a structure that
    cannot be JSON at all, such as one that contains itself.
    """
    if isinstance(value, Enum):  # the value, as inside a structure
        value = value.value
    if isinstance(value, str):
        return str.__str__(value)  # not what a subclass makes of it
    if value is None:
        return ""
    if _is_structured(value):
        try:
            return json_bytes(value, fallback=str).decode()
        except (PydanticSerializationError, ValueError):
            return str(value)
    return str(value)


def prompt_text(value: Any) -> str:
    """A value for a tagged block of a prompt: a str as it is, or JSON without `<`, which cannot end the
    block.
    """
    return result_text(value) if isinstance(value, str) else without_tags(result_text(value))


def without_tags(json_text: str) -> str:
    """The same JSON with each `<` as an escape."""
    return json_text.replace("<", "\\u003c")


def mention(media: Media) -> str:
    """The text in place of an image, audio, video or file, such as "[image: cat.png]"."""
    kind = type(media).__name__.lower()
    return f"[{kind}: {media.name}]" if media.name else f"[{kind}]"
