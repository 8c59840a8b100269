"""Checks a JSON value against a JSON schema, and says what does not fit, and where.

Source: https://json-schema.org/draft/2020-12/json-schema-validation. The keywords that pydantic writes and
people commonly use are checked; others are ignored.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from kern._error_text import counted
from kern.tools.schema import resolved

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: _is_number(value),
    "integer": lambda value: _is_number(value) and (isinstance(value, int) or value.is_integer()),
}
_SHOWN = 80


def _is_number(value: Any) -> bool:
    """Whether JSON can write it as a number: NaN and the infinities, which Python parses, are not numbers."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def misfits(value: Any, schema: Mapping[str, Any], *, unfinished: bool = False) -> list[str]:
    """One line for each place where `value` does not fit `schema`; empty if it fits.

    Args:
        value: Parsed JSON.
        schema: The JSON schema.
        unfinished: The value is still being written: its last part may be incomplete or missing.
    """
    return list(_Check(schema).value(value, schema, "", unfinished))


def unknown_types(schema: Any) -> Iterator[Any]:
    """The values of `type` in a schema, and in the schemas in it, that JSON schema does not have."""
    if not isinstance(schema, Mapping):
        return
    kinds = schema.get("type", ())
    for kind in kinds if isinstance(kinds, list | tuple) else (kinds,):
        if not isinstance(kind, str) or kind not in _TYPES:
            yield kind
    below: list[Any] = [schema.get(key) for key in ("items", "additionalProperties")]
    for key in ("properties", "$defs", "definitions"):
        named = schema.get(key)
        below += named.values() if isinstance(named, Mapping) else ()
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        listed = schema.get(key)
        below += listed if isinstance(listed, list | tuple) else ()
    for part in below:
        yield from unknown_types(part)


TYPE_NAMES = ", ".join(_TYPES)


class _Check:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = dict(root)

    def value(self, value: Any, schema: Any, path: str, unfinished: bool) -> Iterator[str]:
        if not isinstance(schema, Mapping):
            if schema is False:
                yield _line(path, "is not expected here")
            return
        if "$ref" in schema:
            yield from self.value(value, resolved(schema["$ref"], self._root), path, unfinished)
        for part in schema.get("allOf", ()):
            yield from self.value(value, part, path, unfinished)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                yield from self._some(value, schema[keyword], path, unfinished)
        kinds = schema.get("type", ())
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if kinds and not any(_TYPES[kind](value) for kind in kinds if kind in _TYPES):
            yield _line(path, f"must be {' or '.join(kinds)}, not {_shown(value)}")
            return
        yield from self._constants(value, schema, path, unfinished)
        if isinstance(value, dict):
            yield from self._object(value, schema, path, unfinished)
        elif isinstance(value, list):
            yield from self._array(value, schema, path, unfinished)
        elif not unfinished and isinstance(value, str):
            yield from _string(value, schema, path)
        elif not unfinished and isinstance(value, int | float) and not isinstance(value, bool):
            yield from _number(value, schema, path)

    def _some(self, value: Any, schemas: list[Any], path: str, unfinished: bool) -> Iterator[str]:
        complaints = [list(self.value(value, schema, path, unfinished)) for schema in schemas]
        if complaints and all(complaints):
            yield from min(complaints, key=len)

    def _constants(self, value: Any, schema: Mapping[str, Any], path: str, unfinished: bool) -> Iterator[str]:
        allowed = [schema["const"]] if "const" in schema else schema.get("enum")
        if allowed is None or any(value == item and type(value) is type(item) for item in allowed):
            return
        if unfinished and (
            not isinstance(value, str)
            or any(isinstance(item, str) and item.startswith(value) for item in allowed)
        ):
            return
        yield _line(path, f"must be {' or '.join(map(_shown, allowed))}, not {_shown(value)}")

    def _object(
        self, value: dict[str, Any], schema: Mapping[str, Any], path: str, unfinished: bool
    ) -> Iterator[str]:
        properties = schema.get("properties", {})
        other = schema.get("additionalProperties", True)
        if not unfinished:
            for name in schema.get("required", ()):
                if name not in value:
                    yield _line(f"{path}/{name}", "required, but missing")
            if len(value) < schema.get("minProperties", 0):
                yield _line(path, f"needs at least {counted(schema['minProperties'], 'keys')}")
        last = next(reversed(value), None)
        for name, item in value.items():
            yield from self.value(
                item, properties.get(name, other), f"{path}/{name}", unfinished and name == last
            )

    def _array(
        self, value: list[Any], schema: Mapping[str, Any], path: str, unfinished: bool
    ) -> Iterator[str]:
        first, rest = schema.get("prefixItems", []), schema.get("items", True)
        for at, item in enumerate(value):
            part = first[at] if at < len(first) else rest
            yield from self.value(item, part, f"{path}/{at}", unfinished and at == len(value) - 1)
        if len(value) > schema.get("maxItems", len(value)):
            yield _line(
                path, f"has {counted(len(value), 'items')}, but may have at most {schema['maxItems']}"
            )
        if not unfinished and len(value) < schema.get("minItems", 0):
            yield _line(path, f"has {counted(len(value), 'items')}, but needs at least {schema['minItems']}")
        if schema.get("uniqueItems") and len({json.dumps(item, sort_keys=True) for item in value}) < len(
            value
        ):
            yield _line(path, "contains the same item twice")


def _string(value: str, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    if len(value) < schema.get("minLength", 0):
        yield _line(path, f"needs at least {counted(schema['minLength'], 'characters')}")
    if len(value) > schema.get("maxLength", len(value)):
        yield _line(path, f"may have at most {counted(schema['maxLength'], 'characters')}")
    if "pattern" in schema and not _matches(schema["pattern"], value):
        yield _line(path, f"must match {schema['pattern']!r}, not {_shown(value)}")


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.search(pattern, value) is not None
    except re.error:  # JSON schemas use JavaScript's syntax; ignore patterns that Python does not know
        return True


def _number(value: float, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    rules: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
        ("minimum", "at least", lambda bound: value >= bound),
        ("maximum", "at most", lambda bound: value <= bound),
        ("exclusiveMinimum", "more than", lambda bound: value > bound),
        ("exclusiveMaximum", "less than", lambda bound: value < bound),
        ("multipleOf", "a multiple of", lambda bound: _is_multiple(value, bound)),
    )
    for keyword, words, fits in rules:
        if keyword in schema and not fits(schema[keyword]):
            yield _line(path, f"must be {words} {schema[keyword]}, not {_shown(value)}")


def _is_multiple(value: float, of: float) -> bool:
    if isinstance(value, int) and isinstance(of, int):
        return of == 0 or value % of == 0
    try:
        times = value / of
        return not math.isfinite(times) or abs(times - round(times)) < 1e-9
    except (OverflowError, ZeroDivisionError):  # a nonsensical bound: ignore it
        return True


def _line(path: str, complaint: str) -> str:
    return f"{path or 'the value'}: {complaint}"


def _shown(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False)
    except ValueError:  # Python refuses to write an int with very many digits
        return "a value that is too long to be shown"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
