"""What the generations of Gemini differ in, told by a model's id."""

from __future__ import annotations

import re
from functools import lru_cache

_NUMBERED = re.compile(r"gemini-(\d{1,3})(?:\.(\d{1,3}))?(?!\d)")
_NEWEST = (99, 0)
_OF_JSON_SCHEMAS = (2, 5)
_OF_SIGNATURES = (3, 0)


@lru_cache(maxsize=256)
def generation(model: str) -> tuple[int, int]:
    """The number in a model's id, such as (2, 5); "gemini-flash-latest", without one, is the newest."""
    found = _NUMBERED.search(model.lower())
    return (int(found[1]), int(found[2] or 0)) if found else _NEWEST


def takes_json_schemas(model: str) -> bool:
    """The model takes JSON Schema, and not only Google's selection of OpenAPI 3.0."""
    return generation(model) >= _OF_JSON_SCHEMAS


def wants_signatures(model: str) -> bool:
    """The model refuses a call that comes back without the signature that it was given.

    Since the same generation a model answers as a schema says beside tools, takes media within the result of
    a function, and calls functions beside Google's own tools.
    """
    return generation(model) >= _OF_SIGNATURES
