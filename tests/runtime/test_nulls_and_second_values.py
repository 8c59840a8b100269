"""What a structured answer says is what it means: a null that may be one, and which of several values."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from kern import Agent, tool
from kern.models.openai import OpenAIChat
from kern.testing import ModelServer, tool_call
from kern.tools import strict_schema
from kern.tools.schema import undo_strict


class Place(BaseModel):
    street: str = "Main"
    zip: str | None = "0000"


class Person(BaseModel):
    name: str
    phone: str | None = "unknown"
    boss: int | None = 1
    kids: list[int] = []
    age: int = 30
    place: Place | None = Place()


NULLS = (
    '{"name": "Ann", "phone": null, "boss": null, "kids": null, "age": null, '
    '"place": {"street": null, "zip": null}}'
)
ANN = Person(name="Ann", phone=None, boss=None, place=Place(zip=None))


async def asked(answers: list[Any], /, **settings: Any) -> tuple[Any, int]:
    async with ModelServer(answers) as server:
        model = OpenAIChat("m", base_url=server.base_url, api_key="any", max_retries=0)
        output = await Agent(model=model, **settings).arun("Who?")
        return output.content, len(server.requests)


async def test_a_null_for_what_may_be_null_stays_null() -> None:
    assert await asked([NULLS], output_schema=Person) == (ANN, 1)
    spoken, _ = await asked(['{"name": "Ann", "place": null}'], output_schema=Person)
    assert spoken == Person(name="Ann", place=None)


@pytest.mark.parametrize("strict", [True, False])
async def test_a_null_argument_stays_null(strict: bool) -> None:
    got = []

    @tool(strict=strict)
    def save(name: str, phone: str | None = "unknown", size: int = 5) -> str:
        """Save."""
        got.append((name, phone, size))
        return "ok"

    arguments = {"size": None} if strict else {}
    await asked([tool_call("save", name="Ann", phone=None, **arguments), "Done"], tools=[save])
    assert got == [("Ann", None, 5)]


@pytest.mark.parametrize(
    ("part", "stays"),
    [
        ({"type": "string"}, False),
        ({"type": "string", "default": None}, False),
        ({"type": ["string", "null"]}, True),
        ({"type": ["string", "null"], "default": "x"}, True),
        ({"type": ["string", "null"], "default": None}, False),
        ({"anyOf": [{"type": "string"}, {"type": "null"}], "default": "x"}, True),
        ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, False),
        ({"enum": ["a", None]}, True),
        ({"enum": ["a", "b"]}, False),
        ({"const": "a"}, False),
        ({"$ref": "#/$defs/Maybe"}, True),
        ({"$ref": "#/$defs/Text"}, False),
        ({"allOf": [{"$ref": "#/$defs/Maybe"}], "default": "x"}, True),
        ({"allOf": [{"$ref": "#/$defs/Text"}], "default": "x"}, False),
    ],
)
def test_a_null_is_undone_only_where_the_schema_has_none(part: dict[str, Any], stays: bool) -> None:
    schema = {
        "type": "object",
        "properties": {"part": part},
        "$defs": {
            "Maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "Text": {"type": "string"},
        },
    }
    assert undo_strict({"part": None}, schema) == ({"part": None} if stays else {})
    assert strict_schema(Person.model_json_schema())["required"] == list(Person.model_fields)


class Order(BaseModel):
    item: str
    amount: int


TWO = '{"item": "milk", "amount": 2}'
ONE = '{"item": "milk", "amount": 1}'


@pytest.mark.parametrize("json_mode", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        f"{TWO}\n\nNote: had you asked for the default it would be {ONE}.",
        f"```json\n{TWO}\n```\nTo cancel, answer with:\n```json\n{ONE}\n```",
        f"At first: {ONE}. Then again: {TWO}",
        f"```json\n{TWO}\n```\nNot {ONE}.",
    ],
)
async def test_of_two_values_that_fit_neither_is_taken(text: str, json_mode: bool) -> None:
    content, requests = await asked([text, TWO], output_schema=Order, use_json_mode=json_mode)
    assert (content, requests) == (Order(item="milk", amount=2), 2)


@pytest.mark.parametrize(
    "text",
    [
        TWO,
        f"{TWO}{TWO}",
        f"{ONE}\n\n{TWO}",
        f'{ONE}{TWO}{{"other": 1}}',
        f"{TWO}\n\nThat is: ```json\n{TWO}\n```",
        f'Not {{"amount": 1}}, but {TWO}, for {{"nobody": 3}}.',
        f"<think>Perhaps {ONE}?</think>{TWO}",
        f"Perhaps {ONE}?</think>\n```json\n{TWO}\n```",
        f"<think>{TWO}</think>Done.",
    ],
)
async def test_one_value_that_fits_is_taken_out_of_many_words(text: str) -> None:
    content, requests = await asked([text], output_schema=Order)
    assert (content, requests) == (Order(item="milk", amount=2), 1)
