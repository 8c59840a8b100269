"""Half of a surrogate pair, as in a file name that is not UTF-8: the caller gets the text that is stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, Message, RetryAgentRun, StopAgentRun, tool
from kern.db import SqliteDb
from kern.run import RunOutput
from kern.testing import ScriptedModel, tool_call

HALF, MENDED = "caf\udce9.txt", "caf\ufffd.txt"


@tool
def returns() -> str:
    """List."""
    return HALF


@tool
def returns_data() -> dict[str, str]:
    """List."""
    return {HALF: HALF}


@tool
def fails() -> str:
    """List."""
    raise OSError(HALF)


@tool
def sends_back() -> str:
    """List."""
    raise RetryAgentRun(HALF)


@tool
def stops() -> str:
    """List."""
    raise StopAgentRun(HALF)


@tool(show_result=True, stop_after_tool_call=True)
def answers() -> str:
    """List."""
    return HALF


@tool(show_result=True, stop_after_tool_call=True)
def generates() -> Any:
    """List."""
    yield "a \ud83d"
    yield "\ude00 b \udce9"


def sent(data: Any) -> str:
    """The JSON as a web framework sends it."""
    return json.dumps(data, ensure_ascii=False).encode().decode()


TOOLS = [returns, returns_data, fails, sends_back, stops, answers, generates]


@pytest.mark.parametrize("asked", TOOLS, ids=lambda each: each.name)
async def test_what_a_tool_says_is_for_the_caller_as_it_is_stored(asked: Any, tmp_path: Path) -> None:
    db = SqliteDb(tmp_path / "a.db")
    agent = Agent(model=ScriptedModel([tool_call(asked.name), "done"]), tools=TOOLS, db=db, store_events=True)
    events = []
    async with agent.arun("x", session_id="s", run_id="r", stream=True, stream_events=True) as stream:
        async for event in stream:
            events.append(sent(event.to_dict()))
    output = stream.output
    assert output is not None
    assert "\ufffd" in sent(output.to_dict()) + "".join(events)
    stored = await agent.aget_run_output("r")
    assert isinstance(stored, RunOutput)
    assert [call.result for call in stored.tools] == [call.result for call in output.tools]
    assert [(m.role, m.content) for m in stored.messages] == [(m.role, m.content) for m in output.messages]
    assert stored.content == output.content
    await db.aclose()


@pytest.mark.parametrize(
    "given",
    [HALF, Message("user", HALF), [Message("user", HALF)], [HALF, "b"], {"name": HALF}],
    ids=["text", "message", "messages", "texts", "data"],
)
async def test_what_a_user_says_is_for_the_caller_as_it_is_stored(given: Any, tmp_path: Path) -> None:
    db = SqliteDb(tmp_path / "a.db")
    agent = Agent(model=ScriptedModel(["done"]), db=db)
    output = await agent.arun(given, session_id="s", run_id="r", metadata={"from": HALF})
    assert MENDED in sent(output.to_dict())
    stored = await agent.aget_run_output("r")
    assert isinstance(stored, RunOutput)
    assert stored.input == output.input
    assert [m.content for m in stored.messages] == [m.content for m in output.messages]
    assert HALF not in str(output.messages[0].content)
    await db.aclose()


async def test_a_message_that_the_application_keeps_is_not_changed() -> None:
    mine = Message("user", HALF)
    await Agent(model=ScriptedModel(["done"])).arun(mine)
    assert mine.content == HALF


async def test_an_answer_of_a_model_of_the_application_can_be_sent() -> None:
    output = await Agent(model=ScriptedModel([HALF])).arun("x")
    assert MENDED in sent(output.to_dict())
