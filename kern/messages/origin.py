"""Who made a part of a message, and how long a provider may keep it in its cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

CacheMark = Literal["5m", "1h"]
"""A provider may cache all of a prompt up to here, for so long. One without such marks passes over it."""

CACHE_MARKS: tuple[str, ...] = get_args(CacheMark)


class Origin(NamedTuple):
    """Which provider and model made a part of a message.

    What a part holds for its provider alone (`provider_data`, ids, signatures) goes to no other.
    """

    provider: str
    model: str


def origin_in(data: Mapping[str, Any]) -> Origin | None:
    """The origin that was written under "origin", as a list of two texts.

    Raises:
        ValueError: It is something else.
    """
    match data.get("origin"):
        case None:
            return None
        case [str() as provider, str() as model]:
            return Origin(provider, model)
        case other:
            raise ValueError(f"origin is a provider and a model, not {other!r:.100}")


def cache_in(data: Mapping[str, Any]) -> Any:
    """The cache mark that was written under "cache"; None for one that is not known, since it is a hint."""
    mark = data.get("cache")
    return mark if mark in CACHE_MARKS else None
