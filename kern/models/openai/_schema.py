"""Schemas and their names in the form of OpenAI's protocols."""

from __future__ import annotations

import re
from typing import Any

from kern.errors import UsageError
from kern.tools.schema import strict_schema


def schema_for(schema: dict[str, Any], *, strict: bool) -> tuple[dict[str, Any], bool]:
    """Return the schema to send, and whether the provider enforces it strictly.

    The schemas of Kern's own tools and answers are in the strict dialect already. Others are converted to it
    if possible.
    """
    if strict:
        try:
            made = strict_schema(schema, nullable=False)
        except UsageError:
            return schema, False
        if _keeps_limits(made):
            return made, True
    return schema, False


_DEEPEST = 10
_MOST_PROPERTIES = 5_000
_MOST_VALUES = 1_000
"""The limits on https://platform.openai.com/docs/guides/structured-outputs#supported-schemas."""


def _keeps_limits(schema: dict[str, Any]) -> bool:
    """Whether the API accepts the schema as strict: it is neither too deep nor too large."""
    properties = values = 0
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        part, depth = waiting.pop()
        if not isinstance(part, dict):
            continue
        inside = part.get("properties")
        if isinstance(inside, dict):
            properties += len(inside)
            if depth > _DEEPEST:
                return False
            waiting += [(value, depth + 1) for value in inside.values()]
        values += len(part.get("enum") or ())
        waiting.append((part.get("items"), depth))
        waiting += [(option, depth) for option in part.get("anyOf") or ()]
        waiting += [(value, 1) for value in (part.get("$defs") or {}).values()]
    return properties <= _MOST_PROPERTIES and values <= _MOST_VALUES


def schema_name(name: str) -> str:
    """Return `name` with the characters and the length that the API allows."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "answer"
