"""What is made of an agent for its runs is made once, and anew as soon as the agent has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kern import Agent, Team
from kern.models.base import ModelRequest, ModelResponse
from kern.runner.compile import request
from kern.runner.options import NO_OPTIONS
from kern.runtime.request import RunInput
from kern.runtime.run_tree import RunnerSpec
from kern.testing import FunctionModel, tool_call


def model() -> FunctionModel:
    return FunctionModel(lambda request: ",".join(sorted(tool.name for tool in request.tools)) or "none")


def spec(definition: Agent | Team) -> RunnerSpec:
    """What the next run would be told of it."""
    return request(definition, RunInput(value="go", messages=[]), NO_OPTIONS).spec


def delegates(request: ModelRequest) -> ModelResponse:
    return tool_call("delegate_task_to_member", member_id="clerk", task="work")


def one() -> str:
    """One."""
    return "1"


def two() -> str:
    """Two."""
    return "2"


def noted(run_input: Any) -> None:
    run_input.input_content = "noted"


async def test_the_second_run_makes_what_the_later_ones_take() -> None:
    agent = Agent(model=model(), tools=[one])
    made = []
    for _ in range(4):
        await agent.arun("go")
        made.append(spec(agent))
    assert made[1] is made[2] is made[3]


async def test_tools_and_hooks_that_are_added_or_taken_in_place_are_seen_by_the_next_run() -> None:
    tools: list[Any] = [one]
    hooks: list[Callable[..., Any]] = []
    agent = Agent(model=model(), tools=tools, pre_hooks=hooks)
    answers = []
    for change in (lambda: None, lambda: None, lambda: tools.append(two), tools.clear):
        change()
        answers.append((await agent.arun("go")).content)
    assert answers == ["one", "one", "one,two", "none"]
    hooks.append(noted)
    assert (await agent.arun("go")).input == "noted"


@pytest.mark.parametrize(
    ("name", "value", "seen"),
    [
        ("model", FunctionModel(lambda request: "the other"), lambda output: output.content == "the other"),
        ("name", "Renamed", lambda output: output.agent_name == "Renamed"),
        ("output_schema", int, lambda output: output.content == 7),
        ("instructions", "Say it.", lambda output: output.messages[0].content == "Say it."),
        ("session_state", {"new": 1}, lambda output: output.session_state is not None),
        ("tools", [two], lambda output: output.content == "two"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_attribute_that_is_assigned_is_seen_by_the_next_run(
    name: str, value: Any, seen: Callable[[Any], bool]
) -> None:
    agent: Agent[Any] = Agent(model=FunctionModel(lambda request: "7" if request.response_format else "no"))
    agent.model = model()
    for _ in range(2):
        await agent.arun("go")
    if name == "output_schema":
        agent.model = FunctionModel(lambda request: "7")
    setattr(agent, name, value)
    assert seen(await agent.arun("go"))


async def test_history_that_is_switched_on_is_there_in_the_next_run() -> None:
    agent = Agent(model=FunctionModel(lambda request: str(len(request.messages))))
    answers = [(await agent.arun("go")).content for _ in range(2)]
    agent.add_history_to_context = True
    answers.append((await agent.arun("go")).content)
    assert answers == ["1", "1", "5"]


async def test_a_new_session_starts_from_the_state_as_it_is_declared_by_then() -> None:
    agent = Agent(model=model(), session_state={"n": 0})
    for n in range(3):
        await agent.arun("go", session_id=f"before {n}")
    agent.session_state = {"m": 1}
    assert (await agent.arun("go", session_id="after")).session_state == {"m": 1}
    assert isinstance(agent.session_state, dict)
    agent.session_state["k"] = 2
    assert (await agent.arun("go", session_id="later")).session_state == {"m": 1, "k": 2}


async def test_what_one_run_asks_for_is_not_kept_for_others() -> None:
    agent: Agent[Any] = Agent(model=FunctionModel(lambda request: "7"))
    for _ in range(3):
        assert (await agent.arun("go", output_schema=int)).content == 7
        assert (await agent.arun("go")).content == "7"


def test_a_model_by_its_name_is_looked_up_for_each_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    agent = Agent(model="openai:gpt-5.2")
    specs = [spec(agent) for _ in range(3)]
    assert specs[1].model is not specs[2].model
    unnamed = Agent()
    for name in ("openai:gpt-5.1", "openai:gpt-5.2", "openai:gpt-5.1"):
        monkeypatch.setenv("KERN_MODEL", name)
        assert spec(unnamed).model.id == name.partition(":")[2]


async def test_what_is_made_of_a_team_is_kept_until_a_member_changes() -> None:
    clerk = Agent(name="Clerk", model=model())
    inner = Team(name="Inner", members=[clerk], model=model())
    team = Team(name="Outer", members=[inner], model=model())
    made = []
    for _ in range(3):
        await team.arun("go")
        made.append(spec(team))
    assert made[1] is made[2]
    for change in (
        lambda: setattr(clerk, "role", "counts"),
        lambda: setattr(team, "mode", "broadcast"),
        lambda: inner.members.append(Agent(name="New", model=model())),
    ):
        change()
        await team.arun("go")
        made.append(spec(team))
        assert made[-1] is not made[-2]


async def test_a_member_that_is_changed_answers_as_it_is_now() -> None:
    clerk = Agent(name="Clerk", id="clerk", model=FunctionModel(lambda request: "old"))
    team = Team(name="T", members=[clerk], mode="route", model=FunctionModel(delegates))
    for _ in range(3):
        assert (await team.arun("go")).content == "old"
    clerk.model = FunctionModel(lambda request: "new")
    assert (await team.arun("go")).content == "new"
