"""Schemas and names on their way to OpenAI; the dialect itself: `tests/tools/test_schema.py`."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from kern.models.openai._schema import schema_for, schema_name
from kern.tools.schema import strict_schema


class Cat(BaseModel):
    name: str
    lives: int = 9
    kittens: list[Cat] = []


def test_a_schema_that_is_strict_already_is_sent_as_it_is() -> None:
    strict = strict_schema(Cat.model_json_schema())
    assert schema_for(strict, strict=True) == (strict, True)


def test_another_schema_is_made_strict_so_that_what_answers_it_fits_it_as_well() -> None:
    schema, strict = schema_for(Cat.model_json_schema(), strict=True)
    assert strict
    assert schema["required"] == ["name", "lives", "kittens"]
    assert schema["properties"]["lives"]["type"] == "integer"
    assert schema["$defs"]["Cat"]["required"] == ["name", "lives", "kittens"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"x": {"type": "object", "additionalProperties": True}}},
        {"type": "array", "items": {"type": "string"}},
        {"anyOf": [{"type": "string"}]},
    ],
)
def test_what_has_no_strict_form_is_sent_as_it_is_and_not_called_strict(schema: dict[str, Any]) -> None:
    assert schema_for(schema, strict=True) == (schema, False)


def test_what_is_not_to_be_strict_is_sent_as_it_is() -> None:
    schema = Cat.model_json_schema()
    assert schema_for(schema, strict=False) == (schema, False)


def test_names_are_brought_to_what_the_api_allows() -> None:
    assert schema_name("Box[int]") == "Box_int_"
    assert schema_name("a" * 100) == "a" * 64
    assert schema_name("") == "answer"
