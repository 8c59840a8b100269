"""Ids of tool calls in a prompt: no two are equal, whatever the servers and earlier versions have given."""

from __future__ import annotations

from typing import Any

import pytest

from kern import Agent, Message
from kern.db.in_memory import InMemoryDb
from kern.db.sqlite import SqliteDb
from kern.messages import ToolCall
from kern.models.base import ModelRequest, ModelResponse
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.runtime.call_ids import CallIds
from kern.testing import Answer, FunctionModel, ModelServer, ReceivedRequest


def find(q: str) -> str:
    """Find something."""
    return f"found {q}"


def call(q: str, call_id: str = "call_0") -> ToolCall:
    return ToolCall(call_id, "find", f'{{"q": "{q}"}}')


def ids(messages: Any) -> list[str]:
    return [call.id for message in messages for call in message.tool_calls]


@pytest.mark.parametrize("given", ["call_0", "", "functions.find:0"])
async def test_calls_of_several_runs_have_ids_of_their_own(tmp_path: Any, given: str) -> None:
    prompts: list[Any] = []

    def play(request: ModelRequest) -> ModelResponse | str:
        prompts.append(request.messages)
        last = request.messages[-1]
        if last.role == "tool":
            return f"It is: {last.content}"
        return ModelResponse.of(None, call(f"{last.content}1", given), call(f"{last.content}2", given))

    db = SqliteDb(db_file=str(tmp_path / "kern.db"))
    agent = Agent(model=FunctionModel(play), tools=[find], db=db, session_id="s", add_history_to_context=True)
    for question in ("a", "b", "c"):
        await agent.arun(question)
    messages = prompts[-1]
    assert len(set(ids(messages))) == 6
    answers = {m.tool_call_id: m.content for m in messages if m.role == "tool"}
    for message in messages:
        for made in message.tool_calls:
            assert answers[made.id] == f"found {made.arguments[7:-2]}"


async def test_rows_in_which_an_id_comes_twice_are_told_apart() -> None:
    """As they are from versions that knew an id within its run only, and from runs without history."""
    db = InMemoryDb()
    seen: list[Any] = []

    def play(request: ModelRequest) -> ModelResponse | str:
        seen.append(request.messages)
        return "ok" if request.messages[-1].role == "tool" else ModelResponse.of(None, call("x"))

    for _ in range(3):
        await Agent(model=FunctionModel(play), tools=[find], db=db, session_id="s").arun("x")
    options: dict[str, Any] = {"add_history_to_context": True, "max_tool_calls_from_history": 2}
    await Agent(model=FunctionModel(play), tools=[find], db=db, session_id="s", **options).arun("x")
    assert len(ids(seen[-1])) == len(set(ids(seen[-1]))) == 3
    assert sum(message.role == "tool" for message in seen[-1]) == 3


@pytest.mark.parametrize("kind", [OpenAIChat, OpenAIResponses])
async def test_a_server_that_refuses_equal_ids_goes_on(kind: Any) -> None:
    def play(request: ReceivedRequest) -> Answer | str:
        made = ids(request.messages)
        assert len(made) == len(set(made))
        results = request.tool_results
        return results[-1].content or "" if results else Answer(tool_calls=[call("x")], reasoning="Hm.")

    async with ModelServer(play) as server:
        model = kind("m", base_url=server.base_url, api_key="any", max_retries=0)
        agent = Agent(model=model, tools=[find], add_history_to_context=True)
        for _ in range(3):
            assert (await agent.arun("x")).content == "found x"


def test_a_new_id_is_no_longer_than_servers_take_and_none_is_taken_twice() -> None:
    names = CallIds()
    wanted = ["x" * 60] * 12 + ["call_0-2", "call_0", "call_0", "call_0"] + [""] * 3
    taken = [names.take(each) for each in wanted]
    assert len(set(taken)) == len(wanted)
    assert max(len(each) for each in taken[1:]) <= 40
    assert taken[0] == "x" * 60


def test_messages_of_others_are_not_changed() -> None:
    first = [Message("assistant", tool_calls=[call("a")]), Message("tool", "1", tool_call_id="call_0")]
    second = [Message("assistant", tool_calls=[call("b")]), Message("tool", "2", tool_call_id="call_0")]
    named = CallIds().apply([*first, *second])
    assert [m.tool_call_id for m in named if m.role == "tool"] == ids(named) == ["call_0", "call_0-2"]
    assert ids(second) == ["call_0"]
    assert named[1] is first[1]
