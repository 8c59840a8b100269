"""What is set on an agent or a team after its constructor is checked as the constructor checks it."""

from __future__ import annotations

import copy
import inspect
import pickle
import sys
from typing import Any

import pytest

from kern import Agent, Team, tool
from kern.errors import KernError, UsageError
from kern.testing import ScriptedModel
from kern.tools import Function
from kern.usage import UsageLimits

WRONG: dict[str, Any] = {
    "usage_limits": {"requests": 1},
    "on_busy": "qeue",
    "merge": {"n": "add"},
    "session_id": 5,
    "id": 5,
    "num_history_runs": "3",
    "events_to_skip": "RunContent",
    "timeout": "5",
    "max_requests": "3",
    "db": "x.db",
    "pre_hooks": len,
    "tools": "nope",
    "fallback_models": "openai:x",
    "model": "nobody:x",
    "session_state": {"s": {1}},
    "debug_level": 3,
    "tool_choice": "must",
    "output_schema": 5,
    "input_schema": dict,
    "state_migrations": ["x"],
    "system_message_role": "boss",
    "timezone_identifier": "Mars/Olympus",
    "metadata": {"x": object()},
    "journal": "x",
}
WRONG_OF_TEAMS: dict[str, Any] = {
    "member_timeout": "x",
    "max_iterations": "x",
    "num_team_history_runs": -1,
    "mode": "anarchy",
    "members": ["x"],
}


def make(kind: str, **more: Any) -> Agent | Team:
    model = ScriptedModel(["Hi"])
    if kind == "agent":
        return Agent(**{"model": model, **more})
    return Team(**{"members": [Agent(model=model)], "model": model, **more})


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [("agent", *item) for item in WRONG.items()]
    + [("team", *item) for item in (WRONG | WRONG_OF_TEAMS).items()],
)
def test_it_is_refused_with_the_words_of_the_constructor_and_the_old_value_stays(
    kind: str, name: str, value: Any
) -> None:
    with pytest.raises(KernError) as at_once:
        make(kind, **{name: value})
    runner = make(kind)
    before = getattr(runner, name)
    with pytest.raises(KernError) as later:
        setattr(runner, name, value)
    assert str(later.value) == str(at_once.value)
    assert getattr(runner, name) is before
    assert runner.run("x").content == "Hi"


def test_what_is_right_is_set_and_has_its_effect() -> None:
    agent = Agent(model=ScriptedModel(["a", "b"]))
    agent.usage_limits = UsageLimits(requests=0)
    with pytest.raises(Exception, match="limit"):
        agent.run("x")
    agent.usage_limits = None
    agent.model = ScriptedModel(["c"])
    assert agent.run("x").content == "c"


def test_an_attribute_that_there_is_not_is_still_refused() -> None:
    with pytest.raises(AttributeError, match="usage_limit"):
        setattr(Agent(), "usage_limit", None)  # noqa: B010 - there is none


class Shouting(Agent[str]):
    """An application's own, with a `__dict__`."""

    made: list[type] = []

    def __init__(self, loud: bool, **options: Any) -> None:
        self.loud = loud
        super().__init__(**options)
        self.timeout = 5.0

    def __init_subclass__(cls) -> None:
        Shouting.made.append(cls)


class Louder(Shouting):
    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value.upper() if name == "role" and value else value)


@pytest.mark.parametrize("kind", [Shouting, Louder])
def test_a_subclass_of_an_application_is_checked_too_and_keeps_its_class(kind: type[Shouting]) -> None:
    agent = kind(True, model=ScriptedModel(["Hi"]), role="boss")
    assert type(agent) is kind
    assert (agent.loud, agent.timeout) == (True, 5.0)
    assert agent.role == ("BOSS" if kind is Louder else "boss")
    with pytest.raises(UsageError, match="timeout must be"):
        setattr(agent, "timeout", "5")  # noqa: B010 - it has another type
    assert Shouting.made == [Louder]
    agent.loud = False
    assert not copy.copy(agent).loud


@pytest.mark.parametrize("kind", ["agent", "team"])
def test_copies_and_what_comes_from_a_pickle_are_checked_too(kind: str) -> None:
    runner = make(kind)
    for twin in (copy.copy(runner), copy.deepcopy(runner), pickle.loads(pickle.dumps(runner)), type(runner)):
        made = twin(members=[]) if twin is Team else twin() if twin is Agent else twin
        assert type(made) is type(runner)
        with pytest.raises(UsageError, match="timeout must be"):
            setattr(made, "timeout", "5")  # noqa: B010 - it has another type


def test_making_an_agent_calls_no_function_for_each_parameter() -> None:
    model = ScriptedModel(["Hi"])
    Agent(model=model)
    called: list[str] = []
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name) if event == "call" else None)
    try:
        Agent(model=model)
    finally:
        sys.setprofile(None)
    assert "__post_init__" in called
    assert "__setattr__" not in called
    assert len(called) < 30


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "objekt"},
        {"type": "object", "properties": {"x": {"type": "str"}}},
        {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": ["int", "null"]}]}},
        {"type": 5},
    ],
)
def test_a_schema_with_a_type_that_json_does_not_have_is_refused_by_the_constructor(schema: Any) -> None:
    with pytest.raises(UsageError, match=r"output_schema: .* is no type of JSON schema: object, array"):
        Agent(output_schema=schema)
    Agent(output_schema={"type": "object", "properties": {"type": {"type": ["string", "null"]}}})


def test_slips_with_tools_say_what_to_write_and_the_class_has_a_signature() -> None:
    with pytest.raises(UsageError, match=r"for the name write @tool\(name='search'\)"):
        tool("search")
    with pytest.raises(UsageError, match="user_input_fields must be a list of names, not 'amount'"):
        tool(user_input_fields="amount")(pow)
    assert "entrypoint" in inspect.signature(Function).parameters
    assert list(inspect.signature(tool(len)).parameters) == ["obj"]
