"""The generation of a Gemini model, from its id, and what differs between generations."""

from __future__ import annotations

import re
from functools import lru_cache

_NUMBERED = re.compile(r"gemini-(\d{1,3})(?:\.(\d{1,3}))?(?!\d)")
_NEWEST = (99, 0)
_OF_JSON_SCHEMAS = (2, 5)
_OF_SIGNATURES = (3, 0)


@lru_cache(maxsize=256)
def generation(model: str) -> tuple[int, int]:
    """The version in a model's id, such as (2, 5); an id without one ("gemini-flash-latest") is the
    newest.
    """
    found = _NUMBERED.search(model.lower())
    return (int(found[1]), int(found[2] or 0)) if found else _NEWEST


def takes_json_schemas(model: str) -> bool:
    """Whether the model supports JSON Schema, and not just Google's subset of OpenAPI 3.0."""
    return generation(model) >= _OF_JSON_SCHEMAS


def wants_signatures(model: str) -> bool:
    """Whether the model rejects an earlier function call without its thought signature.

    Since the same generation, models support a response schema together with tools, media in the result of a
    function, and functions together with Google's own tools.
    """
    return generation(model) >= _OF_SIGNATURES
