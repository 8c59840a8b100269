"""The origin of a part of a message, and marks for the provider's prompt cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

CacheMark = Literal["5m", "1h"]
"""The provider may cache the prompt up to here, for this time. Providers without such marks ignore it."""

CACHE_MARKS: tuple[str, ...] = get_args(CacheMark)


class Origin(NamedTuple):
    """The provider and the model that made a part of a message.

    A part's data for its provider (`provider_data`, ids, signatures) is sent to no other provider.
    """

    provider: str
    model: str


def origin_in(data: Mapping[str, Any]) -> Origin | None:
    """Read the origin under "origin", a list of provider and model; None if there is none.

    Raises:
        ValueError: It is anything else.
    """
    match data.get("origin"):
        case None:
            return None
        case [str() as provider, str() as model]:
            return Origin(provider, model)
        case other:
            raise ValueError(f"origin must be a list of a provider and a model, not {other!r:.100}")


def cache_in(data: Mapping[str, Any]) -> Any:
    """Read the mark under "cache"; None if it is unknown: it is only a hint."""
    mark = data.get("cache")
    return mark if mark in CACHE_MARKS else None
