"""Converts what a tool returned into a text for the model, and media."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kern._json import value_text
from kern.messages import Media


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
        return Result(value_text(value))
    parts = [mention(item) if isinstance(item, Media) else value_text(item) for item in value]
    media = [item for item in value if isinstance(item, Media)]
    return Result(("" if generated else "\n").join(parts), media)


def prompt_text(value: Any) -> str:
    """A value for a tagged block of a prompt: a str as it is, or JSON without `<`, which cannot end the
    block.
    """
    return value_text(value) if isinstance(value, str) else without_tags(value_text(value))


def without_tags(json_text: str) -> str:
    """The same JSON with each `<` as an escape."""
    return json_text.replace("<", "\\u003c")


def mention(media: Media) -> str:
    """The text in place of an image, audio, video or file, such as "[image: cat.png]"."""
    kind = type(media).__name__.lower()
    return f"[{kind}: {media.name}]" if media.name else f"[{kind}]"
