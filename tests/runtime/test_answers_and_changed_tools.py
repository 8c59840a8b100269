"""What a person has answered counts for the call, also if the program that continues the run has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kern import Agent, RunOutput, RunStatus, Team, TeamRunOutput, tool
from kern.db import InMemoryDb
from kern.durable import DbJournal
from kern.errors import UsageError
from kern.run.requirement import RunRequirement
from kern.testing import FunctionModel, tool_call

CONFIRM: dict[str, Any] = {"requires_confirmation": True}
ENTER: dict[str, Any] = {"user_input_fields": ["amount"]}
EXTERNAL: dict[str, Any] = {"external_execution": True}
PLAIN: dict[str, Any] = {}
ASKS = {"confirmation": CONFIRM, "user_input": ENTER, "external_execution": EXTERNAL}

DB = InMemoryDb()
"""The runs of all tests: every run has an id and a session of its own."""


class Desk:
    """An application that pays, in several versions: `paid` has the amounts."""

    def __init__(self, *, team: bool = False, journal: bool = False) -> None:
        self.paid: list[int] = []
        self._team = team
        self._journal = DbJournal(DB) if journal else None

    def version(self, asks: dict[str, Any]) -> Agent | Team:
        def pay(amount: int) -> str:
            """Pay."""
            self.paid.append(amount)
            return "paid"

        def clerk(request: Any) -> Any:
            last = request.messages[-1]
            return f"end: {last.content}" if last.role == "tool" else tool_call("pay", amount=1000)

        agent = Agent(id="clerk", model=FunctionModel(clerk), tools=[tool(**asks)(pay)], db=DB)
        if not self._team:
            return Agent(id="clerk", model=agent.model, tools=agent.tools, db=DB, journal=self._journal)
        return Team(
            [agent], id="desk", mode="route", model=FunctionModel(route), db=DB, journal=self._journal
        )

    async def asked(self, asks: dict[str, Any]) -> RunOutput | TeamRunOutput:
        output = await self.version(asks).arun("q")
        assert output.status is RunStatus.paused
        return output


def route(request: Any) -> Any:
    return tool_call("delegate_task_to_member", member_id="clerk", task="pay")


def confirm(requirement: RunRequirement) -> None:
    requirement.confirm()


def reject(requirement: RunRequirement) -> None:
    requirement.reject("not today")


def enter(requirement: RunRequirement) -> None:
    requirement.provide_user_input({"amount": 5})


def give(requirement: RunRequirement) -> None:
    requirement.set_external_execution_result("done by hand")


ANSWERS = {"confirmation": confirm, "user_input": enter, "external_execution": give}


@pytest.fixture(params=["agent", "agent with a journal", "member", "member with a journal"])
def desk(request: pytest.FixtureRequest) -> Desk:
    return Desk(team="member" in request.param, journal="journal" in request.param)


@pytest.mark.parametrize("today", [PLAIN, CONFIRM, ENTER, EXTERNAL], ids=repr)
@pytest.mark.parametrize("asked", list(ASKS))
async def test_a_rejected_call_is_not_made_whatever_the_tool_asks_today(
    desk: Desk, asked: str, today: dict[str, Any]
) -> None:
    paused = await desk.asked(ASKS[asked])
    reject(paused.requirements[0])
    done = await desk.version(today).acontinue_run(paused)
    assert done.status is RunStatus.completed
    assert desk.paid == []
    assert "The user has rejected this call: not today" in str(done.content)


@pytest.mark.parametrize("today", [PLAIN, CONFIRM, ENTER, EXTERNAL], ids=repr)
async def test_a_result_from_elsewhere_is_the_result_whatever_the_tool_asks_today(
    desk: Desk, today: dict[str, Any]
) -> None:
    paused = await desk.asked(EXTERNAL)
    give(paused.requirements[0])
    done = await desk.version(today).acontinue_run(paused)
    assert done.status is RunStatus.completed
    assert desk.paid == []
    assert "done by hand" in str(done.content)


async def test_values_of_a_person_are_used_by_a_tool_that_asks_for_none_today(desk: Desk) -> None:
    paused = await desk.asked(ENTER)
    enter(paused.requirements[0])
    done = await desk.version(PLAIN).acontinue_run(paused)
    assert (done.status, desk.paid) == (RunStatus.completed, [5])


@pytest.mark.parametrize(
    ("asked", "today"),
    [
        ("confirmation", "user_input"),
        ("confirmation", "external_execution"),
        ("user_input", "confirmation"),
        ("user_input", "external_execution"),
    ],
)
async def test_an_answer_that_does_not_settle_what_the_tool_asks_today_leads_to_a_new_question(
    desk: Desk, asked: str, today: str
) -> None:
    paused = await desk.asked(ASKS[asked])
    ANSWERS[asked](paused.requirements[0])
    again = await desk.version(ASKS[today]).acontinue_run(paused)
    assert again.status is RunStatus.paused
    assert desk.paid == []
    [question] = again.requirements
    assert (question.kind, question.is_resolved) == (today, False)
    assert question.id != paused.requirements[0].id
    ANSWERS[today](question)
    done = await desk.version(ASKS[today]).acontinue_run(again)
    assert done.status is RunStatus.completed
    assert desk.paid == {"confirmation": [5], "user_input": [5], "external_execution": []}[today]


async def test_a_question_without_an_answer_waits_on_also_if_the_tool_asks_nothing_today(desk: Desk) -> None:
    paused = await desk.asked(CONFIRM)
    still = await desk.version(PLAIN).acontinue_run(paused)
    assert (still.status, desk.paid) == (RunStatus.paused, [])
    confirm(still.requirements[0])
    done = await desk.version(PLAIN).acontinue_run(still)
    assert (done.status, desk.paid) == (RunStatus.completed, [1000])


@pytest.mark.parametrize("answer", [reject, give])
async def test_an_answer_counts_also_if_the_model_s_arguments_do_not_fit_or_the_limit_is_reached(
    answer: Callable[[RunRequirement], None],
) -> None:
    def pay(iban: str) -> str:
        """Pay."""
        raise AssertionError

    desk = Desk()
    paused = await desk.asked(EXTERNAL)
    answer(paused.requirements[0])
    model = FunctionModel(lambda request: f"end: {request.messages[-1].content}")
    today = Agent(id="clerk", model=model, tools=[pay], db=DB, tool_call_limit=0)
    done = await today.acontinue_run(paused)
    assert ("not today" if answer is reject else "done by hand") in str(done.content)


async def test_values_that_lack_a_field_of_today_lead_to_a_new_question() -> None:
    def version(*fields: str) -> Agent:
        def pay(amount: int, iban: str = "") -> str:
            """Pay."""
            return f"{amount} to {iban}"

        def pay_both(amount: int, iban: str) -> str:
            """Pay."""
            return f"{amount} to {iban}"

        model = FunctionModel(
            lambda request: (
                str(request.messages[-1].content) if request.messages[-1].role == "tool" else tool_call("pay")
            )
        )
        body = pay_both if len(fields) == 2 else pay
        return Agent(model=model, id="a", tools=[tool(body, name="pay", user_input_fields=fields)], db=DB)

    paused = await version("amount").arun("q")
    paused.requirements[0].provide_user_input({"amount": 5})
    again = await version("amount", "iban").acontinue_run(paused)
    [question] = again.requirements
    assert question.user_input is None
    question.provide_user_input({"amount": 6, "iban": "DE"})
    done = await version("amount", "iban").acontinue_run(again)
    assert done.content == "6 to DE"


async def test_a_later_question_repeats_the_values_and_takes_no_others() -> None:
    desk = Desk()
    paused = await desk.asked(ENTER)
    enter(paused.requirements[0])
    again = await desk.version(CONFIRM).acontinue_run(paused)
    [question] = again.requirements
    assert (question.user_input, question.tool_args) == ({"amount": 5}, {"amount": 5})
    question.confirm()
    question.user_input = {"amount": 7}
    with pytest.raises(UsageError, match="waits for confirmation"):
        await desk.version(CONFIRM).acontinue_run(again)
    assert desk.paid == []
