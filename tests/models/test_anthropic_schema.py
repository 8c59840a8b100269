"""Anthropic's strict dialect, judged by what the service refuses, as `ModelServer` plays it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pydantic import BaseModel, Field

from kern.models._claude_schema import StrictBudget, strict_form
from kern.testing._anthropic_schemas import check_strict
from kern.testing._refusal import Refused
from kern.tools import strict_schema


class Item(BaseModel):
    """An item."""

    name: str = Field(min_length=1, max_length=20, description="What it is called.")
    count: int = Field(default=1, ge=0, le=10)
    tags: list[str] = Field(default=[], max_length=3)
    note: str | None = None


class Basket(BaseModel):
    first: Item
    rest: list[Item]
    kind: int | str


def taken(schema: dict[str, Any]) -> None:
    """The service takes the schema."""
    check_strict({"tools": [{"strict": True, "input_schema": schema}]})


def test_a_model_of_pydantics_is_said_with_its_bounds_in_words() -> None:
    form = strict_form(Item.model_json_schema())
    assert form is not None
    taken(form.schema)
    assert (form.optional, form.unions) == (3, 1)
    name = form.schema["properties"]["name"]
    assert name["description"] == "What it is called. (minLength: 1, maxLength: 20)"
    assert form.schema["required"] == ["name"]
    assert form.schema["properties"]["count"]["description"] == "minimum: 0, maximum: 10"


def test_definitions_count_as_often_as_they_are_named() -> None:
    form = strict_form(Basket.model_json_schema())
    assert form is not None
    taken(form.schema)
    assert (form.optional, form.unions) == (6, 3)


def test_a_schema_in_the_dialect_of_openai_is_taken_too() -> None:
    form = strict_form(strict_schema(Basket.model_json_schema()))
    assert form is not None
    taken(form.schema)
    assert form.optional == 0


LOOP = {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}
UNSAYABLE: list[tuple[str, Any]] = [
    (
        "a recursion",
        {"$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}}, "$ref": "#/$defs/n"},
    ),
    ("a reference to elsewhere", {"type": "object", "properties": {"a": {"$ref": "https://x"}}}),
    ("an open object", {"type": "object", "additionalProperties": {"type": "string"}}),
    ("a value of any type", {"type": "object", "properties": {"a": {}}}),
    ("a list of anything", {"type": "object", "properties": {"a": {"type": "array"}}}),
    ("what it is not", {"type": "object", "properties": {"a": {"not": {"type": "null"}}}}),
    ("a tuple", {"type": "object", "properties": {"a": {"type": "array", "prefixItems": [{}]}}}),
    ("an enum of objects", {"type": "object", "properties": {"a": {"enum": [{}]}}}),
    ("an unknown type", {"type": "object", "properties": {"a": {"type": "date"}}}),
    ("no object", {"type": "string"}),
    ("no schema", {"type": "object", "properties": {"a": True}}),
    ("several at once", {"type": "object", "allOf": [{"type": "object"}, {"type": "object"}]}),
]


@pytest.mark.parametrize(("name", "schema"), UNSAYABLE, ids=[name for name, _ in UNSAYABLE])
def test_what_cannot_be_said_is_not_strict(name: str, schema: dict[str, Any]) -> None:
    assert strict_form(schema) is None


def test_a_schema_that_is_too_deep_is_not_strict() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(100):
        schema = {"type": "object", "properties": {"a": schema}}
    assert strict_form(schema) is None


def test_the_limits_hold_for_all_schemas_of_a_request_together() -> None:
    plain = {"type": "object", "properties": {}}
    budget = StrictBudget()
    assert sum(budget.tool(plain) is not None for _ in range(25)) == 20
    ten = {"type": "object", "properties": {f"p{at}": {"type": "string"} for at in range(10)}}
    budget = StrictBudget()
    assert [budget.tool(ten) is not None for _ in range(4)] == [True, True, False, False]
    assert budget.tool(plain) is not None
    union = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    eight = {
        "type": "object",
        "properties": {f"p{at}": union for at in range(8)},
        "required": [f"p{at}" for at in range(8)],
    }
    budget = StrictBudget()
    assert budget.answer(eight) is not None
    assert [budget.tool(eight) is not None for _ in range(2)] == [True, False]


def random_schema(dice: random.Random, depth: int = 0) -> Any:
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const", "any", "union", "bad"]
    kinds += ["object", "array", "types"] * (depth < 3)
    match dice.choice(kinds):
        case "object":
            properties = {f"p{at}": random_schema(dice, depth + 1) for at in range(dice.randint(0, 3))}
            required = [name for name in properties if dice.random() < 0.7]
            return {"type": "object", "properties": properties, "required": required}
        case "array":
            return {"type": "array", "items": random_schema(dice, depth + 1), "minItems": dice.randint(0, 3)}
        case "enum":
            return {"enum": [1, "a", None]}
        case "const":
            return {"const": "a", "title": "A"}
        case "union":
            return {dice.choice(["anyOf", "oneOf"]): [random_schema(dice, depth + 1), {"type": "null"}]}
        case "types":
            return {"type": ["string", "null"], "maxLength": 3}
        case "any":
            return dice.choice([{}, {"$ref": "#/$defs/a"}, {"description": "x"}])
        case "bad":
            return {"type": "string", "format": dice.choice(["uuid", "regex"]), "pattern": "a+"}
        case kind:
            return {"type": kind, "minimum": 1, "examples": [1]}


@pytest.mark.parametrize("seed", range(300))
def test_whatever_is_strict_the_service_takes(seed: int) -> None:
    dice = random.Random(seed)
    budget = StrictBudget()
    tools = []
    for _ in range(dice.randint(1, 30)):
        properties = {f"p{at}": random_schema(dice) for at in range(dice.randint(0, 3))}
        schema = {"type": "object", "properties": properties, "$defs": {"a": random_schema(dice, 2)}}
        if (form := budget.tool(schema)) is not None:
            tools.append({"strict": True, "input_schema": form})
    try:
        check_strict({"tools": tools})
    except Refused as refusal:
        pytest.fail(str(refusal))
