"""What a person puts in is checked before it is used: what does not fit is theirs to put right."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import AfterValidator, BaseModel, Field, SecretStr, field_validator

from kern import Agent, RunOutput, RunStatus, Team, tool
from kern.db import InMemoryDb
from kern.errors import UsageError
from kern.run.requirement import RunRequirement, UserInputError
from kern.testing import FunctionModel, ScriptedModel, tool_call


def even(number: int) -> int:
    if number % 2:
        raise ValueError("must be even")
    return number


def broken(number: int) -> int:
    raise LookupError("no table")


def agent_for(kind: Any, **more: Any) -> Agent:
    def book(x: Any, to: str = "ann") -> str:
        return f"{x!r} {to}"

    book.__annotations__.update(x=kind)
    model = FunctionModel(lambda r: "done" if r.messages[-1].role == "tool" else tool_call("book", to="bob"))
    options: dict[str, Any] = {"user_input_fields": ["x"]} | more
    return Agent(model=model, tools=[tool(book, **options)], db=InMemoryDb(), session_id="s")


@pytest.mark.parametrize(
    ("kind", "wrong", "right"),
    [
        (date, "2026-13-02", "2026-12-02"),
        (UUID, "x", "12345678-1234-5678-1234-567812345678"),
        (Decimal, "x", "1.5"),
        (list[date], ["x"], ["2026-12-02"]),
        (int, "x", 3),
        (Annotated[int, AfterValidator(even)], 3, 4),
    ],
)
async def test_a_person_is_told_what_does_not_fit_and_can_put_it_right(
    kind: Any, wrong: Any, right: Any
) -> None:
    agent = agent_for(kind)
    output = await agent.arun("q")
    output.requirements[0].provide_user_input({"x": wrong})
    with pytest.raises(
        UserInputError, match=r"book: the user input does not fit the parameters: /?x"
    ) as caught:
        await agent.acontinue_run(output)
    assert caught.value.fields == ["x"]
    assert copy.copy(caught.value).tool_call_id == output.requirements[0].tool_call_id
    stored = await agent.aget_run_output(output.run_id)
    assert isinstance(stored, RunOutput)
    assert stored.status is RunStatus.paused
    assert stored.requirements[0].needs_user_input
    stored.requirements[0].provide_user_input({"x": right})
    done = await agent.acontinue_run(stored)
    assert done.status is RunStatus.completed
    assert not done.tools[0].tool_call_error
    assert done.tools[0].tool_args == {"to": "bob", "x": right}
    again = await agent.aget_run_output(output.run_id)
    assert again is not None
    assert again.tools[0].tool_args == {"to": "bob", "x": right}


async def test_a_validator_that_breaks_is_told_to_the_person_who_may_reject() -> None:
    agent = agent_for(Annotated[int, AfterValidator(broken)])
    output = await agent.arun("q")
    output.requirements[0].provide_user_input({"x": 1})
    with pytest.raises(UserInputError, match="LookupError: no table"):
        await agent.acontinue_run(output)
    output.requirements[0].reject()
    done = await agent.acontinue_run(output)
    assert done.status is RunStatus.completed
    assert done.tools[0].tool_args == {"to": "bob"}


async def test_what_is_no_json_is_refused_and_half_a_character_is_mended() -> None:
    agent = agent_for(Any)
    output = await agent.arun("q")
    deep: Any = []
    for _ in range(1000):
        deep = [deep]
    need = output.requirements[0]
    for value in (deep, object()):
        with pytest.raises(UsageError, match="cannot be written as JSON"):
            need.provide_user_input({"x": value})
    forged = RunRequirement.from_dict({**need.to_dict(), "user_input": {"x": "a\ud83d"}})
    done = await agent.acontinue_run(run_id=output.run_id, requirements=[forged])
    assert done.tools[0].result == "'a\ufffd' bob"


async def test_two_different_answers_to_one_requirement_are_refused() -> None:
    agent = agent_for(int, user_input_fields=[], requires_confirmation=True)
    agent.model = FunctionModel(lambda r: "done" if r.messages[-1].role == "tool" else tool_call("book", x=1))
    output = await agent.arun("q")
    yes, no = (replace(output.requirements[0], confirmed=answer) for answer in (True, False))
    for answers in ([yes, no], [no, yes]):
        with pytest.raises(UsageError, match="answered twice"):
            await agent.acontinue_run(run_id=output.run_id, requirements=answers)
    with pytest.raises(UsageError, match="requirements must hold RunRequirement objects, not None"):
        await agent.acontinue_run(run_id=output.run_id, requirements=[None])
    with pytest.raises(UsageError, match=r"RunRequirement\.from_dict"):
        await agent.acontinue_run(run_id=output.run_id, requirements=[yes.to_dict()])
    done = await agent.acontinue_run(run_id=output.run_id, requirements=[yes, copy.copy(yes)])
    assert done.tools[0].result == "1 ann"


async def test_changed_arguments_are_refused_rather_than_dropped() -> None:
    agent = agent_for(int, user_input_fields=[], requires_confirmation=True)
    agent.model = FunctionModel(
        lambda r: "done" if r.messages[-1].role == "tool" else tool_call("book", x=100)
    )
    output = await agent.arun("q")
    need = output.requirements[0]
    before = dict(need.tool_args)
    need.tool_args["x"] = 10
    need.confirm()
    with pytest.raises(UsageError, match="tool_args of the requirement were changed"):
        await agent.acontinue_run(output)
    need.tool_args = before
    assert (await agent.acontinue_run(output)).tools[0].tool_args["x"] == 100


async def test_a_member_s_call_is_checked_too() -> None:
    member = agent_for(date)
    member.name = "Booker"
    model = ScriptedModel([tool_call("delegate_task_to_member", member_id="booker", task="book"), "All."])
    team = Team([member], model=model, db=InMemoryDb(), session_id="s")
    output = await team.arun("q")
    output.requirements[0].provide_user_input({"x": "tomorrow"})
    with pytest.raises(UserInputError):
        await team.acontinue_run(output)
    output.requirements[0].provide_user_input({"x": "2026-12-02"})
    done = await team.acontinue_run(output)
    assert done.status is RunStatus.completed
    assert done.member_responses[0].tools[0].tool_args["x"] == "2026-12-02"


class Card(BaseModel):
    owner: str = ""
    pin: SecretStr = SecretStr("")
    note: str = Field(default="", exclude=True)


class Doubled(BaseModel):
    v: int = 0

    @field_validator("v", mode="before")
    @classmethod
    def double(cls, value: int) -> int:
        return value * 2


class Place(BaseModel):
    day: date
    rows: set[int]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (SecretStr, SecretStr("1234")),
        (Card, Card(pin=SecretStr("1234"))),
        (Card, Card(note="n")),
        (Doubled, Doubled(v=5)),
        (Any, math.nan),
        (list[Any], [object()]),
        (Any, {1: "a", "1": "b"}),
        (Any, b"\xff"),
    ],
)
def test_a_value_that_json_would_change_is_refused(kind: Any, value: Any) -> None:
    output = agent_for(kind, requires_user_input=True).run("Book")
    with pytest.raises(UsageError, match="book: the values cannot be written as JSON: /x"):
        output.requirements[0].provide_user_input({"x": value})
    assert output.requirements[0].user_input is None


@pytest.mark.parametrize(
    ("kind", "value", "plain"),
    [
        (date, date(2026, 12, 2), "2026-12-02"),
        (Decimal, Decimal("1.50"), "1.50"),
        (Place, Place(day=date(2026, 12, 2), rows={3}), {"day": "2026-12-02", "rows": [3]}),
        (tuple[int, int], (1, 2), [1, 2]),
    ],
)
def test_a_value_that_json_holds_comes_to_the_tool_as_it_was(kind: Any, value: Any, plain: Any) -> None:
    agent = agent_for(kind, requires_user_input=True)
    output = agent.run("Book")
    output.requirements[0].provide_user_input({"x": value})
    assert output.requirements[0].user_input == {"x": plain}
    assert agent.continue_run(output).tools[0].result == f"{value!r} bob"


def confirming(called: list[int]) -> Agent:
    @tool(requires_confirmation=True)
    def refund(amount: int) -> str:
        called.append(amount)
        return "refunded"

    model = FunctionModel(
        lambda r: "done" if r.messages[-1].role == "tool" else tool_call("refund", amount=5)
    )
    return Agent(model=model, tools=[refund], db=InMemoryDb(), session_id="s")


@pytest.mark.parametrize("said", ["no", "false", "True", "", 0, 1, [], 1.0])
async def test_only_true_is_consent(said: Any) -> None:
    called: list[int] = []
    agent = confirming(called)
    output = await agent.arun("q")
    [need] = output.requirements
    with pytest.raises(UsageError, match=r"confirmed must be True, False or None, not .*; call confirm\(\)"):
        need.confirmed = said
    with pytest.raises(UsageError, match="confirmed must be True, False or None"):
        replace(need, confirmed=said)
    assert need.needs_confirmation
    paused = await agent.acontinue_run(output)
    assert paused.status is RunStatus.paused
    assert not called


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "zzz"},
        {"kind": "in_doubt"},
        {"tool_name": "other"},
        {"tool_call_id": "x"},
        {"agent_path": ["evil"]},
    ],
)
async def test_an_answer_to_a_requirement_that_names_another_call_is_refused(changed: Any) -> None:
    called: list[int] = []
    agent = confirming(called)
    output = await agent.arun("q")
    answer = replace(output.requirements[0], confirmed=True, **changed)
    name = next(iter(changed))
    with pytest.raises(UsageError, match=f"refund: {name} of the requirement was changed, from .* to "):
        await agent.acontinue_run(run_id=output.run_id, requirements=[answer])
    assert not called
    output.requirements[0].confirm()
    assert (await agent.acontinue_run(output)).status is RunStatus.completed
    assert called == [5]


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        ({}, ["x"]),
        ({"y": 1}, ["x", "y"]),
        ({"x": 1, "to": "eve"}, ["to"]),
        ({"x": object()}, ["x"]),
        (None, ["x"]),
        ([["x", 1]], ["x"]),
        ("x", ["x"]),
    ],
)
async def test_a_form_that_lacks_a_field_or_has_one_too_many_is_the_persons_to_put_right(
    form: Any, fields: list[str]
) -> None:
    output = await agent_for(int).arun("q")
    [need] = output.requirements
    with pytest.raises(UserInputError, match="book") as caught:
        need.provide_user_input(form)
    assert caught.value.fields == fields
    assert caught.value.tool_call_id == need.tool_call_id
    assert need.needs_user_input
