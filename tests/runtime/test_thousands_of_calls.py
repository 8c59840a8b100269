"""A model that makes thousands of calls in one turn does not keep the event loop to itself."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from kern import Agent
from kern.models import ModelResponse
from kern.testing import ScriptedModel, tool_call


async def test_others_go_on_between_the_calls_of_a_turn() -> None:
    steps = 0
    begun_at: list[int] = []

    async def note() -> str:
        begun_at.append(steps)
        return "noted"

    async def others() -> None:
        nonlocal steps
        while True:
            await asyncio.sleep(0)
            steps += 1

    calls = ModelResponse.of(None, *(tool_call("note") for _ in range(1_500)))
    agent = Agent(model=ScriptedModel([calls, "Done."]), tools=[note])
    ticking = asyncio.create_task(others())
    output = await agent.arun("go")
    ticking.cancel()
    assert output.content == "Done."
    assert len(begun_at) == 1_500
    at_once = max(begun_at.count(step) for step in set(begun_at))
    assert at_once <= 128, "calls that have begun in one step of the loop"
    assert all(before <= after for before, after in pairwise(begun_at))
