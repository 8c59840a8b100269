"""What a model is told of earlier runs: only what was asked for, never a result without its call."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kern import Agent, Team
from kern.db.in_memory import InMemoryDb
from kern.db.sqlite import SqliteDb
from kern.errors import ModelError
from kern.messages import Message
from kern.models.base import ModelRequest, ModelResponse
from kern.testing import FunctionModel, ScriptedModel, tool_call


def said(request: ModelRequest) -> list[tuple[str, str | None]]:
    return [(m.role, m.content) for m in request.messages if m.role != "system"]


def look_up(key: str) -> str:
    """Look something up."""
    return f"value of {key}"


def talker() -> FunctionModel:
    def answer(request: ModelRequest) -> ModelResponse | str:
        last = request.messages[-1]
        if last.role == "user" and (last.content or "").startswith("look"):
            return ModelResponse.of(None, tool_call("look_up", key="a"), tool_call("look_up", key="b"))
        return f"answer to {last.content}"

    return FunctionModel(answer)


async def test_the_newest_runs_come_before_the_input() -> None:
    model = talker()
    agent = Agent(model=model, add_history_to_context=True, num_history_runs=2)
    for text in ("one", "two", "three"):
        await agent.arun(text)
    assert said(model.requests[-1]) == [
        ("user", "one"),
        ("assistant", "answer to one"),
        ("user", "two"),
        ("assistant", "answer to two"),
        ("user", "three"),
    ]
    await agent.arun("four")
    assert said(model.requests[-1])[0] == ("user", "two")
    output = await agent.arun("five", add_history_to_context=False)
    assert said(model.requests[-1]) == [("user", "five")]
    assert [m.content for m in output.messages] == ["five", "answer to five"]


async def test_history_is_not_stored_again_with_each_run() -> None:
    agent = Agent(model=talker(), add_history_to_context=True)
    await agent.arun("one")
    output = await agent.arun("two")
    assert [m.content for m in output.messages] == ["two", "answer to two"]
    assert [m.content for m in await agent.aget_chat_history()] == [
        "one",
        "answer to one",
        "two",
        "answer to two",
    ]


async def test_failed_runs_are_left_out() -> None:
    model = ScriptedModel(["fine", ModelError("broken"), "fine again", "end"])
    agent = Agent(model=model, add_history_to_context=True, num_history_runs=1)
    await agent.arun("one")
    with pytest.raises(ModelError):
        await agent.arun("two")
    await agent.arun("three")
    assert said(model.requests[-1]) == [("user", "one"), ("assistant", "fine"), ("user", "three")]


@pytest.mark.parametrize("count", range(1, 9))
async def test_trimming_never_leaves_a_result_without_its_call(count: int) -> None:
    model = talker()
    agent = Agent(model=model, tools=[look_up], add_history_to_context=True, num_history_messages=count)
    await agent.arun("look 1")
    await agent.arun("look 2")
    await agent.arun("last")
    messages = model.requests[-1].messages[:-1]
    assert len(messages) <= count
    calls = {call.id for m in messages for call in m.tool_calls}
    assert all(m.tool_call_id in calls for m in messages if m.role == "tool")
    if messages:
        assert messages[0].role == "user"


async def test_only_the_newest_tool_calls_are_kept() -> None:
    model = talker()
    agent = Agent(model=model, tools=[look_up], add_history_to_context=True, max_tool_calls_from_history=3)
    await agent.arun("look 1")
    await agent.arun("look 2")
    await agent.arun("last")
    messages = model.requests[-1].messages
    calls = [call.id for m in messages for call in m.tool_calls]
    results = [m.tool_call_id for m in messages if m.role == "tool"]
    assert len(calls) == 3
    assert calls == results
    agent.max_tool_calls_from_history = 0
    await agent.arun("none")
    assert not any(m.role == "tool" or m.tool_calls for m in model.requests[-1].messages)


async def test_a_member_sees_its_own_history_in_the_teams_session() -> None:
    member_model = talker()
    member = Agent(name="A", model=member_model, add_history_to_context=True)
    leader = FunctionModel(
        lambda r: (
            "ok"
            if r.messages[-1].role == "tool"
            else ModelResponse.of(
                None, tool_call("delegate_task_to_member", member_id="a", task=r.messages[-1].content or "")
            )
        )
    )
    team = Team([member], model=leader)
    await team.arun("one")
    await team.arun("two")
    assert said(member_model.requests[-1]) == [
        ("user", "one"),
        ("assistant", "answer to one"),
        ("user", "two"),
    ]


async def test_the_model_can_look_up_what_was_said() -> None:
    model = ScriptedModel(["hello", tool_call("read_chat_history", num_runs=5), "I see"])
    agent = Agent(model=model, read_chat_history=True)
    await agent.arun("hi")
    output = await agent.arun("what did I say?")
    assert json.loads(output.tools[0].result or "") == [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
    ]


async def test_users_and_sessions_do_not_see_each_others_history() -> None:
    model = talker()
    agent = Agent(model=model, add_history_to_context=True)
    await agent.arun("mine", user_id="a")
    await agent.arun("yours", user_id="b")
    assert said(model.requests[-1]) == [("user", "yours")]
    assert all(isinstance(m, Message) for m in await agent.aget_session_messages(user_id="a"))


async def test_a_summary_is_renewed_by_each_run_and_shown_to_the_next() -> None:
    writer = ScriptedModel(["first summary", "second summary"])
    model = ScriptedModel(["one", "two"])
    agent = Agent(
        model=model,
        enable_session_summaries=True,
        add_session_summary_to_context=True,
        session_summary_model=writer,
    )
    pieces = [event.content async for event in agent.arun("a", stream=True)]
    assert "".join(pieces) == "one"
    session = await agent.aget_session()
    assert session is not None
    assert session.summary == "first summary"
    output = await agent.arun("b")
    assert output.content == "two"
    assert "<session_summary>\nfirst summary\n</session_summary>" in (
        model.requests[1].messages[0].content or ""
    )
    assert "first summary" in (writer.requests[1].messages[1].content or "")
    session = await agent.aget_session()
    assert session is not None
    assert session.summary == "second summary"
    assert output.metrics.requests == 2


async def test_a_program_that_names_nothing_finds_its_history_again(tmp_path: Path) -> None:
    """An agent without a name has another id in each process; the session is the same."""
    for number in range(2):
        model = ScriptedModel([f"Answer {number}."])
        agent = Agent(
            model=model,
            db=SqliteDb(tmp_path / "a.db"),
            session_id="chat",
            add_history_to_context=True,
            introduction="Hello.",
        )
        await agent.arun(f"Question {number}")
    said = [message.content for message in model.requests[0].messages]
    assert said == ["Hello.", "Question 0", "Answer 0.", "Question 1"]


async def test_a_session_goes_from_an_agent_to_a_team_with_its_history() -> None:
    db = InMemoryDb()
    await Agent(name="Clerk", model=ScriptedModel(["It is red."]), db=db, session_id="a").arun("Which?")
    model = ScriptedModel(["I said red."])
    await Team([], model=model, db=db, session_id="a", add_history_to_context=True).arun("What was it?")
    assert [message.content for message in model.requests[0].messages] == [
        "Which?",
        "It is red.",
        "What was it?",
    ]
