"""The test server says what a model says beside its answer, and ends answers with any word."""

from __future__ import annotations

from typing import Any

import pytest

from kern import Agent
from kern.errors import ModelStreamError
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.run.events import RunIntermediateContentEvent
from kern.testing import Answer, ModelServer, tool_call


def look() -> str:
    """Look."""
    return "there"


@pytest.mark.parametrize("stream", [True, False])
async def test_commentary_goes_out_apart_from_the_answer_and_comes_back_in_its_place(stream: bool) -> None:
    script = [
        Answer(commentary="I look first.", tool_calls=[tool_call("look")]),
        Answer("It is there.", commentary="Found."),
        "Bye.",
    ]
    async with ModelServer(script) as server:
        model = OpenAIResponses("m", base_url=server.base_url, api_key="any")
        agent = Agent(model=model, tools=[look], add_history_to_context=True)
        aside: list[str] = []
        if stream:
            async with agent.arun("Where?", stream=True, stream_events=True, yield_run_output=True) as events:
                *seen, output = [event async for event in events]
            aside = [event.content for event in seen if isinstance(event, RunIntermediateContentEvent)]
        else:
            output = await agent.arun("Where?")
        assert output.content == "It is there."
        assert [m.commentary for m in output.messages if m.role == "assistant"] == ["I look first.", "Found."]
        assert "".join(aside) == ("I look first.Found." if stream else "")
        received = server.requests[1].messages
        assert next(m.commentary for m in received if m.role == "assistant") == "I look first."
        phases = [item.get("phase") for item in server.requests[1].body["input"]]
        assert "commentary" in phases


@pytest.mark.parametrize("stream", [True, False])
async def test_a_chat_model_gets_commentary_as_text(stream: bool) -> None:
    async with ModelServer([Answer("Yes.", commentary="Well.")]) as server:
        agent = Agent(model=OpenAIChat("m", base_url=server.base_url, api_key="any"))
        assert (await agent.arun("Hi")).content == "Well.\n\nYes."


@pytest.mark.parametrize("make", [OpenAIChat, OpenAIResponses])
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_ends_with_the_word_that_the_script_says(make: Any, stream: bool) -> None:
    async with ModelServer([Answer("Half", finish_reason="abort")]) as server:
        agent = Agent(model=make("m", base_url=server.base_url, api_key="any", max_retries=0))
        with pytest.raises(ModelStreamError, match="abort"):
            if stream:
                async with agent.arun("Hi", stream=True) as events:
                    _ = [event async for event in events]
            else:
                await agent.arun("Hi")
