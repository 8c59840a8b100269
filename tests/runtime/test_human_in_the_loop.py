"""Runs that wait for a person: any depth, any kind, across a restart, and nothing is done twice."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunContext, RunStatus, Team, tool
from kern.errors import RunConflictError, UsageError
from kern.messages import ToolCall
from kern.models.base import ModelRequest, ModelResponse
from kern.runner.compile import database_of
from kern.testing import FunctionModel, ScriptedModel, tool_call

DONE: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    DONE.clear()


@tool(requires_confirmation=True)
def delete_item(run_context: RunContext, item: str) -> str:
    """Delete an item."""
    DONE.append(f"delete {item}")
    run_context.session_state["items"].remove(item)
    return f"deleted {item}"


@tool(requires_user_input=True, user_input_fields=["address"])
def send(text: str, address: str) -> str:
    """Send a text."""
    DONE.append(f"send {text} to {address}")
    return f"sent to {address}"


@tool(external_execution=True)
def run_shell(command: str) -> str:
    """Run a command."""
    raise AssertionError("never called")


def add_item(run_context: RunContext, item: str) -> str:
    """Add an item."""
    DONE.append(f"add {item}")
    run_context.session_state["items"].append(item)
    return f"added {item}"


def calls(*wanted: ToolCall) -> ModelResponse:
    return ModelResponse.of(None, *wanted)


def repeat_results(request: ModelRequest) -> str:
    return " | ".join(message.content or "" for message in request.messages if message.role == "tool")


async def test_a_call_waits_for_confirmation_and_the_others_of_its_turn_do_not() -> None:
    model = ScriptedModel(
        [calls(tool_call("delete_item", item="milk"), tool_call("add_item", item="eggs")), repeat_results]
    )
    agent = Agent(model=model, tools=[delete_item, add_item], session_state={"items": ["milk"]})
    paused = await agent.arun("go")
    assert paused.status is RunStatus.paused
    assert DONE == ["add eggs"]
    assert paused.session_state == {"items": ["milk", "eggs"]}
    [requirement] = paused.requirements
    assert (requirement.tool_name, requirement.tool_args) == ("delete_item", {"item": "milk"})
    requirement.confirm()
    output = await agent.acontinue_run(paused)
    assert output.status is RunStatus.completed
    assert output.content == "deleted milk | added eggs"
    assert DONE == ["add eggs", "delete milk"]
    assert output.session_state == {"items": ["eggs"]}
    assert output.run_id == paused.run_id
    assert [t.tool_name for t in output.tools] == ["delete_item", "add_item"]
    assert output.metrics.requests == 2
    with pytest.raises(RunConflictError, match="is not paused"):
        await agent.acontinue_run(paused)
    assert DONE == ["add eggs", "delete milk"]


async def test_a_rejection_is_told_to_the_model() -> None:
    agent = Agent(
        model=ScriptedModel([tool_call("delete_item", item="milk"), repeat_results]),
        tools=[delete_item],
        session_state={"items": ["milk"]},
    )
    paused = await agent.arun("go")
    paused.requirements[0].reject("we need it")
    output = await agent.acontinue_run(paused)
    assert "rejected" in output.content
    assert "we need it" in output.content
    assert DONE == []


async def test_user_input_and_external_results() -> None:
    model = ScriptedModel(
        [calls(tool_call("send", text="hi"), tool_call("run_shell", command="ls")), repeat_results]
    )
    agent = Agent(model=model, tools=[send, run_shell])
    paused = await agent.arun("go")
    ask, shell = paused.requirements
    assert ask.needs_user_input
    assert list(ask.user_input_schema["properties"]) == ["address"]
    with pytest.raises(UsageError, match="address"):
        ask.provide_user_input({"adress": "x"})
    with pytest.raises(UsageError, match="does not apply"):
        ask.confirm()
    ask.provide_user_input({"address": "me@example.com"})
    assert shell.needs_external_execution
    shell.set_external_execution_result("README.md")
    output = await agent.acontinue_run(paused)
    assert output.content == "sent to me@example.com | README.md"
    assert DONE == ["send hi to me@example.com"]


async def test_a_run_that_lacks_an_answer_waits_on() -> None:
    model = ScriptedModel(
        [calls(tool_call("run_shell", command="a"), tool_call("run_shell", command="b")), repeat_results]
    )
    agent = Agent(model=model, tools=[run_shell])
    paused = await agent.arun("go")
    paused.requirements[0].set_external_execution_result("A")
    again = await agent.acontinue_run(paused)
    assert again.status is RunStatus.paused
    [left] = again.requirements
    left.set_external_execution_result("B")
    output = await agent.acontinue_run(again)
    assert output.content == "A | B"


async def test_bad_arguments_go_back_to_the_model_before_a_person_is_asked() -> None:
    model = ScriptedModel([tool_call("delete_item", thing="milk"), "I give up"])
    output = await Agent(model=model, tools=[delete_item]).arun("go")
    assert output.content == "I give up"
    assert output.tools[0].tool_call_error


def leader(request: ModelRequest) -> ModelResponse | str:
    if request.messages[-1].role == "tool":
        return f"all done: {repeat_results(request)}"
    names = [t.name for t in request.tools]
    if "delegate_task_to_member" in names:
        system = request.messages[0].content or ""
        ids = [part.split('"')[0] for part in system.split('<member id="')[1:]]
        return calls(*(tool_call("delegate_task_to_member", member_id=i, task="work") for i in ids))
    wanted = (
        tool_call("delete_item", item="milk") if "delete_item" in names else tool_call("add_item", item="x")
    )
    return calls(wanted)


def nested_team(db: Any = None) -> Team:
    model = FunctionModel(leader)
    careful = Agent(name="Careful", tools=[delete_item])
    quick = Agent(name="Quick", tools=[add_item])
    inner = Team([careful], name="Inner")
    return Team([inner, quick], name="Outer", model=model, db=db, session_state={"items": ["milk"]})


async def test_a_member_of_a_member_waits_and_its_siblings_do_not() -> None:
    team = nested_team()
    events = []
    async for event in team.arun("go", stream=True, stream_events=True, yield_run_output=True):
        events.append(event)
    paused = events.pop()
    assert paused.status is RunStatus.paused
    assert [e.event for e in events if "Paused" in e.event] == ["RunPaused", "TeamRunPaused", "TeamRunPaused"]
    [requirement] = paused.requirements
    assert requirement.agent_path == ["Outer", "Inner", "Careful"]
    assert DONE == ["add x"]
    requirement.confirm()
    after = []
    async for event in team.acontinue_run(paused, stream=True, stream_events=True, yield_run_output=True):
        after.append(event)
    output = after.pop()
    assert output.status is RunStatus.completed
    assert output.session_state == {"items": ["x"]}
    assert DONE == ["add x", "delete milk"]
    assert [e.event for e in after if "Continued" in e.event] == [
        "TeamRunContinued",
        "TeamRunContinued",
        "RunContinued",
    ]
    assert len(output.member_responses) == 2
    assert output.metrics.requests == 2 + 2 + 2 + 2
    rows = await database_of(team).load_runs(output.session_id, top_level=False)
    assert {row.status for row in rows} == {"COMPLETED"}
    assert len(rows) == 4


async def test_only_one_continuation_at_a_time() -> None:
    import asyncio

    team = nested_team()
    paused = await team.arun("go")
    paused.requirements[0].confirm()
    results = await asyncio.gather(
        team.acontinue_run(paused), team.acontinue_run(paused), return_exceptions=True
    )
    assert sum(isinstance(result, RunConflictError) for result in results) == 1
    assert DONE.count("delete milk") == 1


PROGRAM = """
import asyncio, sys
sys.path[:0] = [{root!r}]
from kern.db.sqlite import SqliteDb
from tests.runtime.test_human_in_the_loop import DONE, nested_team
team = nested_team(SqliteDb({file!r}))
{body}
"""


def run_program(file: Path, body: str) -> str:
    root = str(Path(__file__).resolve().parents[2])
    program = PROGRAM.format(root=root, file=str(file), body=textwrap.dedent(body))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=25, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_run_goes_on_in_a_new_process(tmp_path: Path) -> None:
    file = tmp_path / "runs.db"
    run_id = run_program(
        file, 'paused = team.run("go", session_id="s")\nassert DONE == ["add x"], DONE\nprint(paused.run_id)'
    )
    printed = run_program(
        file,
        f"""
        paused = team.get_run_output({run_id!r})
        requirement, = paused.requirements
        requirement.confirm()
        output = team.continue_run(run_id={run_id!r}, requirements=[requirement])
        print(output.status.value, DONE, output.session_state)
        """,
    )
    assert printed == "COMPLETED ['delete milk'] {'items': ['x']}"
    again = run_program(
        file,
        f"""
        from kern.errors import RunConflictError
        try:
            team.continue_run(run_id={run_id!r})
        except RunConflictError as error:
            print(error, DONE)
        """,
    )
    assert again.endswith("its status is COMPLETED []")
