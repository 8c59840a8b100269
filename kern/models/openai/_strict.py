"""JSON schemas for strict mode, which takes a part of JSON Schema only.

What is allowed: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_REFUSED = frozenset(
    {
        "not",
        "if",
        "then",
        "else",
        "dependentRequired",
        "dependentSchemas",
        "patternProperties",
        "propertyNames",
        "unevaluatedProperties",
        "contains",
        "prefixItems",
        "uniqueItems",
    }
)


class _NotStrictable(Exception):
    pass


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """`schema` in the form that strict mode wants, or None if it cannot be brought to it.

    Objects are closed and all their properties required. A default is dropped: the model then gives every
    value, which only narrows what the schema allows. An object with free keys (`dict[str, int]`) has no
    strict form.
    """
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    if target := schema.get("$defs", {}).get(name):  # how pydantic writes a model that refers to itself
        schema = {**target, "$defs": schema["$defs"]}
    try:
        strict = _object(schema)
    except _NotStrictable:
        return None
    return strict if strict.get("type") == "object" and "anyOf" not in strict else None


def _object(schema: Any) -> dict[str, Any]:
    if not isinstance(schema, Mapping):  # `true`, or an absent one: anything goes
        raise _NotStrictable
    if not _REFUSED.isdisjoint(schema):
        raise _NotStrictable
    strict: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs", "definitions"):
            strict[key] = {name: _object(item) for name, item in value.items()}
        elif key in ("anyOf", "oneOf"):
            strict["anyOf"] = [_object(item) for item in value]
        elif key == "allOf":
            if len(value) != 1:
                raise _NotStrictable
            strict.update(_object(value[0]))
        elif key == "items":
            strict[key] = _object(value)
        elif key not in ("default", "discriminator", "examples", "example"):
            strict[key] = value
    if strict.get("type") == "array" and "items" not in strict:
        raise _NotStrictable
    if strict.get("type") == "object" or "properties" in strict:
        _close(strict)
    if "$ref" in strict and len(strict.keys() - {"$defs"}) > 1:
        # A reference must stand alone: what is said beside it goes one level up.
        strict["anyOf"] = [{"$ref": strict.pop("$ref")}]
    if not {"type", "anyOf", "$ref", "enum", "const"} & strict.keys():
        raise _NotStrictable
    return strict


def _close(strict: dict[str, Any]) -> None:
    if strict.get("additionalProperties", False) is not False:
        raise _NotStrictable
    strict["type"] = "object"
    strict["additionalProperties"] = False
    strict["properties"] = strict.get("properties", {})
    strict["required"] = list(strict["properties"])


def schema_name(name: str) -> str:
    """`name` with the characters and the length that the API allows."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64] or "answer"
