"""Schemas and names on their way to OpenAI; the dialect itself: `tests/tools/test_schema.py`."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from kern.messages import Message
from kern.models.base import ModelRequest, ToolDefinition
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.models.openai._schema import schema_for, schema_name
from kern.testing import ModelServer
from kern.testing._refusal import Refused
from kern.testing._validate import check_strict
from kern.tools.schema import strict_schema
from tests.models.replay import Sink


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


def nested(levels: int) -> dict[str, Any]:
    """So many objects, one in the other."""
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        closed = {"additionalProperties": False, "required": ["in"]}
        schema = {"type": "object", "properties": {"in": schema}, **closed}
    return schema


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        (nested(10), True),
        (nested(11), False),
        ({"type": "object", "properties": {"a": {"enum": [str(n) for n in range(1_001)]}}}, False),
        ({"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(5_001)}}, False),
    ],
)
async def test_a_schema_beyond_the_limits_of_strict_ones_is_sent_as_a_plain_one(
    schema: dict[str, Any], strict: bool
) -> None:
    assert schema_for(schema, strict=True)[1] is strict
    tool = ToolDefinition("look", "Looks.", schema, strict=True)
    kinds: tuple[Any, ...] = (OpenAIChat, OpenAIResponses)
    for made in kinds:
        async with ModelServer(["ok"]) as server:
            model = made("m", base_url=server.base_url, api_key="any", max_retries=0)
            await model.respond(ModelRequest([Message("user", "Hi")], tools=[tool]), Sink())


def test_the_server_refuses_strict_schemas_beyond_the_limits() -> None:
    check_strict(nested(10), "p", "look")
    with pytest.raises(Refused, match="11 levels of nesting exceeds limit of 10"):
        check_strict(nested(11), "p", "look")
    with pytest.raises(Refused, match="more than 1000 values"):
        check_strict({"enum": list(range(1_001))}, "p", "look")
