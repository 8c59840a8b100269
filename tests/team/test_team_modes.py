"""Modes of a team: who words the task, who answers, and what the model and the consumer see of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from kern import Agent, RunContext, RunStatus, Team, tool
from kern.errors import UsageError
from kern.models.base import ModelRequest, ModelResponse
from kern.run import BaseRunEvent
from kern.team import TeamMode
from kern.testing import FunctionModel, ScriptedModel, tool_call
from tests.clock import LONG, pass_time
from tests.played import turns


def echo(name: str) -> FunctionModel:
    return FunctionModel(lambda request: f"{name} on: {request.messages[-1].content}", id=name)


def delegate(member_id: str, task: str = "the task") -> ModelResponse:
    return ModelResponse.of(None, tool_call("delegate_task_to_member", member_id=member_id, task=task))


def last_result(request: ModelRequest) -> str:
    return f"leader heard: {request.messages[-1].content}"


async def test_route_gives_the_members_answer_as_it_is_and_streams_it_once() -> None:
    def team() -> Team:
        return Team([Agent(name="A", model=echo("A"))], model=ScriptedModel([delegate("a")]), mode="route")

    output = await team().arun("question")
    assert output.content == "A on: the task"
    assert output.member_responses[0].content == "A on: the task"
    pieces = [event async for event in team().arun("question", stream=True)]
    assert "".join(event.content for event in pieces) == "A on: the task"
    assert {event.event for event in pieces} == {"TeamRunContent"}
    everything = [event async for event in team().arun("question", stream=True, stream_events=True)]
    text = "".join(event.content for event in everything if event.event.endswith("RunContent"))
    assert text == "A on: the task"
    assert everything[-1].content == "A on: the task"


async def test_answers_of_two_members_at_once_are_streamed_one_after_the_other() -> None:
    def team() -> Team:
        both = ModelResponse.of(
            None,
            tool_call("delegate_task_to_member", member_id="a", task="x"),
            tool_call("delegate_task_to_member", member_id="b", task="y"),
        )
        members = [Agent(name="A", model=echo("A")), Agent(name="B", model=echo("B"))]
        return Team(members, model=ScriptedModel([both]), mode="route")

    answer = "A on: x\n\nB on: y"
    assert (await team().arun("question")).content == answer
    assert "".join([event.content async for event in team().arun("question", stream=True)]) == answer
    everything = [event async for event in team().arun("question", stream=True, stream_events=True)]
    assert {event.event for event in everything if event.event.endswith("RunContent")} == {"RunContent"}


async def test_a_member_may_get_the_users_input_itself() -> None:
    call = ModelResponse.of(None, tool_call("delegate_task_to_member", member_id="a"))
    model = ScriptedModel([call])
    team = Team(
        [Agent(name="A", model=echo("A"))], model=model, mode="route", determine_input_for_members=False
    )
    output = await team.arun("the very words")
    assert output.content == "A on: the very words"
    [definition] = model.requests[0].tools
    assert list(definition.parameters["properties"]) == ["member_id"]


async def test_broadcast_reaches_all_members_and_one_failure_stays_its_own() -> None:
    members = [
        Agent(name="A", model=echo("A")),
        Agent(name="B", model=ScriptedModel([ValueError("broken")])),
        Agent(name="C", model=echo("C")),
    ]
    call = ModelResponse.of(None, tool_call("delegate_task_to_members", task="think"))
    team = Team(members, model=ScriptedModel([call, last_result]), delegate_to_all_members=True)
    output = await team.arun("question")
    assert output.status is RunStatus.completed
    assert "A: A on: think" in output.content
    assert "C: C on: think" in output.content
    assert "B failed" in output.content
    assert "broken" in output.content
    statuses = [member.status for member in output.member_responses]
    assert statuses == [RunStatus.completed, RunStatus.error, RunStatus.completed]


async def test_members_of_a_broadcast_work_at_the_same_time() -> None:
    together = asyncio.Barrier(3)

    async def meet(request: ModelRequest) -> str:
        await asyncio.wait_for(together.wait(), 5)
        return "met"

    call = ModelResponse.of(None, tool_call("delegate_task_to_members", task="meet"))
    members = [Agent(name=name, model=FunctionModel(meet)) for name in "abc"]
    team = Team(members, model=ScriptedModel([call, last_result]), mode=TeamMode.broadcast)
    output = await team.arun("go")
    assert output.content.count("met") == 3


async def test_a_broadcast_pauses_for_one_member_and_goes_on() -> None:
    asked: list[str] = []

    @tool(requires_confirmation=True)
    def act() -> str:
        """Act."""
        asked.append("act")
        return "acted"

    careful = Agent(name="Careful", model=ScriptedModel([tool_call("act"), "did it"]), tools=[act])
    quick = Agent(name="Quick", model=ScriptedModel(["quick"]))
    call = ModelResponse.of(None, tool_call("delegate_task_to_members", task="x"))
    team = Team([careful, quick], model=ScriptedModel([call, last_result]), mode="broadcast")
    paused = await team.arun("go")
    assert paused.status is RunStatus.paused
    paused.requirements[0].confirm()
    output = await team.acontinue_run(paused)
    assert output.content == "leader heard: Careful: did it\n\nQuick: quick"
    assert asked == ["act"]


async def test_a_slow_member_times_out_alone() -> None:
    answered = asyncio.Event()

    async def slow(request: ModelRequest) -> str:
        await answered.wait()
        await turns(100)  # and the run of the other has ended
        pass_time()
        await asyncio.Event().wait()
        return "never"

    def quick(request: ModelRequest) -> str:
        answered.set()
        return f"Quick on: {request.messages[-1].content}"

    both = ModelResponse.of(
        None,
        tool_call("delegate_task_to_member", member_id="slow", task="x"),
        tool_call("delegate_task_to_member", member_id="quick", task="x"),
    )
    model = ScriptedModel(
        [both, lambda r: " | ".join(m.content or "" for m in r.messages if m.role == "tool")]
    )
    team = Team(
        [Agent(name="Slow", model=FunctionModel(slow)), Agent(name="Quick", model=FunctionModel(quick))],
        model=model,
        member_timeout=LONG,
    )
    output = await team.arun("go")
    assert output.content == "Slow did not answer within 1000 s. | Quick on: x"
    assert [m.status for m in output.member_responses] == [RunStatus.cancelled, RunStatus.completed]


async def test_an_unknown_member_is_told_with_the_roster() -> None:
    team = Team([Agent(name="A", model=echo("A"))], model=ScriptedModel([delegate("nobody"), last_result]))
    output = await team.arun("go")
    assert output.content == "leader heard: There is no member with the id 'nobody'. Members: a."
    assert output.member_responses == []


async def test_interactions_and_team_history_come_before_a_members_task() -> None:
    model = ScriptedModel([delegate("a", "first"), delegate("b", "second"), "all done", delegate("a"), "bye"])
    team = Team(
        [Agent(name="A", model=echo("A")), Agent(name="B", model=echo("B"))],
        model=model,
        share_member_interactions=True,
        add_team_history_to_members=True,
    )
    first = await team.arun("question one")
    assert first.member_responses[0].input == "first"
    seen = first.member_responses[1].input
    assert "<member_interaction_context>" in seen
    assert "A was asked: first" in seen
    assert seen.endswith("second")
    second = await team.arun("question two")
    seen = second.member_responses[0].input
    assert "asked: question one" in seen
    assert "answered: all done" in seen


async def test_the_leader_is_told_of_members_tools_and_can_look_members_up() -> None:
    def shout(text: str) -> str:
        """Say it louder."""
        return text.upper()

    model = ScriptedModel([tool_call("get_member_information"), last_result])
    team = Team(
        [Agent(name="A", role="shouts", model=echo("A"), tools=[shout])],
        model=model,
        add_member_tools_to_context=True,
        get_member_information_tool=True,
    )
    output = await team.arun("who?")
    system = model.requests[0].messages[0].content
    assert system is not None
    assert "Tool: shout: Say it louder." in system
    assert "Role: shouts" in output.content


async def test_members_may_be_made_by_a_function_of_the_run() -> None:
    def members(run_context: RunContext) -> list[Agent]:
        return [Agent(name=name, model=echo(name)) for name in run_context.session_state["names"]]

    team = Team(
        members,
        model=FunctionModel(lambda r: last_result(r) if r.messages[-1].role == "tool" else delegate("eve")),
        session_state={"names": ["Eve"]},
    )
    output = await team.arun("go")
    assert output.content == "leader heard: Eve on: the task"
    await team.aupdate_session_state({"names": ["Ada"]})
    output = await team.arun("go")
    assert "Members: ada." in output.content


async def test_teams_three_deep_share_one_state() -> None:
    def note(run_context: RunContext) -> str:
        """Note."""
        run_context.session_state["notes"].append("deep")
        return "noted"

    def lead(request: ModelRequest) -> ModelResponse | str:
        if request.messages[-1].role == "tool":
            return f"{request.messages[-1].content}!"
        if request.tools[0].name == "note":
            return ModelResponse.of(None, tool_call("note"))
        member = (request.messages[0].content or "").split('<member id="')[1].split('"')[0]
        return delegate(member)

    agent = Agent(name="Deep", tools=[note])
    team = Team([agent], name="Low")
    for name in ("Middle", "High"):
        team = Team([team], name=name)
    team.model = FunctionModel(lead)
    team.session_state = {"notes": []}
    output = await team.arun("go")
    assert output.content == "noted!!!!"
    assert output.session_state == {"notes": ["deep"]}
    assert output.metrics.requests == 8


async def test_tasks_mode_keeps_a_list_and_is_not_done_before_all_tasks_are() -> None:
    def results(request: ModelRequest) -> list[Any]:
        return [json.loads(m.content or "") for m in request.messages if m.role == "tool" and m.content]

    def many(*calls: Any) -> ModelResponse:
        return ModelResponse.of(None, *calls)

    model = ScriptedModel(
        [
            many(
                tool_call("create_task", title="gather", member_id="a"),
                tool_call("create_task", title="check", member_id="b"),
            ),
            tool_call("create_task", title="write", depends_on=[1, 2], member_id="b"),
            tool_call("execute_tasks", task_ids=[3]),
            tool_call("execute_tasks", task_ids=[1, 2]),
            "done?",
            tool_call("execute_tasks", task_ids=[3]),
            "really done",
        ]
    )
    team = Team(
        [Agent(name="A", model=echo("A")), Agent(name="B", model=echo("B"))],
        model=model,
        mode=TeamMode.tasks,
        id="crew",
    )
    output = await team.arun("a report")
    model.assert_exhausted()
    assert output.content == "really done"
    tasks = output.session_state["team_tasks"]["crew"]
    assert [task["status"] for task in tasks] == ["completed"] * 3
    assert tasks[0]["result"] == "A on: gather"
    assert "Result of task 1 (gather):\nA on: gather" in tasks[2]["result"]
    assert output.tools[3].tool_call_error
    assert "depends on [1, 2]" in (output.tools[3].result or "")
    assert "not completed" in next(m.content or "" for m in output.messages[2:] if m.role == "user")


async def test_tasks_mode_gives_up_after_max_iterations() -> None:
    script = [tool_call("create_task", title="never"), "one", "two", "three"]
    team = Team([Agent(name="A")], model=ScriptedModel(script), mode="tasks", max_iterations=2)
    output = await team.arun("go")
    assert output.content == "three"


@pytest.mark.parametrize(("max_iterations", "answer"), [(10, "final"), (1, "still not")])
async def test_text_that_is_sent_back_is_not_streamed_as_the_answer(max_iterations: int, answer: str) -> None:
    script = [
        tool_call("create_task", title="x", member_id="a"),
        "not yet",
        *(["still not"] if max_iterations == 1 else [tool_call("execute_tasks", task_ids=[1]), "final"]),
    ]

    def team() -> Team:
        model = ScriptedModel(script)
        return Team(
            [Agent(name="A", model=echo("A"))], model=model, mode="tasks", max_iterations=max_iterations
        )

    pieces = [event.content async for event in team().arun("go", stream=True)]
    assert "".join(pieces) == answer == (await team().arun("go")).content
    aside = [
        event.content
        async for event in team().arun("go", stream=True, stream_events=True)
        if event.event == "TeamRunIntermediateContent"
    ]
    assert "".join(aside) == "not yet"


async def test_a_structured_answer_of_a_task_list_is_not_streamed_as_text() -> None:
    script = [
        tool_call("create_task", title="x", member_id="a"),
        tool_call("execute_tasks", task_ids=[1]),
        '{"done": true}',
    ]
    schema = {"type": "object", "properties": {"done": {"type": "boolean"}}, "required": ["done"]}
    model = ScriptedModel(script)
    team = Team([Agent(name="A", model=echo("A"))], model=model, mode="tasks", output_schema=schema)
    pieces = [event.content async for event in team.arun("go", stream=True)]
    assert pieces[-1] == {"done": True}
    assert not any(isinstance(piece, str) for piece in pieces)


async def test_a_state_that_has_something_else_in_the_place_of_the_list_is_told() -> None:
    team = Team(
        [Agent(name="A", model=echo("A"))],
        model=ScriptedModel([tool_call("create_task", title="x"), "done"]),
        mode="tasks",
        session_state={"team_tasks": "mine"},
    )
    output = await team.arun("go")
    assert output.tools[0].tool_call_error
    assert "session_state/team_tasks: the team keeps its task list under this key" in (
        output.tools[0].result or ""
    )
    assert output.content == "done"


def tasks_of(output: Any) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = output.session_state["team_tasks"]["crew"]
    return tasks


async def test_a_task_is_done_once_however_often_a_call_names_it() -> None:
    asked: list[str] = []

    def work(request: ModelRequest) -> str:
        asked.append(request.messages[-1].content or "")
        return "worked"

    script = [
        tool_call("create_task", title="one", member_id="a"),
        tool_call("execute_tasks", task_ids=[1, 1]),
        tool_call("execute_tasks", task_ids=[1]),
        "done",
    ]
    team = Team(
        [Agent(name="A", model=FunctionModel(work))], model=ScriptedModel(script), mode="tasks", id="crew"
    )
    output = await team.arun("go")
    assert asked == ["one"]
    assert tasks_of(output)[0]["status"] == "completed"
    assert "task 1 is completed" in (output.tools[2].result or "")


async def test_a_task_that_failed_holds_up_what_depends_on_it_until_it_is_done() -> None:
    script = [
        ModelResponse.of(
            None, tool_call("create_task", title="one", member_id="a"), tool_call("create_task", title="x")
        ),
        tool_call("create_task", title="two", member_id="a", depends_on=[1]),
        tool_call("execute_tasks", task_ids=[1]),
        tool_call("execute_tasks", task_ids=[3]),
        tool_call("execute_tasks", task_ids=[2]),
        tool_call("execute_tasks", task_ids=[9]),
        tool_call("execute_tasks", task_ids=[True]),
        tool_call("execute_tasks", task_ids=[1]),
        tool_call("execute_tasks", task_ids=[3]),
        tool_call("complete_task", task_id=2, result="not needed"),
        "done",
    ]
    member = Agent(name="A", model=ScriptedModel([ValueError("broken"), "one is done", "two is done"]))
    team = Team([member], model=ScriptedModel(script), mode="tasks", id="crew")
    output = await team.arun("go")
    results = [tool.result or "" for tool in output.tools]
    assert '"status": "failed"' in results[3]
    assert "depends on [1]" in results[4]
    assert "is not assigned to a member" in results[5]
    assert "there is no task 9" in results[6]
    assert "whole numbers" in results[7]
    assert [task["status"] for task in tasks_of(output)] == ["completed"] * 3
    assert output.content == "done"


async def test_a_task_whose_run_was_cancelled_can_be_executed_by_the_next() -> None:
    inside = asyncio.Event()

    async def work(request: ModelRequest) -> str:
        if not inside.is_set():
            inside.set()
            await asyncio.Event().wait()
        return "worked"

    script = [
        tool_call("create_task", title="one", member_id="a"),
        tool_call("execute_tasks", task_ids=[1]),
        "done already?",
        tool_call("execute_tasks", task_ids=[1]),
        "done",
    ]
    model = ScriptedModel(script)
    team = Team([Agent(name="A", model=FunctionModel(work))], model=model, mode="tasks", id="crew")
    first = asyncio.create_task(team.arun("go", run_id="first"))
    await inside.wait()
    assert await team.acancel_run("first")
    assert tasks_of(await first)[0]["status"] == "running"
    output = await team.arun("go on")
    model.assert_exhausted()
    assert tasks_of(output)[0]["status"] == "completed"


async def test_a_task_of_a_member_that_is_gone_is_told_and_can_be_assigned_anew() -> None:
    def members(run_context: RunContext) -> list[Agent]:
        return [Agent(name=run_context.session_state["who"], model=echo("worker"))]

    script = [
        tool_call("create_task", title="one", member_id="ann"),
        "later",
        tool_call("execute_tasks", task_ids=[1]),
        tool_call("assign_task", task_id=1, member_id="bob"),
        tool_call("execute_tasks", task_ids=[1]),
        "done",
    ]
    team = Team(
        members,
        model=ScriptedModel(script),
        mode="tasks",
        id="crew",
        session_state={"who": "Ann"},
        max_iterations=0,
    )
    await team.arun("go")
    await team.aupdate_session_state({"who": "Bob"})
    output = await team.arun("go on")
    assert "There is no member with the id 'ann'. Members: bob." in (output.tools[0].result or "")
    assert tasks_of(output)[0]["status"] == "completed"


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"mode": "chaos"}, "no team mode 'chaos'"),
        ({"mode": "route", "delegate_to_all_members": True}, "two modes"),
        ({"respond_directly": True, "delegate_to_all_members": True}, "two modes"),
    ],
)
def test_a_mode_that_makes_no_sense_is_refused(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Team([], **keywords)


async def test_member_events_can_be_left_out() -> None:
    team = Team(
        [Agent(name="A", model=echo("A"))],
        model=ScriptedModel([delegate("a"), "done"]),
        stream_member_events=False,
    )
    events = [e async for e in team.arun("go", stream=True, stream_events=True)]
    assert all(isinstance(e, BaseRunEvent) and e.nested_depth == 0 for e in events)
