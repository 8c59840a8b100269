"""What a person meets first: the constructors, their help, and what tab completion shows."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel

from kern import Agent, Team, UsageError
from kern.testing import ScriptedModel
from kern.tools import Function, tool

RUNS = {
    *("run", "arun", "start", "astart", "start_continuation", "astart_continuation", "follow", "map", "amap"),
    *("continue_run", "acontinue_run", "cancel_run", "acancel_run"),
}
TERMINAL = {"print_response", "aprint_response", "cli_app", "acli_app"}
SESSIONS = {
    *("get_session", "get_run_output", "get_last_run_output", "get_session_messages", "get_chat_history"),
    *("list_sessions", "list_runs", "get_session_metrics"),
    *("delete_session", "delete_user", "set_session_name", "get_session_name"),
    *("get_session_state", "update_session_state", "session_state_history", "fork_session"),
}
PUBLIC = RUNS | TERMINAL | SESSIONS | {f"a{name}" for name in SESSIONS}


def parameters(kind: type) -> set[str]:
    return set(inspect.signature(kind).parameters)


@pytest.mark.parametrize("kind", [Agent, Team])
def test_tab_completion_shows_parameters_and_what_a_user_calls(kind: Any) -> None:
    runner = Agent() if kind is Agent else Team([])
    assert {name for name in dir(runner) if not name.startswith("_")} == PUBLIC | parameters(kind)


# Help


def told(kind: type) -> dict[str, str]:
    """The parameters in a docstring, with their texts."""
    _, _, arguments = (inspect.getdoc(kind) or "").partition("\nArgs:\n")
    found = re.split(r"^    (\w+): ", arguments, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in zip(found[1::2], found[2::2], strict=True)}


@pytest.mark.parametrize("kind", [Agent, Team])
def test_the_help_of_a_class_tells_of_every_parameter(kind: type) -> None:
    """In the docstring of the class itself, where editors look."""
    assert kind.__doc__ == vars(kind)["__doc__"]
    assert told(kind).keys() == parameters(kind)


def test_agents_and_teams_tell_the_same_of_what_both_take() -> None:
    """The texts stand in both classes, since editors show the one that is named: keep them the same."""
    agent, team = told(Agent), told(Team)
    assert {name: team[name] for name in agent} == agent


# Keywords that there are not


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("instruction", "Agent has no keyword 'instruction'; did you mean 'instructions'?"),
        ("tols", "Agent has no keyword 'tols'; did you mean 'tools'?"),
        ("xyz", "Agent has no keyword 'xyz'; see help(Agent)"),
        ("_own_id", "Agent has no keyword '_own_id'"),
    ],
)
def test_a_keyword_that_there_is_not_is_refused_with_a_hint(given: str, message: str) -> None:
    options: dict[str, Any] = {given: None}
    with pytest.raises(TypeError, match=re.escape(message)):
        Agent(**options)


def test_a_class_of_the_application_s_is_asked_for_its_own_keywords() -> None:
    class Named(Agent):
        pass

    class Cook(Agent):
        def __init__(self, dish: str) -> None:
            super().__init__(name=f"Cook of {dish}")

    with pytest.raises(TypeError, match="Named has no keyword 'nam'; did you mean 'name'"):
        Named(nam="x")  # type: ignore[call-arg]
    assert Cook(dish="soup").name == "Cook of soup"
    with pytest.raises(TypeError, match="Team has no keyword 'member'; did you mean 'members'"):
        Team(member=[])  # type: ignore[call-arg]


# What cannot work fails when the object is made.


def look() -> str:
    """Look."""
    return "seen"


def another() -> Callable[..., str]:
    def look() -> str:
        """Look elsewhere."""
        return "not seen"

    return look


def unknown(x: Callable[[int], str]) -> str:
    """Take what has no JSON schema."""
    return x(1)


def generated() -> Any:
    yield "x"


class Order(BaseModel):
    dish: str


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tools": [5]}, "5 is not callable and cannot be a tool"),
        ({"tools": look}, "tools must be a list"),
        ({"tools": [look, another()]}, "two tools are named 'look'"),
        ({"tools": [look, Function(look, name="look", strict=True)]}, "two tools are named 'look'"),
        ({"tools": [unknown]}, "unknown: the parameter 'x'"),
        ({"tools": [tool(unknown)]}, "unknown: the parameter 'x'"),
        ({"tool_hooks": [5]}, "tool_hooks: a hook must be a function, not 5"),
        ({"tools": [look], "tool_hooks": [generated]}, "tool_hooks: .*generated is a generator"),
        ({"tool_hooks": look}, "tool_hooks must be a list"),
        ({"pre_hooks": [5]}, "pre_hooks: a hook must be a function, not 5"),
        ({"post_hooks": [unknown]}, "unknown has the parameter 'x', which Kern cannot fill here"),
        ({"model": 5}, "model must be a Model or 'provider:id', not 5"),
        ({"fallback_models": [5]}, "fallback_models must hold Models or 'provider:id' strings; 5 is neither"),
        ({"db": "agents.db"}, "db must be a database such as SqliteDb"),
        ({"instructions": 5}, "instructions must be a str, a list of str, or a function, not 5"),
        ({"instructions": ["x", 5]}, "instructions must be a str, a list of str, or a function"),
        ({"system_message": 5}, "system_message must be a str, a Message, or a function, not 5"),
        (
            {"timezone_identifier": "Mars/Base"},
            "timezone_identifier: this system has no timezone 'Mars/Base'",
        ),
        ({"input_schema": {"type": "object"}}, "input_schema must be a pydantic model class"),
        ({"input_schema": Order(dish="soup")}, "input_schema must be a pydantic model class"),
        ({"output_schema": 5}, "output_schema must be a type, .* or a JSON schema as a dict, not 5"),
    ],
)
@pytest.mark.parametrize("kind", [Agent, Team])
def test_what_cannot_work_fails_when_the_object_is_made(
    kind: Any, options: dict[str, Any], message: str
) -> None:
    given = options if kind is Agent else {"members": [], **options}
    with pytest.raises(UsageError, match=message):
        kind(**given)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (Agent(), "members must be a list of agents and teams"),
        (["cook"], "members: each member must be an Agent or a Team, not 'cook'"),
        ([Agent(id="cook"), Team([], id="cook")], "members: two members have the id 'cook'"),
    ],
)
def test_what_cannot_be_a_member_fails_when_the_team_is_made(members: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Team(members)


async def test_a_team_that_contains_itself_is_refused() -> None:
    members: list[Any] = []
    inner = Team(members, name="Inner")
    outer = Team([inner], name="Outer", model=ScriptedModel([]))
    members.append(outer)
    for runner in (inner, outer):
        with pytest.raises(UsageError, match=r"members: Team\(.* is a member of itself"):
            await runner.arun("go")
    fresh: Team = Team(lambda: [fresh], model=ScriptedModel([]))
    with pytest.raises(UsageError, match="is a member of itself"):
        await fresh.arun("go")


async def test_an_annotation_may_name_what_is_defined_later() -> None:
    def take(dish: Later) -> str:  # type: ignore[name-defined]  # noqa: F821
        """Take a dish."""
        return dish.name

    agent = Agent(model=ScriptedModel(["fine"] * 2), tools=[take])
    with pytest.raises(UsageError, match="'Later' cannot be evaluated"):
        await agent.arun("go")

    class _Later(BaseModel):
        name: str

    globals()["Later"] = _Later
    assert (await agent.arun("go")).content == "fine"


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "delegate_task_to_member"),
        ({"mode": "broadcast"}, "delegate_task_to_members"),
        ({"mode": "tasks"}, "create_task"),
        ({"get_member_information_tool": True}, "get_member_information"),
    ],
)
def test_a_tool_of_a_team_may_not_have_the_name_of_one_of_its_own(options: Any, name: str) -> None:
    with pytest.raises(UsageError, match=f"tools: .* adds a tool named '{name}'"):
        Team([Agent(name="cook")], tools=[Function(look, name=name)], **options)
    Team([Agent(name="cook")], tools=[Function(look, name="see")], **options)
