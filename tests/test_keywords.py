"""A constructor that is called with an unknown keyword, or with too many arguments, says what to write."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, Team, Toolkit
from kern.budget import UsageBudget
from kern.db import Db, InMemoryDb, SqliteDb
from kern.db.postgres import PostgresDb
from kern.durable import DbJournal, InMemoryDeltas
from kern.engines.worker import Worker
from kern.messages import Image
from kern.models.anthropic import AnthropicMessages
from kern.models.bedrock import BedrockConverse
from kern.models.google import Gemini
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.testing import ScriptedModel, tool_call
from kern.tools import Function
from kern.usage import UsageLimits


@pytest.mark.parametrize(
    ("kind", "given", "hint"),
    [
        (OpenAIChat, "temprature", "did you mean 'temperature'?"),
        (OpenAIResponses, "max_tokens", "did you mean 'max_output_tokens'?"),
        (AnthropicMessages, "temprature", "did you mean 'temperature'?"),
        (Gemini, "apikey", "did you mean 'api_key'?"),
        (BedrockConverse, "regoin", "did you mean 'region'?"),
        (SqliteDb, "dbfile", "did you mean 'db_file'?"),
        (PostgresDb, "url", "did you mean 'db_url'?"),
        (InMemoryDb, "path", "it takes: none"),
        (DbJournal, "dtlas", "did you mean 'deltas'?"),
        (InMemoryDeltas, "max_delta", "did you mean 'max_deltas'?"),
        (UsageLimits, "tokens", "did you mean 'total_tokens'?"),
        (UsageBudget, "limit", "did you mean 'limits'?"),
        (Image, "path", "did you mean 'filepath'?"),
        (Toolkit, "tols", "did you mean 'tools'?"),
        (Function, "nmae", "did you mean 'name'?"),
        (Worker, "at_onec", "did you mean 'at_once'?"),
        (ScriptedModel, "model", "it takes: answers, id, provider"),
        (Team, "modle", "did you mean 'model'?"),
    ],
)
def test_an_unknown_keyword_is_refused_with_a_suggestion(
    kind: Callable[..., Any], given: str, hint: str
) -> None:
    message = f"{kind.__name__} has no keyword {given!r}; {hint}"
    with pytest.raises(TypeError, match=re.escape(message)):
        kind(**{given: 1})


def test_arguments_that_must_be_named_are_asked_for_by_name() -> None:
    made: list[tuple[Callable[..., Any], tuple[Any, ...], str]] = [
        (Agent, ("desk",), "Agent takes keywords only, such as Agent(model=...)"),
        (UsageLimits, (3,), "UsageLimits takes keywords only, such as UsageLimits(requests=...)"),
        (
            OpenAIChat,
            ("gpt-5.2", "key"),
            "takes only id by position; pass the others by keyword, such as OpenAIChat(api_key=...)",
        ),
    ]
    for kind, args, message in made:
        with pytest.raises(TypeError, match=re.escape(message)):
            kind(*args)


def test_a_class_of_the_application_is_checked_by_its_own_constructor() -> None:
    class Weather(Toolkit):
        def __init__(self, city: str) -> None:
            super().__init__(name=f"weather of {city}")

    class Open(Toolkit):
        def __init__(self, **settings: Any) -> None:
            super().__init__()
            self.settings = settings

    with pytest.raises(TypeError, match="Weather has no keyword 'town'; it takes: city"):
        Weather(town="Ulm")  # type: ignore[call-arg]
    assert Weather("Ulm").name == "weather of Ulm"
    assert Open(anything=1).settings == {"anything": 1}


def test_objects_are_copied_and_pickled_as_before(tmp_path: Path) -> None:
    limits, image = UsageLimits(requests=3), Image(url="https://example.com/a.png")
    assert copy.copy(limits) == copy.deepcopy(limits) == pickle.loads(pickle.dumps(limits)) == limits
    assert copy.deepcopy(image) == pickle.loads(pickle.dumps(image)) == image
    db: Db = pickle.loads(pickle.dumps(SqliteDb(tmp_path / "a.db")))
    assert "a.db" in repr(db)


async def test_a_stream_that_is_awaited_says_how_to_read_it() -> None:
    stream: Any = Agent(model=ScriptedModel(["Hi"])).arun("Hello", stream=True)
    with pytest.raises(TypeError, match=re.escape("write `async for event in agent.arun(..., stream=True)`")):
        await stream


async def test_a_tool_may_return_the_stream_of_another_run() -> None:
    inner = Agent(name="inner", model=ScriptedModel(["From within."]))

    def ask() -> Any:
        return inner.arun("Say it", stream=True)

    outer = Agent(model=ScriptedModel([tool_call("ask"), "Done."]), tools=[ask])
    output = await outer.arun("Go")
    assert output.content == "Done."
    assert '"content":" within."' in str((output.tools or [])[0].result)


async def test_a_stream_that_is_read_by_a_plain_loop_says_how_to_read_it() -> None:
    stream: Any = Agent(model=ScriptedModel(["Hi"])).arun("Hello", stream=True)
    with pytest.raises(TypeError, match="needs `async for`"):
        for _ in stream:
            pass


async def test_a_run_that_is_never_awaited_is_named_after_its_public_method() -> None:
    run: Any = Agent(model=ScriptedModel(["Hi"])).arun("Hello")
    paused: Any = Team([]).acontinue_run(run_id="r")
    assert (run.__qualname__, paused.__qualname__) == ("Agent.arun", "Team.acontinue_run")
    run.close()
    paused.close()


@pytest.mark.parametrize("name", ["thinking_mode", "cache_sessions", "store_medium", "skill_set"])
def test_a_name_that_is_not_close_to_any_gets_no_hint_as_a_wrong_one_is_worse_than_none(name: str) -> None:
    with pytest.raises(TypeError, match=r"see help\(Agent\)"):
        Agent(**{name: True})


@pytest.mark.parametrize(
    ("name", "meant"), [("add_history", "add_history_to_context"), ("debug", "debug_mode")]
)
def test_a_name_of_which_a_part_is_left_out_means_the_whole_name(name: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"did you mean '{meant}'"):
        Agent(**{name: True})
