"""What nobody should pass, and what arrives all the same: refused at once, or taken whole."""

from __future__ import annotations

import json
from enum import Enum
from functools import partial
from typing import Any

import pytest

from kern import Agent, Message, RunStatus, Team, UsageError
from kern.db.sqlite import SqliteDb
from kern.messages import Audio
from kern.models.base import ModelResponse
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.testing import ModelServer, ScriptedModel, no_leaks, tool_call
from kern.usage import Usage
from tests.databases import opened
from tests.played import agent_with

HALF = "half \ud83d of a pair"
MENDED = "half \ufffd of a pair"


class Shade(str, Enum):  # noqa: UP042  # formatted as its name
    light = "light"


def member() -> Agent:
    return Agent(name="Member", model=ScriptedModel(["done"]))


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"session_id": 5}, "session_id must be a str, not int"),
        ({"session_id": ""}, "session_id is an empty string"),
        ({"session_id": HALF}, "half of a surrogate pair"),
        ({"session_id": Shade.light}, "pass a plain str"),
        ({"user_id": 5}, "user_id must be a str, not int"),
        ({"run_id": 5}, "run_id must be a str, not int"),
        ({"metadata": ["a"]}, "metadata must be a dict, not list"),
        ({"metadata": {"a": object()}}, "metadata is stored with the run and must be JSON"),
        ({"dependencies": 5}, "dependencies must be a dict, not int"),
        ({"images": ["cat.png"]}, r"images must be a list of Image\(url"),
        ({"files": [Audio(url="https://example.com/a.mp3")]}, r"files must be a list of File\("),
        ({"timeout": -1}, "seconds above 0, not -1"),
        ({"timeout": "5"}, "seconds above 0, not '5'"),
        ({"usage_limits": 5}, r"UsageLimits\(requests=\.\.\., \.\.\.\), a UsageBudget"),
    ],
)
async def test_a_keyword_s_value_that_cannot_be_is_refused(keywords: dict[str, Any], said: str) -> None:
    model = ScriptedModel(["never asked for"])
    with pytest.raises(UsageError, match=said):
        await Agent(model=model).arun("Hello", **keywords)
    assert model.requests == []


@pytest.mark.parametrize("name", ["session_id", "user_id", "id", "timeout", "metadata", "usage_limits"])
def test_so_it_is_in_a_constructor(name: str) -> None:
    wrong: Any = -1 if name == "timeout" else 5
    with pytest.raises(UsageError, match=name):
        Agent(**{name: wrong})
    with pytest.raises(UsageError, match=name):
        Team([], **{name: wrong})


@pytest.mark.parametrize("face", ["run", "arun", "print_response", "continue_run"])
def test_an_unknown_keyword_is_told_with_the_one_that_was_meant(face: str) -> None:
    with pytest.raises(TypeError, match="has no keyword 'user_ld'; did you mean 'user_id'"):
        getattr(member(), face)("Hello", user_ld="ann")


def test_accessors_refuse_ids_that_cannot_be() -> None:
    agent: Any = member()
    for id in (5, "", HALF):
        with pytest.raises(UsageError, match="session_id"):
            agent.get_session_state(id)
    for id in (5, HALF):
        with pytest.raises(UsageError, match="user_id"):
            agent.get_session(user_id=id)


@pytest.mark.parametrize("updates", [None, ["a"], 5, "text"])
def test_an_update_of_the_state_that_is_no_dict_is_refused(updates: Any) -> None:
    agent = member()
    with pytest.raises(UsageError, match="takes a dict of the keys to set"):
        agent.update_session_state(updates)
    assert agent.get_session_state() == {}


@pytest.mark.parametrize("input", [b"bytes", bytearray(b"bytes"), 5, None, object()])
async def test_an_input_of_no_known_type_is_refused(input: Any) -> None:
    with pytest.raises(UsageError, match="input must be a str, list, dict, Message or pydantic model, not"):
        await member().arun(input)


@pytest.mark.parametrize("members", [None, "ab", {}, member(), 5])
async def test_members_that_are_no_list_are_refused(members: Any) -> None:
    with pytest.raises(UsageError, match="members must be a list of agents and teams, not"):
        await Team(members, model=ScriptedModel(["hello"])).arun("Hello")


async def test_members_made_by_a_function_are_checked_likewise() -> None:
    with pytest.raises(UsageError, match="members must be a list of agents and teams, not 3"):
        await Team(lambda: 3, model=ScriptedModel(["hello"])).arun("Hello")


@pytest.mark.parametrize("what", [member(), Team([])])
async def test_an_agent_among_the_tools_is_sent_to_the_members(what: Any) -> None:
    with pytest.raises(UsageError, match=r"agents and teams as members: Team\(members="):
        await Agent(model=ScriptedModel(["hello"]), tools=[what]).arun("Hello")


@pytest.mark.parametrize("name", ["update_session_state", "read_chat_history"])
def test_a_tool_named_like_one_that_a_parameter_brings_is_refused(name: str) -> None:
    def impostor() -> None:
        """Never called."""

    impostor.__name__ = name
    for runner in (Agent, partial(Team, [])):
        with pytest.raises(UsageError, match=f"adds a tool named '{name}'"):
            runner(
                model=ScriptedModel(["hello"]),
                tools=[impostor],
                enable_agentic_state=name == "update_session_state",
                read_chat_history=name == "read_chat_history",
            )


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("protocol", [OpenAIResponses, OpenAIChat])
async def test_half_a_surrogate_pair_is_mended_on_its_way(place: str, protocol: Any, streamed: bool) -> None:
    """File names and terminals bring such text; the run goes on with it, and its end is stored."""

    def list_files() -> str:
        return HALF

    def read_file() -> None:
        raise FileNotFoundError(HALF)

    calls = ModelServer([tool_call("list_files"), tool_call("read_file"), "Done."])
    async with no_leaks(), calls as server:
        model = protocol("gpt-5.2", base_url=server.base_url, api_key="sk-any")
        agent = Agent(name=HALF, model=model, tools=[list_files, read_file], db=opened(place))
        events = []
        if streamed:
            stream = agent.arun(HALF, stream=True, stream_events=True, yield_run_output=True)
            events = [item async for item in stream]
            output = events.pop()
        else:
            output = await agent.arun(HALF)
        assert MENDED in server.requests[0].user_text
        stored = await agent.aget_run_output(output.run_id)
    assert output.status is RunStatus.completed
    assert stored is not None
    assert stored.input == MENDED
    assert [call.result for call in stored.tools] == [MENDED, f"FileNotFoundError: {MENDED}"]
    assert MENDED in "".join(event.to_json() for event in events) or not streamed


async def test_half_a_surrogate_pair_of_a_model_s_own_is_stored_mended(place: str) -> None:
    agent = Agent(model=ScriptedModel([HALF]), db=opened(place))
    output = await agent.arun("Hello")
    stored = await agent.aget_run_output(output.run_id)
    assert stored is not None
    assert stored.content == MENDED


def leave_sync() -> None:
    raise SystemExit(3)


async def leave_async() -> None:
    raise SystemExit(3)


@pytest.mark.parametrize("leave", [leave_sync, leave_async])
@pytest.mark.parametrize("other", [False, True])
def test_a_tool_that_leaves_the_program_has_failed_and_nothing_more(leave: Any, other: bool) -> None:
    """`sys.exit` in a tool, as an argument parser calls it, ends neither the run nor the loop it is on."""
    calls = [tool_call(leave.__name__)] * (2 if other else 1)
    agent = Agent(model=ScriptedModel([ModelResponse.of(None, *calls), "Done.", "More."]), tools=[leave])
    output = agent.run("Go")
    assert [call.result for call in output.tools] == ["SystemExit: 3"] * len(calls)
    assert output.content == "Done."
    assert agent.run("Again").content == "More."


async def interrupt() -> None:
    raise KeyboardInterrupt


def test_an_interrupt_inside_of_a_tool_reaches_the_caller_and_the_next_run_works() -> None:
    agent = agent_with(interrupt)
    with pytest.raises(KeyboardInterrupt):
        agent.run("Go", run_id="broken")
    assert member().run("Hello").content == "done"
    stored = agent.get_run_output("broken")
    assert stored is not None
    assert stored.status is RunStatus.error


def test_instructions_that_leave_the_program_fail_the_run() -> None:
    def instructions() -> str:
        raise SystemExit(3)

    with pytest.raises(Exception, match="SystemExit: 3") as caught:
        Agent(model=ScriptedModel(["never"]), instructions=instructions).run("Go", run_id="left")
    assert caught.value.run_output.status is RunStatus.error  # type: ignore[attr-defined]


async def test_a_request_counts_as_one_whatever_the_model_says() -> None:
    answer = ModelResponse(Message("assistant", "Hello"), Usage(input_tokens=3, total_tokens=3))
    output = await Agent(model=ScriptedModel([answer])).arun("Hello")
    assert output.metrics.requests == 1
    assert output.metrics.input_tokens == 3


@pytest.mark.parametrize("db", ["agents.db", 5, SqliteDb])
async def test_a_db_that_is_none_is_refused(db: Any) -> None:
    with pytest.raises(UsageError, match=r"db must be a database such as SqliteDb\('agents.db'\), not"):
        await Agent(model=ScriptedModel(["never"]), db=db).arun("Hello")


async def test_a_run_id_in_the_place_of_an_output_is_told_where_it_goes() -> None:
    wrong: Any = "some-run"
    with pytest.raises(
        UsageError, match="paused run, not 'some-run'; to continue a run by its id, pass run_id="
    ):
        await member().acontinue_run(wrong)


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("name", 5, "name must be a str, not 5"),
        ("introduction", ["Hello"], "introduction must be a str, not"),
        ("tools", print, "tools must be a list, not"),
        ("tools", "search", "tools must be a list, not 'search'"),
        ("tool_hooks", print, "tool_hooks must be a list of functions, not a single function"),
        ("fallback_models", "openai:gpt-5.2", "fallback_models must be a list, not 'openai:gpt-5.2'"),
        ("additional_input", "Hello", "additional_input must be a list, not 'Hello'"),
        ("additional_input", [5], "additional_input must be a list of str and Message"),
        ("parser_model", 5, "parser_model must be a Model or 'provider:id', not 5"),
        ("retries", -1, "retries must be a whole number, 0 or more, not -1"),
        ("tool_call_limit", "3", "tool_call_limit must be a whole number, 0 or more, not '3'"),
        ("num_history_runs", -1, "num_history_runs must be a whole number"),
        ("system_message_role", "boss", "system_message_role must be one of system, developer, .*not 'boss'"),
        ("tool_choice", "sometimes", "tool_choice must be 'auto', 'none', 'required' or .* not 'sometimes'"),
    ],
)
def test_a_parameter_of_a_wrong_kind_is_told_by_its_name(name: str, wrong: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Agent(**{name: wrong})
    with pytest.raises(UsageError, match=said):
        Team([], **{name: wrong})


@pytest.mark.parametrize(("name", "wrong"), [("member_timeout", -1), ("max_iterations", -1)])
def test_so_is_one_of_a_team_s_own(name: str, wrong: Any) -> None:
    with pytest.raises(UsageError, match=f"{name} must be a (whole )?number.* not {wrong}"):
        Team([], **{name: wrong})


async def test_messages_may_be_dicts_of_a_role_and_a_text() -> None:
    model = ScriptedModel(["Peter", "taken"])
    agent = Agent(model=model)
    said = [{"role": "user", "content": "I am Peter"}, {"role": "assistant", "content": "Hello"}]
    await agent.arun([*said, {"role": "user", "content": "Who am I?"}])
    roles = [(message.role, message.content) for message in model.requests[0].messages]
    assert roles == [("user", "I am Peter"), ("assistant", "Hello"), ("user", "Who am I?")]

    data = [{"role": "pilot", "content": "an entry of the application's own"}]
    await agent.arun(data)
    assert model.requests[1].messages[-1].content == json.dumps(data)


def test_a_run_outside_of_asyncio_says_that_it_needs_it() -> None:
    """As under trio, which drives a coroutine without a loop of asyncio's."""
    run = Agent(model=ScriptedModel(["Hi"])).arun("Hello")
    with pytest.raises(UsageError, match="Kern does not run on trio"):
        run.send(None)
