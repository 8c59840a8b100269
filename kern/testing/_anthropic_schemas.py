"""The checks of Anthropic's Messages API for strict schemas, with its texts.

Source: https://platform.claude.com/docs/en/build-with-claude/structured-outputs
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kern.testing._refusal import Refused

_KEYWORDS: dict[str | None, tuple[str, ...]] = {
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "string": ("minLength", "maxLength"),
    "array": ("maxItems", "uniqueItems"),
}
_NOWHERE = ("oneOf", "not", "if", "then", "else", "patternProperties", "prefixItems")
_MOST_TOOLS = 20
_MOST_OPTIONAL = 24
_MOST_UNIONS = 16


class _Counts:
    """How much of the limits the strict schemas of a request use together."""

    def __init__(self) -> None:
        self.optional = 0
        self.unions = 0


def check_strict(body: Mapping[str, Any]) -> None:
    """Refuse strict schemas that the service cannot enforce."""
    counts = _Counts()
    tools = [tool for tool in body.get("tools") or () if tool.get("strict")]
    if len(tools) > _MOST_TOOLS:
        raise Refused(400, f"Too many strict tools ({len(tools)}). The maximum number is {_MOST_TOOLS}.")
    for at, tool in enumerate(tools):
        _check(tool["input_schema"], f"tools.{at}.custom", tool["input_schema"], (), counts)
    form = (body.get("output_config") or {}).get("format")
    if form is not None:
        if form.get("type") != "json_schema" or not isinstance(form.get("schema"), dict):
            raise Refused(400, "output_config.format.schema: Field required")
        _check(form["schema"], "output_config.format.schema", form["schema"], (), counts)
    if counts.optional > _MOST_OPTIONAL:
        raise Refused(
            400,
            f"Schemas contains too many optional parameters ({counts.optional}), which would make grammar "
            f"compilation inefficient. Reduce the number of optional parameters in your tool schemas (limit: "
            f"{_MOST_OPTIONAL}).",
        )
    if counts.unions > _MOST_UNIONS:
        raise Refused(
            400,
            f"Schemas contains too many parameters with union types ({counts.unions} parameters with type "
            "arrays or anyOf). This would cause exponential compilation cost. Reduce the number of nullable "
            f"or union-typed parameters (limit: {_MOST_UNIONS} parameters with unions).",
        )


def _check(schema: Any, path: str, root: Mapping[str, Any], seen: tuple[str, ...], counts: _Counts) -> None:
    if not isinstance(schema, dict):
        raise Refused(400, f"{path}: schema is not an object")
    for keyword in _NOWHERE:
        if keyword in schema:
            raise Refused(400, f"{path}: Schema type '{keyword}' is not supported")
    if "$ref" in schema:
        reference = schema["$ref"]
        if reference in seen:
            raise Refused(400, f"{path}: Recursive schemas are not supported: {reference}")
        if len(schema) > 1:
            raise Refused(400, f"{path}: $ref may have no siblings")
        _check(_target(root, reference, path), path, root, (*seen, reference), counts)
        return
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    counts.unions += "anyOf" in schema or len(kinds) > 1
    for kind in kinds:
        if wrong := sorted(set(_KEYWORDS.get(kind, ())) & schema.keys()):
            names = ", ".join(wrong)
            raise Refused(400, f"{path}: For '{kind}' type, properties {names} are not supported")
    if kinds == [None] and not any(word in schema for word in ("anyOf", "enum", "const", "allOf")):
        raise Refused(400, f"{path}: Schema type is missing")
    for at, part in enumerate(schema.get("anyOf") or ()):
        _check(part, f"{path}.anyOf.{at}", root, seen, counts)
    if "array" in kinds:
        if schema.get("minItems", 0) not in (0, 1):
            raise Refused(
                400, f"{path}: For 'array' type, 'minItems' values other than 0 or 1 are not supported"
            )
        _check(schema.get("items"), f"{path}.items", root, seen, counts)
    if "object" in kinds:
        if schema.get("additionalProperties") is not False:
            raise Refused(
                400, f"{path}: For 'object' type, 'additionalProperties' must be explicitly set to false"
            )
        properties = schema.get("properties") or {}
        counts.optional += len(properties.keys() - set(schema.get("required") or ()))
        for name, part in properties.items():
            _check(part, f"{path}.{name}", root, seen, counts)


def _target(root: Mapping[str, Any], reference: str, path: str) -> Any:
    found: Any = root
    for step in reference.removeprefix("#/").split("/"):
        found = found.get(step) if isinstance(found, dict) else None
    if not reference.startswith("#/") or found is None:
        raise Refused(400, f"{path}: $ref {reference!r} cannot be resolved")
    return found
