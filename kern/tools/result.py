"""What a tool returned: the text that the model is told, and the media."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pydantic
from pydantic_core import PydanticSerializationError

from kern._json import json_bytes
from kern.messages import Media

_JSON = (Mapping, list, tuple, set, frozenset)


class Chunks(list[Any]):
    """What a generator has yielded."""


@dataclass(slots=True, frozen=True)
class Result:
    """A tool's value, taken apart.

    Args:
        text: What the model reads; a picture, sound, video or file is mentioned in it.
        media: Those themselves.
    """

    text: str
    media: Sequence[Media] = ()


def result_of(value: Any) -> Result:
    """A tool's value as text and media.

    Media are a value by themselves, or items of a list or tuple, or pieces of a generator. The texts of a
    generator's pieces are joined as they are, those of a list with media line by line.
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
    """The text for a tool's result: a str as it is, None as nothing, structured values as JSON.

    Objects that JSON does not know are written with `str()`, alone or within a structure; so is a structure
    that cannot be JSON at all, such as one that holds itself.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if _is_structured(value):
        try:
            return json_bytes(value, fallback=str).decode()
        except (PydanticSerializationError, ValueError):
            return str(value)
    return str(value)


def prompt_text(value: Any) -> str:
    """A value for a block of a prompt: a text, or JSON without `<`, so that no value in it ends the block."""
    return value if isinstance(value, str) else without_tags(result_text(value))


def without_tags(json_text: str) -> str:
    """JSON text that says the same, without `<`."""
    return json_text.replace("<", "\\u003c")


def mention(media: Media) -> str:
    """A word for a picture, sound, video or file, in a text that comes with it."""
    kind = type(media).__name__.lower()
    return f"[{kind}: {media.name}]" if media.name else f"[{kind}]"
