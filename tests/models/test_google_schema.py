"""JSON schemas as Gemini takes them."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from kern.errors import UsageError
from kern.messages import Message
from kern.models.base import ModelRequest, ToolDefinition
from kern.models.google._encode import encode
from kern.models.google._schema import json_dialect, openapi_dialect
from kern.testing._gemini_checks import check_schema
from kern.testing._refusal import Refused
from kern.tools import strict_schema


class Address(BaseModel):
    street: str
    number: int | None = None


class Person(BaseModel):
    name: str = Field(description="In full.", min_length=2)
    age: int = Field(gt=0, lt=150)
    kind: Literal["a", "b"] | None = None
    level: Literal[1, 2] = 1
    home: Address
    others: list[Address] = Field(default_factory=list)
    pair: tuple[int, str] = (1, "x")


class Tree(BaseModel):
    value: int
    children: list[Tree] = Field(default_factory=list)
    next: Tree | None = None


MODELS = (Address, Person, Tree)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("strict", [False, True])
def test_what_pydantic_writes_is_refused_by_neither_generation(model: type[BaseModel], strict: bool) -> None:
    schema = model.model_json_schema()
    if strict:
        try:
            schema = strict_schema(schema, nullable=False)
        except UsageError:
            pytest.skip("not in the strict dialect")
    check_schema(json_dialect(schema), "responseJsonSchema", "x")
    check_schema(openapi_dialect(schema), "responseSchema", "x")


def test_a_reference_stands_alone_and_its_description_around_it() -> None:
    schema = {
        "type": "object",
        "properties": {"home": {"$ref": "#/definitions/A", "description": "Where?", "default": {}}},
        "definitions": {"A": {"type": "object"}},
    }
    made = json_dialect(schema)
    assert made["properties"]["home"] == {
        "description": "Where? (default: {})",
        "anyOf": [{"$ref": "#/$defs/A"}],
    }
    assert made["$defs"] == {"A": {"type": "object"}}
    bare = {
        "type": "object",
        "properties": {"home": {"$ref": "#/$defs/A"}},
        "$defs": {"A": {"type": "object"}},
    }
    assert json_dialect(bare)["properties"]["home"] == {"$ref": "#/$defs/A"}


def test_a_recursive_schema_recurses_through_what_is_not_required_only() -> None:
    schema = strict_schema(Tree.model_json_schema(), nullable=False)
    made = json_dialect(schema)
    assert made["$defs"]["Tree"]["required"] == ["value"]
    assert made["type"] == "object"  # the root is no reference
    check_schema(made, "responseJsonSchema", "x")
    written_out = openapi_dialect(schema)
    items = written_out["properties"]["children"]["items"]
    assert items["properties"]["children"]["items"] == {"type": "object", "description": "as Tree above"}


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"const": "x"}, {"type": "string", "enum": ["x"]}),
        ({"const": 5, "type": "integer"}, {"type": "integer", "enum": [5]}),
        ({"const": None}, {"type": "null"}),
        ({"const": True, "type": "boolean"}, {"type": "boolean", "description": "const: true"}),
        ({"enum": ["a", None]}, {"anyOf": [{"enum": ["a"], "type": "string"}, {"type": "null"}]}),
        (
            {"enum": ["a", None], "type": ["string", "null"]},
            {"anyOf": [{"enum": ["a"], "type": ["string"]}, {"type": "null"}]},
        ),
        (
            {"oneOf": [{"type": "string"}, {"type": "null"}]},
            {"anyOf": [{"type": "string"}, {"type": "null"}]},
        ),
        ({"type": "integer", "exclusiveMinimum": 0}, {"type": "integer", "minimum": 1}),
        (
            {"type": "number", "exclusiveMinimum": 0},
            {"type": "number", "description": "exclusiveMinimum: 0"},
        ),
        (
            {"type": "string", "format": "uuid", "pattern": "^a"},
            {"type": "string", "description": 'pattern: "^a", format: "uuid"'},
        ),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        (
            {"allOf": [{"type": "object", "properties": {"a": {}}}, {"properties": {"b": {}}}]},
            {"type": "object", "properties": {"a": {}, "b": {}}},
        ),
        ({"type": "string", "not": {"enum": ["x"]}, "if": {}}, {"type": "string"}),
        ({"type": "array", "items": True}, {"type": "array", "items": {}}),
    ],
)
def test_what_the_dialect_lacks_is_said_otherwise(given: dict[str, Any], made: dict[str, Any]) -> None:
    assert json_dialect(given) == made
    check_schema(json_dialect(given), "responseJsonSchema", "x")
    check_schema(openapi_dialect(given), "responseSchema", "x")


def test_before_gemini_2_5_null_is_a_flag_and_references_are_written_out() -> None:
    made = openapi_dialect(Person.model_json_schema())
    properties = made["properties"]
    assert properties["kind"] == {
        "enum": ["a", "b"],
        "type": "string",
        "nullable": True,
        "title": "Kind",
    }
    assert properties["home"]["properties"]["number"]["nullable"] is True
    assert properties["others"]["items"]["required"] == ["street"]
    assert properties["level"]["description"] == "default: 1, enum: [1, 2]"
    assert properties["age"] == {"type": "integer", "title": "Age", "minimum": 1, "maximum": 149}
    assert made["propertyOrdering"] == list(properties)
    assert "$defs" not in made


def test_the_given_schema_is_left_as_it_is() -> None:
    schema = Person.model_json_schema()
    before = repr(schema)
    json_dialect(schema)
    openapi_dialect(schema)
    assert repr(schema) == before


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/Gone"},
        {"type": "object", "properties": {"a": None}},
        {"type": 5, "enum": "x", "anyOf": {}, "required": "a"},
        {"allOf": [None], "$defs": []},
        {"allOf": 5, "prefixItems": 5, "items": [], "properties": 5},
        {},
    ],
)
def test_a_damaged_schema_ends_in_a_schema(schema: dict[str, Any]) -> None:
    assert isinstance(json_dialect(schema), dict)
    assert isinstance(openapi_dialect(schema), dict)


def test_the_server_refuses_what_google_does_not_know() -> None:
    with pytest.raises(Refused, match='Unknown name "const"'):
        check_schema({"const": 1}, "responseJsonSchema", "x")
    with pytest.raises(Refused, match="additionalProperties"):
        check_schema(
            {"type": "object", "properties": {"a": {"additionalProperties": False}}}, "parameters", "x"
        )
    with pytest.raises(Refused, match="only allowed for OBJECT type"):
        check_schema({"properties": {"a": {"type": "string"}}}, "parameters", "x")
    with pytest.raises(Refused, match="property is not defined"):
        check_schema({"type": "object", "required": ["a"]}, "parameters", "x")
    with pytest.raises(Refused, match="cannot start list"):
        check_schema({"type": ["string", "null"]}, "responseSchema", "x")
    with pytest.raises(Refused, match="no other properties"):
        check_schema({"items": {"$ref": "#/$defs/A", "title": "x"}}, "responseJsonSchema", "x")
    check_schema({"$ref": "#/$defs/A", "$defs": {"A": {}}, "title": "x"}, "responseJsonSchema", "x")
    looping = {
        "$ref": "#/$defs/A",
        "$defs": {"A": {"properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"]}},
    }
    with pytest.raises(Refused, match="recursi"):
        check_schema(looping, "responseJsonSchema", "x")


def test_a_reference_by_its_path_leads_to_the_part_that_it_names() -> None:
    place = {"type": "string", "description": "A place."}
    schema = {
        "type": "object",
        "properties": {
            "origin": {"type": "object", "properties": {"city": place}},
            "goal": {"$ref": "#/properties/origin"},
            "city": {"$ref": "#/properties/origin/properties/city"},
            "lost": {"$ref": "https://example.com/a.json#/x"},
        },
    }
    said = json_dialect(schema)
    assert said["properties"]["goal"] == {"$ref": "#/$defs/properties_origin"}
    assert said["$defs"]["properties_origin"] == said["properties"]["origin"]
    assert said["$defs"]["properties_origin_properties_city"] == place
    named = {path.rpartition("/")[2] for path in re.findall(r'"#/[^"]*"', json.dumps(said))}
    assert {name.strip('"') for name in named} == set(said["$defs"])
    early = openapi_dialect(schema)["properties"]
    assert (early["goal"], early["city"]) == (early["origin"], place)


def test_a_schema_that_refers_to_itself_as_a_whole_is_a_definition_of_its_own() -> None:
    said = json_dialect({"type": "object", "properties": {"child": {"$ref": "#"}}})
    assert said["properties"]["child"] == {"$ref": "#/$defs/root"}
    assert said["$defs"]["root"]["properties"]["child"] == {"$ref": "#/$defs/root"}


@pytest.mark.parametrize(
    ("schema", "parameters", "told"),
    [
        (
            {
                "$ref": "#/$defs/In",
                "$defs": {"In": {"type": "object", "properties": {"a": {"type": "string"}}}},
            },
            {"type": "object", "properties": {"a": {"type": "string"}}, "propertyOrdering": ["a"]},
            False,
        ),
        (
            {"allOf": [{"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a", "b"]}]},
            {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "required": ["a"],
                "propertyOrdering": ["a"],
            },
            False,
        ),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, None, True),
        ({"type": "object", "properties": {}, "required": ["a"]}, None, False),
        ({"type": "object"}, None, False),
        ({}, None, False),
    ],
)
def test_before_gemini_2_5_a_tool_is_declared_with_all_that_its_root_says(
    schema: dict[str, Any], parameters: dict[str, Any] | None, told: bool
) -> None:
    request = ModelRequest([Message("user", "Hi")], tools=[ToolDefinition("look", "Looks.", schema)])
    (declared,) = encode(request, "gemini-2.0-flash")["tools"][0]["functionDeclarations"]
    assert declared.get("parameters") == parameters
    assert ('"additionalProperties":{"type":"integer"}' in declared["description"]) is told
    if parameters is not None:
        check_schema(parameters, "parameters", "x")
