"""Sources of tools: asked when a run begins, in agents, leaders and members alike."""

from __future__ import annotations

import asyncio

import pytest

from kern.agent import Agent
from kern.errors import ToolError, UsageError
from kern.team import Team
from kern.testing import ScriptedModel, tool_call
from kern.tools import Toolkit, ToolSource


def ping() -> str:
    """Answer."""
    return "pong"


def pong() -> str:
    """Answer."""
    return "ping"


class Source(ToolSource):
    """Offers `ping`; from the second time on something else, if told so."""

    def __init__(self, *later: Toolkit) -> None:
        self.asked = 0
        self.offers = [Toolkit(tools=[ping]), *later]

    async def load(self) -> Toolkit:
        await asyncio.sleep(0)
        self.asked += 1
        return self.offers[min(self.asked, len(self.offers)) - 1]


class Broken(ToolSource):
    async def load(self) -> Toolkit:
        raise ToolError("nobody answers")


def names(model: ScriptedModel, request: int = 0) -> list[str]:
    return [definition.name for definition in model.requests[request].tools]


def own() -> str:
    """A plain tool."""
    return ""


async def test_a_source_is_asked_when_a_run_begins_and_its_tools_stand_in_its_place() -> None:
    model = ScriptedModel([tool_call("ping"), "done"])
    source = Source()
    agent = Agent(model=model, tools=[source, own])
    assert source.asked == 0
    output = await agent.arun("Go")
    assert source.asked == 1
    assert names(model) == ["ping", "own"]
    assert [tool.result for tool in output.tools] == ["pong"]


async def test_each_run_has_the_tools_of_its_own_time() -> None:
    model = ScriptedModel(["one", "two"])
    agent = Agent(model=model, tools=[Source(Toolkit(tools=[pong]))])
    await agent.arun("Go")
    await agent.arun("Go")
    assert (names(model, 0), names(model, 1)) == (["ping"], ["pong"])


async def test_a_source_that_cannot_say_fails_the_run() -> None:
    with pytest.raises(ToolError, match="nobody answers") as caught:
        await Agent(model=ScriptedModel([]), tools=[Broken(), Source()]).arun("Go")
    assert caught.value.run_output.error_type == "ToolError"


async def test_leaders_and_members_may_have_sources_and_a_member_keeps_the_id_it_has_in_its_team() -> None:
    member_model = ScriptedModel([tool_call("ping"), "member done"])
    leader_model = ScriptedModel(
        [tool_call("delegate_task_to_member", member_id="twin-2", task="work"), tool_call("ping"), "done"]
    )
    first = Agent(name="Twin", model=ScriptedModel([]))
    second = Agent(name="Twin", model=member_model, tools=[Source()])
    output = await Team(members=[first, second], model=leader_model, tools=[Source()]).arun("Go")
    assert output.content == "done"
    assert names(leader_model)[0] == "ping"
    assert output.tools[-1].result == "pong"
    assert output.member_responses[0].tools[0].result == "pong"
    assert names(member_model) == ["ping"]


async def test_a_member_whose_source_cannot_say_fails_alone() -> None:
    model = ScriptedModel([tool_call("delegate_task_to_member", member_id="m", task="work"), "done"])
    member = Agent(name="M", model=ScriptedModel([]), tools=[Broken()])
    output = await Team(members=[member], model=model).arun("Go")
    assert output.content == "done"
    assert "nobody answers" in (output.tools[0].result or "")


async def test_a_leader_that_is_told_of_members_tools_is_told_of_those_of_sources_too() -> None:
    model = ScriptedModel(["one", "two"])
    source = Source(Toolkit(tools=[pong]))
    members = [
        Agent(name="M", model=ScriptedModel([]), tools=[own, source]),
        Agent(name="B", model=ScriptedModel([]), tools=[Broken(), own]),
    ]
    team = Team(members, model=model, add_member_tools_to_context=True)
    for _ in range(2):
        await team.arun("Go")
    first, second = (request.messages[0].content or "" for request in model.requests)
    assert "Tool: own: A plain tool.\nTool: ping: Answer." in first
    assert "Tool: pong: Answer." in second
    assert "Tool: ping" not in second
    assert "Some of its tools are not available now: nobody answers\nTool: own" in first


async def test_sources_of_members_are_not_asked_for_a_leader_that_is_not_told() -> None:
    source = Source()
    await Team([Agent(name="M", tools=[source])], model=ScriptedModel(["one"])).arun("Go")
    assert source.asked == 0


def test_a_toolkit_cannot_hold_a_source() -> None:
    with pytest.raises(UsageError, match="cannot be part of a toolkit"):
        Toolkit(tools=[Source()])  # that is the mistake
