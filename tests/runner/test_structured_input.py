"""`input_schema`: what does not fit is refused before the run, with the place; what fits goes as JSON."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from pydantic import BaseModel, Field

from kern import Agent, Message, Team, UsageError
from kern.db.in_memory import InMemoryDb
from kern.errors import InputCheckError
from kern.testing import ScriptedModel, tool_call


class Line(BaseModel):
    article: str
    quantity: int = Field(default=1, gt=0)


class Order(BaseModel):
    customer: str
    lines: list[Line]
    due: dt.date | None = None


FITTING = [
    {"customer": "Ann", "lines": [{"article": "milk", "quantity": 2}]},
    '{"customer": "Ann", "lines": [{"article": "milk", "quantity": 2}]}',
    Order(customer="Ann", lines=[Line(article="milk", quantity=2)]),
    {"customer": "Ann", "lines": [{"article": "milk", "quantity": "2"}]},
]


@pytest.mark.parametrize("given", FITTING)
@pytest.mark.parametrize("kind", ["agent", "team"])
async def test_an_input_that_fits_reaches_the_model_as_json(given: Any, kind: str) -> None:
    model = ScriptedModel(["done"])
    options: dict[str, Any] = {"model": model, "input_schema": Order}
    runner = Agent(**options) if kind == "agent" else Team(members=[], **options)
    output = await runner.arun(given)
    text = '{"customer":"Ann","lines":[{"article":"milk","quantity":2}],"due":null}'
    assert model.requests[0].messages[-1].content == text
    assert output.input == {"customer": "Ann", "lines": [{"article": "milk", "quantity": 2}], "due": None}


REFUSED = [
    ({"customer": "Ann"}, "/lines: Field required"),
    (
        {"customer": "Ann", "lines": [{"article": "milk", "quantity": 0}]},
        "/lines/0/quantity: Input should be",
    ),
    ({"customer": "Ann", "lines": [{}]}, "/lines/0/article: Field required"),
    ('{"customer": "Ann"', "Invalid JSON"),
    ("two milk, please", "Invalid JSON"),
    ({"customer": "Ann", "lines": [object()]}, "/lines/0: Input should be a valid dictionary"),
    ({"customer": "Ann", "lines": [], "due": "tomorrow"}, "/due: Input should be a valid date"),
]


@pytest.mark.parametrize(("given", "complaint"), REFUSED)
async def test_an_input_that_does_not_fit_is_refused_with_its_place(given: Any, complaint: str) -> None:
    model, db = ScriptedModel([]), InMemoryDb()
    agent = Agent(model=model, input_schema=Order, db=db, session_id="s")
    with pytest.raises(InputCheckError) as caught:
        await agent.arun(given)
    assert complaint in str(caught.value)
    assert str(caught.value).startswith("the input is not a valid Order: ")
    assert model.requests == []
    assert await db.load_session("s") is None


class Other(BaseModel):
    x: int = 1


@pytest.mark.parametrize("given", [Message("user", "hello"), ["a", "b"], Other()])
async def test_an_input_that_could_never_fit_is_a_mistake_in_the_program(given: Any) -> None:
    with pytest.raises(UsageError):
        await Agent(model=ScriptedModel([]), input_schema=Order).arun(given)


async def test_streams_and_sync_runs_are_checked_alike() -> None:
    agent = Agent(model=ScriptedModel([]), input_schema=Order)
    with pytest.raises(InputCheckError):
        async for _ in agent.arun({}, stream=True):
            pass


def test_a_sync_run_is_checked_too() -> None:
    with pytest.raises(InputCheckError):
        Agent(model=ScriptedModel([]), input_schema=Order).run({})


async def test_without_a_schema_a_dict_goes_as_it_is() -> None:
    model = ScriptedModel(["done"])
    await Agent(model=model).arun({"any": ["thing"]})
    assert model.requests[0].messages[-1].content == '{"any": ["thing"]}'


# Members


async def test_a_leader_is_told_a_member_s_schema_and_what_is_wrong_with_a_task() -> None:
    helper = ScriptedModel(["ordered"])
    member = Agent(name="clerk", model=helper, input_schema=Line)
    leader = ScriptedModel(
        [
            tool_call("delegate_task_to_member", member_id="clerk", task="two milk"),
            tool_call(
                "delegate_task_to_member", member_id="clerk", task='{"article": "milk", "quantity": 0}'
            ),
            tool_call(
                "delegate_task_to_member", member_id="clerk", task='{"article": "milk", "quantity": 2}'
            ),
            "done",
        ]
    )
    output = await Team(members=[member], model=leader).arun("order milk")
    assert '"exclusiveMinimum": 0' in (leader.requests[0].messages[0].content or "")
    results = [call.result or "" for call in output.tools]
    assert "InputCheckError: the task must be JSON that fits Line. That is not JSON." in results[0]
    assert "/quantity: Input should be greater than 0" in results[1]
    assert results[2] == "ordered"
    assert [call.tool_call_error for call in output.tools] == [True, True, False]
    assert len(helper.requests) == 1


async def test_what_is_no_class_is_refused() -> None:
    nonsense: Any = {"type": "object"}
    with pytest.raises(UsageError, match="input_schema must be a pydantic model class"):
        await Team(members=[Agent(name="a", input_schema=nonsense)], model=ScriptedModel([])).arun("x")
