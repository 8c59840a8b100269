"""Schemas for strict mode."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from kern.models.openai._strict import schema_name, strict_schema


class Kind(Enum):
    a = "a"
    b = "b"


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]


class Node(BaseModel):
    name: Annotated[str, Field(description="Its name", min_length=1)]
    kind: Annotated[Kind, Field(description="Beside a reference")]
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    note: str | None = None
    children: list[Node] = []


def walk(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [found for item in schema for found in walk(item)]
    if not isinstance(schema, dict):
        return []
    return [schema, *(found for value in schema.values() for found in walk(value))]


def test_a_model_is_brought_to_the_strict_form() -> None:
    schema = strict_schema(Node.model_json_schema())
    assert schema is not None
    assert "$ref" not in schema
    assert schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    for part in walk(schema):
        if part.get("type") == "object":
            assert part["additionalProperties"] is False
            assert part["required"] == list(part["properties"])
        if "$ref" in part:
            assert len(part.keys() - {"$defs"}) == 1
        assert not {"default", "oneOf", "discriminator"} & part.keys() or "type" not in part


def test_the_schema_given_is_not_changed() -> None:
    given = {"type": "object", "properties": {"a": {"type": "integer", "default": 1}}}
    strict_schema(given)
    assert given == {"type": "object", "properties": {"a": {"type": "integer", "default": 1}}}


def test_a_property_may_be_called_like_a_keyword() -> None:
    schema = strict_schema(
        {"type": "object", "properties": {"default": {"type": "string"}, "not": {"type": "null"}}}
    )
    assert schema is not None
    assert schema["required"] == ["default", "not"]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "additionalProperties": True},
        {"not": {"type": "string"}},
        {"allOf": [{"type": "string"}, {"minLength": 1}]},
        {"type": "array"},
        {"type": "array", "prefixItems": [{"type": "integer"}]},
        {},
        {"description": "Anything"},
        True,
    ],
)
def test_what_has_no_strict_form_is_found_at_any_depth(part: Any) -> None:
    assert strict_schema({"type": "object", "properties": {"x": {"type": "array", "items": part}}}) is None


@pytest.mark.parametrize(
    "root", [{"type": "array", "items": {"type": "string"}}, {"anyOf": [{"type": "string"}]}]
)
def test_the_root_is_an_object(root: dict[str, Any]) -> None:
    assert strict_schema(root) is None


def test_names_are_brought_to_what_the_api_allows() -> None:
    assert schema_name("Box[int]") == "Box_int_"
    assert schema_name("a" * 100) == "a" * 64
    assert schema_name("") == "answer"
