"""However a run ended, a server that refuses what OpenAI refuses takes the conversation that it leaves."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from kern import Agent, StopAgentRun, Team, tool
from kern.errors import KernError, OutputCheckError
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.run import RunOutput
from kern.testing import Answer, Fault, ModelServer, tool_call
from tests.clock import LONG, pass_time


def charge() -> str:
    """Charge the card."""
    return "receipt R-1"


async def wait() -> str:
    """Wait."""
    pass_time()
    await asyncio.Event().wait()
    return "never"


@tool(stop_after_tool_call=True)
def add_up() -> str:
    """Add up."""
    return "The total is 7."


@tool(requires_confirmation=True)
def send() -> str:
    """Send it."""
    return "sent"


def give_up() -> str:
    """Stop."""
    raise StopAgentRun("That is all.")


TOOLS: list[Any] = [charge, wait, add_up, send, give_up]


def calling(text: str, *names: str) -> Answer:
    return Answer(text, tool_calls=[tool_call(name) for name in names], reasoning="I think.")


ENDINGS: dict[str, list[Any]] = {
    "a tool ends it": [calling("So:", "add_up")],
    "StopAgentRun": [calling("So:", "charge", "give_up")],
    "it fails after a call": [calling("So:", "charge"), Fault.status(400)],
    "it breaks off": [calling("So:", "charge"), Answer("one two three", fault=Fault.cut(2))],
    "it is cut at a limit": [Answer("one two three", reasoning="I think.", fault=Fault.incomplete(4))],
    "its time is up in a call": [calling("So:", "charge", "wait")],
    "it waits for a person": [calling("So:", "charge", "send")],
    "its answer is refused": [calling("So:", "charge"), "rude"],
    "it fails before anything": [Fault.status(400)],
}


@pytest.mark.parametrize("protocol", [OpenAIChat, OpenAIResponses])
@pytest.mark.parametrize("ending", ENDINGS)
async def test_the_next_request_is_taken(ending: str, protocol: Any) -> None:
    def polite(run_output: RunOutput) -> None:
        if "rude" in run_output.content:
            raise OutputCheckError("no")

    async with ModelServer([*ENDINGS[ending], calling("Again:", "charge"), "fine", "still fine"]) as server:
        model = protocol("gpt-5.2", base_url=server.base_url, api_key="any", max_retries=0)
        agent = Agent(model=model, tools=TOOLS, post_hooks=[polite], add_history_to_context=True)
        with suppress(KernError):
            async with agent.arun("q1", stream=True, timeout=LONG if "time" in ending else None) as events:
                [event async for event in events]
        assert (await agent.arun("q2")).content == "Again:\n\nfine"
        assert (await agent.arun("q3")).content == "still fine"
        first = server.requests[-1].messages[0].content or ""
        wanted = {"it fails before anything": "q2", "its answer is refused": "[A request whose answer was"}
        assert first.startswith(wanted.get(ending, "q1"))


@pytest.mark.parametrize("protocol", [OpenAIChat, OpenAIResponses])
async def test_a_routed_answer_is_taken(protocol: Any) -> None:
    delegation = tool_call("delegate_task_to_member", member_id="b", task="x")
    answers = [Answer("b knows.", tool_calls=[delegation], reasoning="I think."), "It is 3.", "fine"]
    async with ModelServer(answers) as server:
        model = protocol("gpt-5.2", base_url=server.base_url, api_key="any", max_retries=0)
        team = Team([Agent(name="b")], model=model, mode="route", add_history_to_context=True)
        assert (await team.arun("q1")).content == "b knows.\n\nIt is 3."
        assert (await team.arun("q2")).content == "fine"
        told = [m.content for m in server.requests[-1].messages if m.role == "assistant" and m.content]
        assert told == ["b knows.", "It is 3."]
