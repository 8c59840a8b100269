"""What is kept and told of calls, and how a model and an application may name tools and members."""

from __future__ import annotations

import asyncio
import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunContext, Team, UsageError, errors, tool
from kern.db.sqlite import SqliteDb
from kern.errors import ModelServerError
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.run import ModelRetryEvent, RunCancelledEvent, RunCompletedEvent
from kern.run.output import output_from_dict
from kern.testing import FunctionModel, ModelServer, ScriptedModel, tool_call


def look() -> str:
    """Look."""
    return "seen"


# tool_choice

FORMS: list[Any] = [
    {"name": "look"},
    {"type": "function", "name": "look"},
    {"type": "function", "function": {"name": "look"}},
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", [OpenAIChat, OpenAIResponses])
async def test_a_tool_is_chosen_in_openai_s_forms_too(form: dict[str, Any], make: Any) -> None:
    async with ModelServer([tool_call("look"), "done"] * 2) as server:
        model = make("m", base_url=server.base_url, api_key="any")
        await Agent(model=model, tools=[look], tool_choice=form).arun("Look")
        await Team([], model=model, tools=[look], tool_choice=form).arun("Look")
        for request in (server.requests[0], server.requests[2]):
            choice = request.body["tool_choice"]
            assert choice.get("function", choice)["name"] == "look"


@pytest.mark.parametrize(
    "form",
    [
        "sometimes",
        "look",
        5,
        [],
        {},
        {"name": 5},
        {"name": ""},
        {"type": "function"},
        {"type": "function", "function": "look"},
        {"type": "function", "function": {}},
        {"type": "file_search"},
        {"type": "allowed_tools", "mode": "auto", "tools": []},
        {"name": "look", "more": 1},
    ],
)
@pytest.mark.parametrize("make", [lambda **o: Agent(**o), lambda **o: Team([], **o)])
def test_another_form_is_refused_when_it_is_made(form: Any, make: Any) -> None:
    with pytest.raises(UsageError, match="tool_choice must be 'auto'"):
        make(tool_choice=form)


# A person's word


@tool(requires_confirmation=True)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


@tool(external_execution=True)
def sign(text: str) -> str:
    """Sign."""
    raise AssertionError


async def test_a_person_s_word_stays_with_the_call(tmp_path: Path) -> None:
    script = [tool_call("pay", amount=1), tool_call("pay", amount=2), tool_call("sign", text="x"), "done"]
    agent = Agent(
        model=ScriptedModel(script), tools=[pay, sign, look], db=SqliteDb(tmp_path / "a.db"), session_id="s"
    )
    output = await agent.arun("Pay")
    output.requirements[0].confirm()
    output = await agent.acontinue_run(output)
    output.requirements[0].reject("too much")
    output = await agent.acontinue_run(output)
    output.requirements[0].reject()
    output = await agent.acontinue_run(output)
    stored = await agent.aget_run_output(output.run_id)
    assert stored is not None
    for kept in (output, stored, output_from_dict(output.to_dict())):
        marks = [(call.confirmed, call.confirmation_note) for call in kept.tools]
        assert marks == [(True, None), (False, "too much"), (False, None)]
    assert (
        "confirmed"
        not in (await Agent(model=ScriptedModel([tool_call("look"), "x"]), tools=[look]).arun("x"))
        .tools[0]
        .to_dict()
    )


async def test_so_it_does_with_a_member_s_call() -> None:
    member = Agent(id="m", model=ScriptedModel([tool_call("pay", amount=1), "done"]), tools=[pay])
    team = Team(
        [member], model=ScriptedModel([tool_call("delegate_task_to_member", member_id="m", task="x"), "done"])
    )
    output = await team.arun("Pay")
    output.requirements[0].reject("no")
    output = await team.acontinue_run(output)
    assert output.member_responses[0].tools[0].confirmed is False
    assert output.tools[0].confirmed is None


# Events


@pytest.mark.parametrize("store_events", [False, True])
async def test_the_completed_event_tells_state_and_metadata(store_events: bool) -> None:
    def add(run_context: RunContext) -> str:
        run_context.session_state["n"] += 1
        return "added"

    agent = Agent(
        model=ScriptedModel([tool_call("add"), "done"]),
        tools=[add],
        session_state={"n": 0},
        metadata={"tenant": "a", "since": datetime.date(2026, 1, 2)},
        store_events=store_events,
    )
    items = [item async for item in agent.arun("x", stream=True, stream_events=True, yield_run_output=True)]
    completed, output = items[-2:]
    assert isinstance(completed, RunCompletedEvent)
    assert completed.session_state == output.session_state == {"n": 1}
    assert completed.metadata == {"tenant": "a", "since": "2026-01-02"}
    json.dumps(completed.to_dict())
    assert completed.to_dict()["session_state"] == {"n": 1}
    if store_events:
        assert output.events[-1].session_state == {"n": 1}


async def test_a_retry_and_a_cancellation_tell_all_that_they_have_a_place_for() -> None:
    failing = [ModelServerError("down", status=500)] * 2
    model = ScriptedModel([*failing, tool_call("stop"), "never"])

    async def stop(run_context: RunContext) -> str:
        await agent.acancel_run(run_context.run_id)
        await asyncio.sleep(10)
        return "never"

    agent = Agent(model=model, tools=[stop], retries=2, delay_between_retries=0.001)
    events = [event async for event in agent.arun("x", stream=True, stream_events=True)]
    retries = [(e.attempt, e.delay) for e in events if isinstance(e, ModelRetryEvent)]
    assert retries == [(2, 0.001), (3, 0.001)]
    assert isinstance(events[-1], RunCancelledEvent)
    assert events[-1].reason == "by cancel_run"


async def test_a_hook_s_debug_mode_is_a_bool() -> None:
    got: list[object] = []

    def before(debug_mode: bool) -> None:
        got.append(debug_mode)

    agent = Agent(model=ScriptedModel(["x", "x"]), pre_hooks=[before], post_hooks=[before], debug_level=2)
    await agent.arun("x")
    await agent.arun("x", debug_mode=True)
    assert got == [False, False, True, True]
    assert all(type(value) is bool for value in got)


def test_every_error_can_be_met() -> None:
    assert not hasattr(errors, "UnknownToolError")


# Members


def team_of(*members: Agent, called: str, **options: Any) -> Team:
    def lead(request: Any) -> Any:
        if request.messages[-1].role == "tool":
            return request.messages[-1].content
        return tool_call("delegate_task_to_member", member_id=called, task="x")

    return Team(list(members), model=FunctionModel(lead), **options)


def member(answer: str, **options: Any) -> Agent:
    return Agent(model=FunctionModel(lambda request: answer), **options)


@pytest.mark.parametrize("called", ["w-1", "Web Searcher", "web searcher", " Web Searcher ", "W-1"])
async def test_a_member_is_found_by_its_name_too(called: str) -> None:
    team = team_of(member("A", id="w-1", name="Web Searcher"), member("B", name="Cook"), called=called)
    output = await team.arun("x")
    assert output.content == "A"
    assert output.member_responses[0].agent_id == "w-1"


async def test_an_id_goes_before_a_name() -> None:
    team = team_of(
        member("by name", id="1", name="cook"), member("by id", id="cook", name="Baker"), called="cook"
    )
    assert (await team.arun("x")).content == "by id"
    team = team_of(
        member("by name", id="1", name="Cook"), member("by id", id="cook", name="Baker"), called="COOK"
    )
    assert (await team.arun("x")).content == "by id"


async def test_what_is_written_so_goes_before_other_case() -> None:
    team = team_of(member("A", id="1", name="Cook"), member("B", id="2", name="COOK"), called="COOK")
    assert (await team.arun("x")).content == "B"


async def test_of_a_name_that_several_have_the_leader_is_told_the_ids() -> None:
    team = team_of(member("A", name="Cook"), member("B", name="Cook"), called="Cook")
    assert (await team.arun("x")).content == "A"  # the first one's id, all but the case
    team = team_of(member("A", id="1", name="Cook"), member("B", id="2", name="Cook"), called="Cook")
    output = await team.arun("x")
    assert output.content == "Several members are called 'Cook': use an id. Members: 1, 2."
    assert output.tools[0].tool_call_error


async def test_a_task_is_given_to_a_member_by_name() -> None:
    script = [
        tool_call("create_task", title="cook", member_id="The Cook"),
        tool_call("execute_tasks", task_ids=[1]),
        "done",
    ]
    team = Team([member("soup", id="c", name="The Cook")], id="t", mode="tasks", model=ScriptedModel(script))
    output = await team.arun("x")
    assert output.session_state is not None
    (task,) = output.session_state["team_tasks"]["t"]
    assert (task["assignee"], task["result"]) == ("c", "soup")
