"""Converts JSON schemas for Gemini: to a subset of JSON Schema, or of OpenAPI 3.0 for models before 2.5.

Sources: `responseJsonSchema` on https://ai.google.dev/api/generate-content, and `Schema` on
https://ai.google.dev/api/caching#Schema. Other keywords are refused or silently ignored; what the model
should know of them is added to the description. Kern validates values against the full schema in any case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

Schema = dict[str, Any]

_COMMON = frozenset(
    {
        *("type", "format", "title", "description", "enum", "items", "minItems", "maxItems", "minimum"),
        *("maximum", "anyOf", "properties", "required"),
    }
)
_JSON_KEYWORDS = _COMMON | {"prefixItems", "additionalProperties"}
_OPENAPI_KEYWORDS = _COMMON | {"minLength", "maxLength", "pattern"}
_JSON_FORMATS = frozenset({"date-time", "date", "time", "float", "double", "int32", "int64"})
_OPENAPI_FORMATS = frozenset({"date-time", "float", "double", "int32", "int64"})
_NOTED = (
    *("default", "const", "minLength", "maxLength", "pattern", "format", "uniqueItems", "multipleOf"),
    *("exclusiveMinimum", "exclusiveMaximum", "examples", "enum"),
)
_NULL: Schema = {"type": "null"}
_DEFINITIONS = ("$defs", "definitions")
_NAMED = re.compile(r"#/(\$defs|definitions)/[^/]+")
_DEEPEST = 12
"""The maximum depth to which definitions are inlined, if a schema cannot refer to them."""


def json_dialect(schema: Mapping[str, Any]) -> Schema:
    """Return the schema for models since Gemini 2.5, with references."""
    schema = _with_named_parts(schema)
    definitions = {name: part for name, part in _definitions(schema).items() if isinstance(part, dict)}
    cyclic = _cyclic(definitions)
    root = {key: value for key, value in schema.items() if key not in _DEFINITIONS}
    if "$ref" in root:  # the schema of a recursive model; but the root must be an object itself
        own = {key: value for key, value in root.items() if key != "$ref"}
        root = {**definitions.get(_name_in(root["$ref"]), {}), **own}
    result = _json(root, cyclic)
    if definitions:
        result["$defs"] = {name: _json(part, cyclic) for name, part in definitions.items()}
    return result


def openapi_dialect(schema: Mapping[str, Any]) -> Schema:
    """Return the schema for models before Gemini 2.5: without references, and with null as a flag."""
    schema = _with_named_parts(schema)
    return _openapi(dict(schema), _definitions(schema), ())


def _definitions(schema: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for keyword in _DEFINITIONS:
        if isinstance(schema.get(keyword), dict):
            found.update(schema[keyword])
    return found


def _with_named_parts(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema with a definition for each part that is referred to by its path ("#/properties/a").

    A reference to a missing part becomes a schema that allows everything.
    """
    paths = {path for path in _paths(schema) if not _NAMED.fullmatch(path)}
    if not paths:
        return schema
    known = _definitions(schema)
    definitions = dict(known)
    names: dict[str, str] = {}
    for path in sorted(paths):
        part = _at(schema, path)
        if part is None and _name_in(path) in known:
            names[path] = _name_in(path)
            continue
        name = re.sub(r"[^A-Za-z0-9]+", "_", path).strip("_") or "root"
        while name in definitions:
            name += "_"
        names[path] = name
        definitions[name] = {key: value for key, value in (part or {}).items() if key not in _DEFINITIONS}
    root = {key: value for key, value in schema.items() if key not in _DEFINITIONS}
    renamed: dict[str, Any] = _renamed({**root, "$defs": definitions}, names)
    return renamed


def _at(schema: Any, path: str) -> Mapping[str, Any] | None:
    """Return the part of the schema at a JSON pointer, or None."""
    if not path.startswith("#"):
        return None
    for word in path[1:].split("/")[1:]:
        name = unquote(word).replace("~1", "/").replace("~0", "~")
        if isinstance(schema, list) and name.isdecimal() and int(name) < len(schema):
            schema = schema[int(name)]
        else:
            schema = schema.get(name) if isinstance(schema, Mapping) else None
    return schema if isinstance(schema, Mapping) else None


def _renamed(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, Mapping):
        made = {key: _renamed(item, names) for key, item in value.items()}
        if isinstance(path := value.get("$ref"), str) and path in names:
            made["$ref"] = f"#/$defs/{names[path]}"
        return made
    return [_renamed(item, names) for item in value] if isinstance(value, list) else value


def _name_in(reference: Any) -> str:
    return str(reference).rpartition("/")[2]


def _cyclic(definitions: Mapping[str, Any]) -> frozenset[str]:
    """Return the definitions that refer to themselves, directly or indirectly."""
    leads_to = {name: set(_references(part)) & definitions.keys() for name, part in definitions.items()}
    found = set()
    for name in definitions:
        seen: set[str] = set()
        ahead = list(leads_to[name])
        while ahead:
            at = ahead.pop()
            if at not in seen:
                seen.add(at)
                ahead += leads_to[at]
        if name in seen:
            found.add(name)
    return frozenset(found)


def _references(value: Any) -> Iterator[str]:
    return map(_name_in, _paths(value))


def _paths(value: Any) -> Iterator[str]:
    """Yield all references in a schema, as they are written."""
    if isinstance(value, Mapping):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from _paths(item)
    elif isinstance(value, list):
        for item in value:
            yield from _paths(item)


def _json(schema: Any, cyclic: frozenset[str]) -> Schema:
    if not isinstance(schema, dict):
        return {}
    schema = _plain(schema)
    result = {key: value for key, value in schema.items() if key in _JSON_KEYWORDS}
    _with_format(result, _JSON_FORMATS)
    values, has_null = _said_values(schema)
    result.pop("enum", None)
    if values:
        result["enum"] = values
    _with_type(result, values, has_null)
    for key in ("anyOf", "prefixItems"):
        if isinstance(result.get(key), list):
            result[key] = [_json(part, cyclic) for part in result[key]]
    if "items" in result:
        result["items"] = _json(result["items"], cyclic)
    if isinstance(result.get("additionalProperties"), dict):
        result["additionalProperties"] = _json(result["additionalProperties"], cyclic)
    if isinstance(result.get("properties"), dict):
        given = result["properties"]
        result["properties"] = {name: _json(part, cyclic) for name, part in given.items()}
        # A cycle must include a property that is not required.
        required = [
            name for name in _names(result.get("required")) if cyclic.isdisjoint(_references(given.get(name)))
        ]
        result.pop("required", None)
        if required:
            result["required"] = required
    reference = schema.get("$ref")
    if isinstance(reference, str):
        reference = f"#/$defs/{_name_in(reference)}"
        rest = _described(result, schema)
        if not rest:
            return {"$ref": reference}
        return {**{key: rest[key] for key in ("description",) if key in rest}, "anyOf": [{"$ref": reference}]}
    result = _described(result, schema)
    return _or_null(result) if has_null and values else result


def _openapi(schema: Any, definitions: Mapping[str, Any], inside: tuple[str, ...]) -> Schema:
    if not isinstance(schema, dict):
        return {"type": "string"}
    if isinstance(schema.get("$ref"), str):
        name = _name_in(schema["$ref"])
        target = definitions.get(name)
        if not isinstance(target, dict) or name in inside or len(inside) >= _DEEPEST:
            return {"type": "object", "description": f"as {name} above"}
        own = {key: value for key, value in schema.items() if key != "$ref"}
        return _openapi({**target, **own}, definitions, (*inside, name))
    schema = _plain(schema)
    result = {key: value for key, value in schema.items() if key in _OPENAPI_KEYWORDS}
    _with_format(result, _OPENAPI_FORMATS)
    values, nullable = _said_values(schema)
    result.pop("enum", None)
    if values and all(isinstance(value, str) for value in values):
        result["enum"] = values
    _with_type(result, values, nullable)
    nullable = _with_one_type(result) or nullable
    alternatives = result.pop("anyOf", None)
    if isinstance(alternatives, list):
        others = [part for part in alternatives if part != _NULL]
        nullable = nullable or len(others) < len(alternatives)
        read = [_openapi(part, definitions, inside) for part in others]
        if len(read) == 1:
            result = {**read[0], **result}
        elif read:
            result["anyOf"] = read
    if result.get("type") == "array" or "items" in result:
        items = schema.get("items", {"anyOf": schema["prefixItems"]} if schema.get("prefixItems") else None)
        result["items"] = _openapi(items, definitions, inside)
    if isinstance(result.get("properties"), dict):
        given = result["properties"]
        result["properties"] = {name: _openapi(part, definitions, inside) for name, part in given.items()}
        result["propertyOrdering"] = list(given)
        result.setdefault("type", "object")
    _with_sound_names(result)
    if nullable:
        result["nullable"] = True
    return _described(result, schema)


def _with_sound_names(result: Schema) -> None:
    """Remove names from `required` that are not properties: Google refuses the whole request otherwise."""
    properties = result.get("properties")
    known = properties if isinstance(properties, dict) else {}
    if required := [name for name in _names(result.pop("required", None)) if name in known]:
        result["required"] = required


def _plain(schema: Schema) -> Schema:
    """Convert what both dialects express differently: `allOf`, alternatives, limits."""
    result = dict(schema)
    together = result.pop("allOf", None)
    for part in together if isinstance(together, list) else ():
        if isinstance(part, dict):
            for key, value in part.items():
                result[key] = _joined(result[key], value) if key in result else value
    if isinstance(result.get("oneOf"), list) and "anyOf" not in result:
        result["anyOf"] = result.pop("oneOf")
    if result.get("type") == "integer":
        for limit, key, step in (("exclusiveMinimum", "minimum", 1), ("exclusiveMaximum", "maximum", -1)):
            if isinstance(result.get(limit), int) and key not in result:
                result[key] = result.pop(limit) + step
    return result


def _joined(value: Any, other: Any) -> Any:
    if isinstance(value, dict) and isinstance(other, dict):
        return {**other, **value}
    if isinstance(value, list) and isinstance(other, list):
        return [*value, *(item for item in other if item not in value)]
    return value


def _names(value: Any) -> list[str]:
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []


def _with_format(result: Schema, known: frozenset[str]) -> None:
    if result.get("format") not in known:
        result.pop("format", None)


def _said_values(schema: Schema) -> tuple[list[Any] | None, bool]:
    """Return the allowed values of an enum or constant (None: any), and whether null is allowed."""
    given = schema["enum"] if "enum" in schema else [schema["const"]] if "const" in schema else None
    if not isinstance(given, list):
        return None, False
    values = [
        value for value in given if isinstance(value, str | int | float) and not isinstance(value, bool)
    ]
    return values, None in given


def _with_type(result: Schema, values: list[Any] | None, has_null: bool) -> None:
    """Set the type from the allowed values, if the schema has none."""
    if "type" in result or values is None:
        return
    kinds = {"string" if isinstance(value, str) else "number" for value in values}
    if len(kinds) == 1:
        result["type"] = kinds.pop()
    elif not values and has_null:
        result["type"] = "null"


def _with_one_type(result: Schema) -> bool:
    """Reduce the types of the schema to one. Return whether null was one of them."""
    kinds = result.get("type")
    if not isinstance(kinds, list):
        return False
    others = [kind for kind in kinds if kind != "null"]
    if len(others) == 1:
        result["type"] = others[0]
    else:
        result.pop("type")
        result.setdefault("anyOf", [{"type": kind} for kind in others])
    return len(others) < len(kinds)


def _or_null(schema: Schema) -> Schema:
    kinds = schema.get("type")
    if isinstance(kinds, list):
        schema = {**schema, "type": [kind for kind in kinds if kind != "null"]}
    return {"anyOf": [schema, _NULL]}


def _described(result: Schema, schema: Schema) -> Schema:
    """Return the schema with a description of what the dialect has no keyword for."""
    notes = {key: schema[key] for key in _NOTED if key in schema and key not in result}
    if notes.get("default", ...) is None:
        del notes["default"]
    values = result.get("enum")
    if values is not None or schema.get("enum") is None:
        notes.pop("enum", None)
    if "const" in notes and (values is not None or notes["const"] is None):
        del notes["const"]
    if not notes:
        return result
    described = ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in notes.items())
    given = result.get("description")
    return {**result, "description": f"{given} ({described})" if given else described}
