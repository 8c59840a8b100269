"""What an error looks like that leaves a sync method: the caller's line and the message."""

from __future__ import annotations

import traceback
from collections import UserDict
from collections.abc import Callable
from typing import Any

import pytest

from kern import Agent, KernError, Team
from kern.errors import HookError, MissingKeyError, SessionOwnershipError, UsageError
from kern.models.base import ModelRequest, ModelResponse
from kern.testing import FunctionModel, ScriptedModel
from kern.usage import UsageLimits


async def no_answer(request: ModelRequest) -> ModelResponse:
    raise ConnectionError("the line is cut")


def failing(**options: Any) -> Agent:
    return Agent(model=FunctionModel(no_answer), **options)


WAYS: list[Callable[[Agent], object]] = [
    lambda agent: agent.run("x"),
    lambda agent: list(agent.run("x", stream=True)),
    lambda agent: agent.print_response("x"),
    lambda agent: agent.print_response("x", stream=True),
    lambda agent: agent.map(["x"], on_error="raise"),
]


@pytest.mark.parametrize("way", WAYS, ids=["run", "stream", "print", "print stream", "map"])
def test_the_traceback_has_the_callers_lines_alone(way: Callable[[Agent], object]) -> None:
    with pytest.raises(KernError) as caught:
        way(failing())
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert {frame.filename for frame in frames} == {__file__}
    assert frames[-1].line is not None
    assert "lambda agent" in frames[-1].line


@pytest.mark.parametrize("way", WAYS, ids=["run", "stream", "print", "print stream", "map"])
def test_it_is_whole_in_debug_mode(way: Callable[[Agent], object]) -> None:
    with pytest.raises(KernError) as caught:
        way(failing(debug_mode=True))
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert any(frame.filename.endswith("portal.py") for frame in frames)


MISTAKES: list[Callable[[], object]] = [
    lambda: Agent(modle="x"),  # type: ignore[call-arg]
    lambda: Agent("x"),
    lambda: Agent(tools=["x"]),
    lambda: Team([], retries=-1),
    lambda: UsageLimits(tokens=3),  # type: ignore[call-arg]
    lambda: Agent().run("x", sesion_id="s"),
]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_call_shows_that_call_alone(mistake: Callable[[], object]) -> None:
    with pytest.raises((TypeError, KernError)) as caught:
        mistake()
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert {frame.filename for frame in frames} == {__file__}


def test_a_mistake_in_a_constructor_is_whole_in_debug_mode() -> None:
    with pytest.raises(UsageError) as caught:
        Agent(retries=-1, debug_mode=True)
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert any(frame.filename.endswith("checks.py") for frame in frames)


def test_an_accessor_shows_no_more_than_itself() -> None:
    agent = Agent(model=ScriptedModel(["a"]), session_id="s", user_id="ann")
    agent.run("x")
    with pytest.raises(SessionOwnershipError) as caught:
        agent.get_session_state("s", user_id="bob")
    assert len(traceback.extract_tb(caught.value.__traceback__)) <= 2


def check(run_input: Any) -> None:
    checked(run_input)


def checked(value: object) -> None:
    raise ValueError("my own mistake")


def test_the_frames_of_a_hook_stay() -> None:
    with pytest.raises(HookError) as caught:
        Agent(model=ScriptedModel(["a"]), pre_hooks=[check]).run("x")
    assert caught.value.__cause__ is not None
    frames = traceback.extract_tb(caught.value.__cause__.__traceback__)
    assert [frame.name for frame in frames] == ["check", "checked"]


def test_an_error_that_is_no_kern_error_is_left_alone() -> None:
    class Broken(UserDict[str, Any]):
        def keys(self) -> Any:
            raise LookupError("nothing is here")

    with pytest.raises(LookupError) as caught:
        Agent(model=ScriptedModel([])).run("x", metadata=Broken())
    assert len(traceback.extract_tb(caught.value.__traceback__)) > 2


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.mark.usefixtures("no_key")
async def test_a_missing_key_is_found_before_hooks_and_the_session() -> None:
    called: list[str] = []
    agent = Agent(model="openai:gpt-5.2", pre_hooks=[lambda run_input: called.append("hook")])
    with pytest.raises(MissingKeyError, match="OPENAI_API_KEY"):
        await agent.arun("x", session_id="s")
    assert (called, await agent.aget_session("s")) == ([], None)
    with pytest.raises(MissingKeyError):
        agent.arun("x", stream=True)


@pytest.mark.usefixtures("no_key")
async def test_the_keys_of_members_are_looked_at_too() -> None:
    leader = ScriptedModel([])
    inner = Team([Agent(name="deep", model="openai:gpt-5.2")], name="inner", model=ScriptedModel([]))
    with pytest.raises(MissingKeyError):
        await Team([inner], model=leader).arun("x")
    assert leader.requests == []


@pytest.mark.usefixtures("no_key")
async def test_the_keys_of_fallback_models_are_not() -> None:
    agent = Agent(model=ScriptedModel(["a"]), fallback_models=["openai:gpt-5.2"])
    assert (await agent.arun("x")).content == "a"


@pytest.mark.usefixtures("no_key")
def test_a_server_or_a_client_of_ones_own_may_need_no_key() -> None:
    import httpx

    from kern.models.openai import OpenAIChat

    OpenAIChat(id="m", base_url="http://localhost:11434/v1").check_key()
    OpenAIChat(id="m", default_headers={"Authorization": "Bearer x"}).check_key()
    OpenAIChat(id="m", http_client=httpx.AsyncClient(headers={"Authorization": "Bearer x"})).check_key()
    with pytest.raises(MissingKeyError):
        OpenAIChat(id="m").check_key()


async def test_an_unnamed_agent_is_no_number_in_an_error() -> None:
    agent = Agent(model=ScriptedModel(["no"] * 20), output_schema=dict[str, int], role="Adds up")
    with pytest.raises(KernError) as caught:
        await agent.arun("x")
    assert agent._own_id not in str(caught.value)
    assert str(caught.value).startswith("the agent")
    assert repr(agent) == "Agent(role='Adds up')"
    assert repr(Agent(name="Ann", model=ScriptedModel([]))) == "Agent(name='Ann', id='ann')"
    with pytest.raises(UsageError, match="Agent"):
        Team([agent, "Agent"], model=ScriptedModel([]))
