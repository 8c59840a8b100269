from __future__ import annotations

import datetime
import enum
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib._pydantic import _ensure_strict_json_schema
from pydantic import BaseModel, Field, TypeAdapter

from kern.errors import UsageError
from kern.tools.schema import strict_schema, undo_strict, without_titles


class Colour(enum.Enum):
    red = "red"
    blue = "blue"


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


class Tree(BaseModel):
    """A tree."""

    name: str
    children: list[Tree] = []


class Everything(BaseModel):
    title: str
    count: int = Field(3, ge=1, lt=10)
    note: str | None = None
    short: str = Field("x", min_length=1, max_length=5)
    price: Decimal = Decimal(1)
    when: datetime.datetime
    address: str = Field(json_schema_extra={"format": "uri"})
    colour: Colour = Colour.red
    mode: Literal["a", "b"] = "a"
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    pair: tuple[int, str]
    tags: set[str] = set()
    tree: Tree | None = None
    described: Cat = Field(default_factory=Cat, description="A cat.")


ALLOWED = {
    *("type", "description", "enum", "const", "anyOf", "$ref", "$defs", "properties", "required"),
    *("additionalProperties", "items", "minItems", "maxItems", "minimum", "maximum", "exclusiveMinimum"),
    *("exclusiveMaximum", "multipleOf", "pattern", "format"),
}


def walk(schema: dict[str, Any]) -> list[dict[str, Any]]:
    below = [
        *schema.get("properties", {}).values(),
        *schema.get("$defs", {}).values(),
        *schema.get("anyOf", ()),
    ]
    if "items" in schema:
        below.append(schema["items"])
    return [schema, *(part for child in below for part in walk(child))]


def test_a_strict_schema_closes_every_object_and_requires_every_property() -> None:
    original = Everything.model_json_schema()
    before = TypeAdapter(Any).dump_json(original)
    strict = strict_schema(original)
    assert TypeAdapter(Any).dump_json(original) == before
    for part in walk(strict):
        assert part.keys() <= ALLOWED
        if part.get("type") == "object":
            assert part["additionalProperties"] is False
            assert part["required"] == list(part["properties"])
        if "$ref" in part:
            assert len(part) == 1


def test_the_openai_client_finds_nothing_to_change_in_a_strict_schema() -> None:
    strict = strict_schema(Everything.model_json_schema())
    again = strict_schema(Everything.model_json_schema())
    assert _ensure_strict_json_schema(again, path=(), root=again) == strict


def test_a_strict_schema_is_left_as_it_is() -> None:
    strict = strict_schema(Everything.model_json_schema())
    assert strict_schema(strict) == strict
    assert strict_schema(strict, nullable=False) == strict


def test_what_was_optional_may_have_to_be_given_instead_of_being_null() -> None:
    original = Everything.model_json_schema()
    before = TypeAdapter(Any).dump_json(original)
    strict = strict_schema(original, nullable=False)
    assert TypeAdapter(Any).dump_json(original) == before
    assert strict["required"] == list(Everything.model_fields)
    assert strict["properties"]["count"]["type"] == "integer"
    assert strict["properties"]["note"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert strict["$defs"]["Cat"]["properties"]["lives"] == {"type": "integer", "description": "default: 9"}


def test_a_property_may_be_called_like_a_keyword() -> None:
    properties = {"default": {"type": "string"}, "not": {"type": "null"}, "required": {"type": "boolean"}}
    schema = {"type": "object", "properties": properties}
    assert strict_schema(schema, nullable=False)["properties"] == properties


def test_optional_properties_may_be_null_and_constraints_are_told() -> None:
    properties = strict_schema(Everything.model_json_schema())["properties"]
    assert properties["title"] == {"type": "string"}
    assert properties["count"] == {
        "type": ["integer", "null"],
        "minimum": 1,
        "exclusiveMaximum": 10,
        "description": "default: 3",
    }
    assert properties["note"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert properties["short"] == {
        "type": ["string", "null"],
        "description": 'default: "x", minLength: 1, maxLength: 5',
    }
    assert properties["when"] == {"type": "string", "format": "date-time"}
    assert properties["address"] == {"type": "string", "description": 'format: "uri"'}
    assert properties["colour"] == {
        "anyOf": [{"$ref": "#/$defs/Colour"}, {"type": "null"}],
        "description": 'default: "red"',
    }
    assert properties["pet"] == {"anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]}
    assert properties["pair"] == {
        "type": "array",
        "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        "minItems": 2,
        "maxItems": 2,
    }
    assert properties["described"]["description"] == "A cat."
    assert {"type": "null"} in properties["described"]["anyOf"]


def test_a_recursive_model_keeps_its_references_and_gets_an_object_as_its_root() -> None:
    strict = strict_schema(Tree.model_json_schema())
    assert strict["type"] == "object"
    assert strict["properties"]["name"] == {"type": "string"}
    assert strict["$defs"]["Tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}


class OpenObject(BaseModel):
    values: dict[str, int]


class Untyped(BaseModel):
    anything: Any


class UntypedItems(BaseModel):
    items: list  # type: ignore[type-arg]


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (OpenObject.model_json_schema(), "/properties/values"),
        (Untyped.model_json_schema(), "/properties/anything"),
        (UntypedItems.model_json_schema(), "/properties/items"),
        (TypeAdapter(int | str).json_schema(), "root"),
        (TypeAdapter(list[int]).json_schema(), "root"),
    ],
)
def test_what_the_strict_dialect_cannot_say_is_refused_with_its_place(
    schema: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        strict_schema(schema)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "object", "additionalProperties": {"type": "integer"}},
        {"type": "object", "additionalProperties": True},
        {"type": "object", "patternProperties": {"^a": {"type": "string"}}},
        {"not": {"type": "string"}},
        {"allOf": [{"type": "string"}, {"minLength": 1}]},
        {"type": "array"},
        {"type": "array", "items": True},
        {"anyOf": [{"type": "string"}, True]},
        {},
        {"description": "Anything"},
        True,
    ],
)
def test_what_has_no_strict_form_is_found_at_any_depth(part: Any) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "array", "items": {"anyOf": [part]}}}}
    with pytest.raises(UsageError, match="/properties/x/items"):
        strict_schema(schema)


def test_undoing_takes_out_the_nulls_that_stand_for_defaults_at_any_depth() -> None:
    value = {
        "title": "t",
        "count": None,
        "note": None,
        "when": "2026-01-02T03:04:05",
        "address": "a",
        "pet": {"kind": "cat", "lives": None},
        "pair": [1, "x"],
        "tree": {"name": "root", "children": [{"name": "leaf", "children": None}]},
        "described": None,
    }
    undone = undo_strict(value, Everything.model_json_schema())
    assert undone == {
        "title": "t",
        "when": "2026-01-02T03:04:05",
        "address": "a",
        "pet": {"kind": "cat"},
        "pair": [1, "x"],
        "tree": {"name": "root", "children": [{"name": "leaf"}]},
    }


def test_undoing_follows_the_branch_that_a_constant_names() -> None:
    class Left(BaseModel):
        side: Literal["left"]
        size: int | None

    class Right(BaseModel):
        side: Literal["right"]
        size: int = 1

    class Holder(BaseModel):
        sides: list[Left | Right]

    value = {"sides": [{"side": "left", "size": None}, {"side": "right", "size": None}]}
    undone = undo_strict(value, Holder.model_json_schema())
    assert undone == {"sides": [{"side": "left", "size": None}, {"side": "right"}]}


def test_a_constant_with_a_default_is_not_made_nullable() -> None:
    kind = strict_schema(Cat.model_json_schema())["properties"]["kind"]
    assert kind == {"const": "cat", "type": "string"}


def test_a_null_that_the_schema_requires_stays() -> None:
    class Asked(BaseModel):
        answer: str | None

    assert undo_strict({"answer": None}, Asked.model_json_schema()) == {"answer": None}


LEAVES = st.sampled_from([int, str, float, bool, list[int]])


@settings(deadline=None)
@given(st.data())
def test_a_value_with_nulls_for_what_was_left_out_comes_back_as_it_was(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from("abcdef"), unique=True, min_size=1))
    types = {name: data.draw(LEAVES) for name in names}
    optional = {name for name in names if data.draw(st.booleans())}
    schema = {
        "type": "object",
        "properties": {name: TypeAdapter(kind).json_schema() for name, kind in types.items()},
        "required": [name for name in names if name not in optional],
    }
    given_names = [name for name in names if name not in optional or data.draw(st.booleans())]
    value = {name: data.draw(st.from_type(types[name])) for name in given_names}
    nested = {
        "type": "object",
        "properties": {"inner": {"type": "array", "items": schema}},
        "required": ["inner"],
    }
    filled = {"inner": [dict.fromkeys(names) | value]}
    assert undo_strict(filled, nested) == {"inner": [value]}
    assert strict_schema(nested)["properties"]["inner"]["items"]["required"] == names


def test_a_reference_to_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="refers to '#/\\$defs/Gone'"):
        strict_schema({"$ref": "#/$defs/Gone"})


def test_titles_go_and_a_property_named_title_stays() -> None:
    schema = without_titles(Everything.model_json_schema())
    assert "title" in schema["properties"]
    assert "title" not in schema
    assert "title" not in schema["properties"]["title"]
    assert all("title" not in part for part in schema["$defs"].values())
