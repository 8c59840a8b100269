"""Schemas and their names as the OpenAI protocols want them."""

from __future__ import annotations

import re
from typing import Any

from kern.errors import UsageError
from kern.tools.schema import strict_schema


def schema_for(schema: dict[str, Any], *, strict: bool) -> tuple[dict[str, Any], bool]:
    """The schema to send, and whether the provider is to follow it to the letter.

    What Kern's own tools and answers ask for is in the strict dialect already, and stays as it is. Another
    schema is brought to it, if that can be done.
    """
    if strict:
        try:
            return strict_schema(schema, nullable=False), True
        except UsageError:
            pass
    return schema, False


def schema_name(name: str) -> str:
    """`name` with the characters and the length that the API allows."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "answer"
