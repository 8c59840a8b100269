"""Converts schemas to the strict dialect of Claude models, which is not OpenAI's, within a request's limits.

The dialect and its limits: https://platform.claude.com/docs/en/build-with-claude/structured-outputs
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Schema = dict[str, Any]

MOST_STRICT_TOOLS = 20
MOST_OPTIONAL = 24
"""Properties that are not required, in all strict schemas of a request together."""
MOST_UNIONS = 16
"""Places with several types (`anyOf`, or a list of types), in all strict schemas of a request together."""

_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"}
)
_TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
_KEPT = ("title", "description", "default")
# Keywords that the dialect lacks, but that help the model: they move into the description.
_NOTED = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("minLength", "maxLength", "pattern", "format", "minItems", "maxItems", "uniqueItems", "examples"),
)
# Keywords that the dialect cannot express at all.
_BEYOND = ("not", "if", "then", "else", "patternProperties", "prefixItems", "dependentSchemas", "contains")
_DEFINITIONS = ("$defs", "definitions")
_DEEPEST = 60


class _NotExpressible(Exception):
    """The dialect cannot express the schema."""


@dataclass(slots=True, frozen=True)
class StrictForm:
    """A schema in the strict dialect, and how much of a request's limits it uses."""

    schema: Schema
    optional: int
    unions: int


def strict_form(schema: Mapping[str, Any]) -> StrictForm | None:
    """The schema in the strict dialect; None if the dialect cannot express it.

    Every object is closed; optional properties stay optional. Constraints that the dialect lacks become part
    of the description; the values are validated against the full schema anyway. The dialect cannot express an
    open object, a value of any type, or a recursive type.
    """
    root = dict(schema)
    definitions = {
        f"#/{keyword}/{name}": part
        for keyword in _DEFINITIONS
        for name, part in _mapping(root.get(keyword)).items()
    }
    converter = _Converter(definitions)
    try:
        if isinstance(reference := root.get("$ref"), str):  # the root has to be an object itself
            own = {name: value for name, value in root.items() if name != "$ref"}
            root = {**_mapping(definitions.get(reference)), **own}
        result, weight = converter.convert(root, 0)
        for keyword in _DEFINITIONS:
            if keyword in root:
                result[keyword] = {
                    name: converter.definition(f"#/{keyword}/{name}")[0] for name in root[keyword]
                }
    except _NotExpressible:
        return None
    return StrictForm(result, *weight) if result.get("type") == "object" else None


class StrictBudget:
    """Tracks how much of a request's limits its strict schemas use together."""

    __slots__ = ("_optional", "_tools", "_unions")

    def __init__(self) -> None:
        self._tools = MOST_STRICT_TOOLS
        self._optional = MOST_OPTIONAL
        self._unions = MOST_UNIONS

    def answer(self, schema: Mapping[str, Any]) -> Schema | None:
        """The schema of the answer in the strict dialect; None if it cannot be enforced."""
        return self._take(schema)

    def tool(self, schema: Mapping[str, Any]) -> Schema | None:
        """The schema of one more strict tool; None if the tool cannot be strict in this request."""
        if not self._tools:
            return None
        form = self._take(schema)
        if form is not None:
            self._tools -= 1
        return form

    def _take(self, schema: Mapping[str, Any]) -> Schema | None:
        form = strict_form(schema)
        if form is None or form.optional > self._optional or form.unions > self._unions:
            return None
        self._optional -= form.optional
        self._unions -= form.unions
        return form.schema


_Weight: TypeAlias = tuple[int, int]
"""Optional properties and unions."""


class _Converter:
    """Converts one schema with its definitions."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions
        self._done: dict[str, tuple[Schema, _Weight]] = {}
        self._open: set[str] = set()

    def definition(self, reference: str) -> tuple[Schema, _Weight]:
        """A definition, and the weight of each reference to it."""
        if reference in self._open or reference not in self._definitions:
            raise _NotExpressible  # recursive, or not in this schema
        if reference not in self._done:
            self._open.add(reference)
            self._done[reference] = self.convert(self._definitions[reference], len(self._open))
            self._open.discard(reference)
        return self._done[reference]

    def convert(self, schema: Any, depth: int) -> tuple[Schema, _Weight]:
        """One schema and its weight."""
        if not isinstance(schema, Mapping) or depth > _DEEPEST or any(word in schema for word in _BEYOND):
            raise _NotExpressible
        parts: Any = schema.get("allOf") or ()
        if len(parts) == 1 and isinstance(parts[0], Mapping):
            schema = {**parts[0], **{name: value for name, value in schema.items() if name != "allOf"}}
        elif parts:
            raise _NotExpressible
        if "$ref" in schema:  # the dialect allows no other keyword beside it
            return {"$ref": schema["$ref"]}, self.definition(str(schema["$ref"]))[1]
        result: Schema = {name: schema[name] for name in _KEPT if name in schema}
        optional, unions = self._shape(schema, result, depth)
        notes = [
            f"{name}: {json.dumps(schema[name], ensure_ascii=False)}"
            for name in _NOTED
            if name in schema and name not in result
        ]
        if notes:
            limits = ", ".join(notes)
            result["description"] = (
                f"{result['description']} ({limits})" if "description" in result else limits
            )
        return result, (optional, unions)

    def _shape(self, schema: Mapping[str, Any], result: Schema, depth: int) -> _Weight:
        """Put the keywords that describe the values into `result`."""
        choices = schema.get("anyOf") or schema.get("oneOf")
        if choices:
            made = [self.convert(choice, depth + 1) for choice in choices]
            result["anyOf"] = [choice for choice, _ in made]
            weights = [weight for _, weight in made]
            return sum(w[0] for w in weights), 1 + sum(w[1] for w in weights)
        for keyword in ("enum", "const"):
            if keyword in schema:
                values = schema["enum"] if keyword == "enum" else [schema["const"]]
                if not values or not all(_is_plain(value) for value in values):
                    raise _NotExpressible
                result[keyword] = schema[keyword]
        kinds = schema.get("type", "object" if "properties" in schema else None)
        if kinds is None and ("enum" in result or "const" in result):
            return 0, 0
        named = kinds if isinstance(kinds, list) else [kinds]
        if not named or not all(isinstance(kind, str) and kind in _TYPES for kind in named):
            raise _NotExpressible
        result["type"] = kinds
        optional, unions = 0, int(len(named) > 1)
        if "object" in named:
            added = self._object(schema, result, depth)
            optional, unions = optional + added[0], unions + added[1]
        if "array" in named:
            added = self._array(schema, result, depth)
            optional, unions = optional + added[0], unions + added[1]
        if schema.get("format") in _FORMATS:
            result["format"] = schema["format"]
        return optional, unions

    def _object(self, schema: Mapping[str, Any], result: Schema, depth: int) -> _Weight:
        properties = _mapping(schema.get("properties"))
        # A schema that does not say whether it is open is meant as closed. One that says open must stay open.
        if schema.get("additionalProperties", False) is not False:
            raise _NotExpressible
        made = {name: self.convert(part, depth + 1) for name, part in properties.items()}
        required = [name for name in schema.get("required") or () if name in made]
        result["properties"] = {name: part for name, (part, _) in made.items()}
        result["required"] = required
        result["additionalProperties"] = False
        optional = len(made) - len(set(required)) + sum(weight[0] for _, weight in made.values())
        return optional, sum(weight[1] for _, weight in made.values())

    def _array(self, schema: Mapping[str, Any], result: Schema, depth: int) -> _Weight:
        result["items"], weight = self.convert(schema.get("items"), depth + 1)
        if schema.get("minItems") in (0, 1):
            result["minItems"] = schema["minItems"]
        return weight


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)
