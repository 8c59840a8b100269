"""Prepares JSON schemas for providers: drops titles, and converts to and from OpenAI's strict dialect.

Source of the dialect: https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from kern.errors import UsageError

Schema = dict[str, Any]

_NULL: Schema = {"type": "null"}
_MAPS = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")

# The keywords of the strict dialect; the provider rejects a schema with any other.
_STRICT_KEYWORDS = frozenset(
    {
        *("type", "description", "enum", "const", "anyOf", "$ref", "$defs", "definitions"),
        *("properties", "required", "additionalProperties", "items", "minItems", "maxItems"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "pattern", "format"),
    }
)
_STRICT_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)
# Keywords that are dropped and moved into the description, for the model to read.
_NOTED = ("default", "minLength", "maxLength", "pattern", "format", "uniqueItems", "examples")
_TYPED = ("type", "enum", "const", "anyOf", "$ref")


def without_titles(schema: Schema) -> Schema:
    """The schema without the `title`s that pydantic adds: they only repeat the names."""
    result = _mapped(schema, without_titles)
    result.pop("title", None)
    return result


def strict_schema(schema: Schema, *, nullable: bool = True) -> Schema:
    """Convert a JSON schema to OpenAI's strict dialect; the given schema is not changed.

    Every object is closed, and all its properties are required. Optional properties become nullable, and
    `undo_strict` removes their nulls from a value. Keywords that the dialect lacks are dropped, or moved into
    the description if the model should know them; the values are validated against the full schema later.

    Args:
        schema: A JSON schema of type object, such as pydantic's. A schema in the dialect stays as it is.
        nullable: If False, optional properties are just required: for values that skip `undo_strict`.

    Raises:
        UsageError: The dialect cannot express the schema: an open object, a value without a type, or a root
            that is not an object.
    """
    if not nullable:
        schema = _all_required(schema)
    root = schema
    if "$ref" in schema:  # pydantic's form of a recursive model; the dialect needs an object as the root
        root = {**resolved(schema["$ref"], schema), **{k: v for k, v in schema.items() if k != "$ref"}}
    if root.get("type") != "object":
        raise UsageError(
            "the root of a strict schema must be an object; wrap the value in a model with one field"
        )
    return _strict(root, "")


def _all_required(schema: Schema) -> Schema:
    result = _mapped(schema, _all_required)
    if "properties" in result:
        result["required"] = list(result["properties"])
    return result


def undo_strict(value: Any, schema: Schema) -> Any:
    """The value without the nulls that stand for omitted properties in the strict dialect.

    A null property that `schema` does not require is removed, so that its default applies. A null that the
    property's own schema allows stays: it was meant.

    Args:
        value: A JSON value that fits `strict_schema(schema)`.
        schema: The schema before `strict_schema`.
    """
    return _undone(value, schema, schema)


def _mapped(schema: Schema, change: Callable[[Schema], Schema]) -> Schema:
    """A copy of the schema with `change` applied to its direct subschemas."""
    result = dict(schema)
    for keyword in _MAPS:
        if isinstance(result.get(keyword), dict):
            result[keyword] = {name: _changed(part, change) for name, part in result[keyword].items()}
    for keyword in _LISTS:
        if isinstance(result.get(keyword), list):
            result[keyword] = [_changed(part, change) for part in result[keyword]]
    for keyword in _SINGLE:
        if keyword in result:
            result[keyword] = _changed(result[keyword], change)
    return result


def _changed(part: Any, change: Callable[[Schema], Schema]) -> Any:
    return change(part) if isinstance(part, dict) else part


def _strict(schema: Any, path: str) -> Schema:
    result = _plain(schema) if isinstance(schema, dict) else {}
    if not any(keyword in result for keyword in _TYPED):
        raise UsageError(f"a strict schema needs a type at {path or '/'}: annotate it, or leave strict off")
    if result.get("type") == "array" and not isinstance(result.get("items"), dict):
        raise UsageError(f"a strict schema needs an item type at {path or '/'}: list[str], not list")
    notes = {key: schema[key] for key in _NOTED if key in schema and key not in result}
    if notes.get("default", ...) in (None, schema.get("const")):
        del notes["default"]
    for keyword in ("$defs", "definitions"):
        if keyword in result:
            result[keyword] = {
                name: _strict(part, f"/{keyword}/{name}") for name, part in result[keyword].items()
            }
    if "anyOf" in result:
        result["anyOf"] = [_strict(part, f"{path}/anyOf/{at}") for at, part in enumerate(result["anyOf"])]
    if "items" in result:
        result["items"] = _strict(result["items"], f"{path}/items")
    if result.get("type") == "object" or "properties" in result:
        if schema.get("patternProperties"):
            raise _open(path)
        _close(result, path)
    if "$ref" in result and (len(result) > 1 or notes):  # a $ref allows no other keywords; anyOf does
        result["anyOf"] = [{"$ref": result.pop("$ref")}]
    if notes:
        limits = ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in notes.items())
        result["description"] = f"{result['description']} ({limits})" if "description" in result else limits
    return result


def _plain(schema: Schema) -> Schema:
    """The schema with only the dialect's keywords at its top level."""
    merged = dict(schema)
    if len(merged.get("allOf", ())) == 1:
        merged = {**merged["allOf"][0], **{key: value for key, value in merged.items() if key != "allOf"}}
    if "oneOf" in merged:
        merged["anyOf"] = merged["oneOf"]
    if "prefixItems" in merged:
        merged["items"] = _one_of(merged["prefixItems"])
    result = {key: value for key, value in merged.items() if key in _STRICT_KEYWORDS}
    if result.get("format") not in _STRICT_FORMATS:
        result.pop("format", None)
    if "(?" in result.get("pattern", ""):  # the dialect supports no lookaround; other (? groups are rare
        del result["pattern"]
    return result


def _one_of(schemas: list[Schema]) -> Schema:
    """The item schema for a tuple: the dialect has no positions, so an item may be any of them."""
    distinct = [schema for at, schema in enumerate(schemas) if schema not in schemas[:at]]
    return distinct[0] if len(distinct) == 1 else {"anyOf": distinct}


def _close(schema: Schema, path: str) -> None:
    if schema.get("additionalProperties"):
        raise _open(path)
    required = schema.get("required", [])
    properties = {}
    for name, part in schema.get("properties", {}).items():
        closed = _strict(part, f"{path}/properties/{name}")
        # A constant, such as the tag of a union's member, cannot be left out
        properties[name] = closed if name in required or "const" in closed else _nullable(closed)
    schema.update(type="object", properties=properties, required=list(properties), additionalProperties=False)


def _open(path: str) -> UsageError:
    return UsageError(
        f"a strict schema does not allow the open object at {path or '/'}: "
        "use a model with named fields or a list of pairs, or leave strict off"
    )


def _nullable(schema: Schema) -> Schema:
    """The schema that also allows null."""
    if "anyOf" in schema:
        known = any(part.get("type") == "null" for part in schema["anyOf"])
        return schema if known else {**schema, "anyOf": [*schema["anyOf"], _NULL]}
    kind = schema.get("type")
    if kind is None or "const" in schema or "enum" in schema or kind == "object":
        outer = {"description": schema["description"]} if "description" in schema else {}
        inner = {key: value for key, value in schema.items() if key != "description"}
        return {**outer, "anyOf": [inner, _NULL]}
    kinds = kind if isinstance(kind, list) else [kind]
    return schema if "null" in kinds else {**schema, "type": [*kinds, "null"]}


def resolved(reference: str, root: Schema) -> Schema:
    """The schema that a `$ref` inside `root` refers to.

    Raises:
        UsageError: `root` does not define it.
    """
    target: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        if part and not (isinstance(target, dict) and name in target):
            raise UsageError(f"the JSON schema refers to {reference!r}, which it does not define")
        target = target[name] if part else target
    return dict(target)


def _undone(value: Any, schema: Any, root: Schema) -> Any:
    if not isinstance(schema, dict):
        return value
    if "$ref" in schema:
        return _undone(value, resolved(schema["$ref"], root), root)
    for keyword in ("anyOf", "oneOf", "allOf"):
        if keyword in schema:
            return _undone(value, _fitting(value, schema[keyword], root), root)
    if isinstance(value, list):
        prefix = schema.get("prefixItems", [])
        rest = schema.get("items")
        return [
            _undone(item, prefix[at] if at < len(prefix) else rest, root) for at, item in enumerate(value)
        ]
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        required = schema.get("required", ())
        return {
            name: _undone(item, properties.get(name), root)
            for name, item in value.items()
            if item is not None or name in required or _is_meant(properties.get(name), root)
        }
    return value


def _is_meant(part: Any, root: Schema) -> bool:
    """Whether null is allowed by the property's own schema and differs from its default."""
    if not isinstance(part, dict):
        return True
    return part.get("default", ...) is not None and _takes_null(part, root)


def _takes_null(part: Any, root: Schema) -> bool:
    if not isinstance(part, dict):
        return part is not False
    if "$ref" in part and not _takes_null(resolved(part["$ref"], root), root):
        return False
    for keyword in ("anyOf", "oneOf"):
        if keyword in part and not any(_takes_null(other, root) for other in part[keyword]):
            return False
    if not all(_takes_null(other, root) for other in part.get("allOf", ())):
        return False
    kinds = part.get("type", "null")
    allowed = "null" in (kinds if isinstance(kinds, list) else [kinds])
    return allowed and None in part.get("enum", [None]) and part.get("const") is None


def _fitting(value: Any, schemas: list[Schema], root: Schema) -> Schema | None:
    """The first alternative that the value may belong to, judged by its type and its keys."""
    for schema in schemas:
        plain = resolved(schema["$ref"], root) if "$ref" in schema else schema
        if isinstance(value, Mapping):
            properties = plain.get("properties", {})
            constants = {name: part["const"] for name, part in properties.items() if "const" in part}
            same_keys = value.keys() <= properties.keys() and set(plain.get("required", ())) <= value.keys()
            if same_keys and all(value.get(name) == constant for name, constant in constants.items()):
                return plain
        elif isinstance(value, list) and plain.get("type") == "array":
            return plain
    return None
