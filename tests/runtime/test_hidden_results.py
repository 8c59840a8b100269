"""`show_result=False`: the result of a tool that ends the run is for the program, not for the user."""

from __future__ import annotations

import pytest

from kern import Agent, RunStatus, tool
from kern.db import InMemoryDb
from kern.durable import DbJournal
from kern.errors import StopAgentRun
from kern.run.events import RunContentEvent
from kern.testing import ScriptedModel, tool_call


@pytest.mark.parametrize(
    ("show", "stop", "said"),
    [
        (None, True, "RESULT"),
        (True, True, "RESULT"),
        (False, True, ""),
        (None, False, "after"),
        (True, False, "RESULT\n\nafter"),
        (False, False, "after"),
    ],
)
@pytest.mark.parametrize("journal", [False, True])
async def test_only_what_is_shown_is_content_streamed_and_stored(
    show: bool | None, stop: bool, said: str, journal: bool
) -> None:
    @tool(stop_after_tool_call=stop, show_result=show)
    def look() -> str:
        return "RESULT"

    db = InMemoryDb()
    agent = Agent(
        model=ScriptedModel([tool_call("look"), "after", tool_call("look"), "after"]),
        tools=[look],
        db=db,
        session_id="s",
        journal=DbJournal(db) if journal else None,
    )
    events = [event async for event in agent.arun("q", stream=True)]
    assert "".join(event.content for event in events if isinstance(event, RunContentEvent)) == said
    agent.model = ScriptedModel([tool_call("look"), "after"])
    output = await agent.arun("q")
    assert (output.content, output.status) == (said, RunStatus.completed)
    assert output.tools[0].result == "RESULT"
    stored = await agent.aget_run_output(output.run_id)
    assert stored is not None
    assert stored.content == said


async def test_the_text_of_stop_agent_run_is_shown() -> None:
    @tool(show_result=False, stop_after_tool_call=True)
    def look() -> str:
        raise StopAgentRun("enough")

    output = await Agent(model=ScriptedModel([tool_call("look")]), tools=[look]).arun("q")
    assert output.content == "enough"
