"""A run that has ended is freed at once: it leaves no reference cycles to the garbage collector."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from kern import Agent, RunContext, Team
from kern.testing import FunctionModel, tool_call
from tests.garbage import garbage_of_block


async def _left_by(run: Callable[[], Awaitable[Any]]) -> list[str]:
    """The types of Kern's objects that only the garbage collector can free after a run."""
    for _ in range(3):  # the first runs fill caches
        await run()
    with garbage_of_block() as garbage:
        await run()
    return [type(left).__name__ for left in garbage if type(left).__module__.startswith("kern.")]


async def count_up(run_context: RunContext) -> str:
    """Count."""
    run_context.session_state["n"] = run_context.session_state.get("n", 0) + 1
    return "ok"


async def test_a_run_with_a_tool_call_leaves_no_garbage() -> None:
    model = FunctionModel(lambda ask: "Hello." if ask.messages[-1].role == "tool" else tool_call("count_up"))
    agent = Agent(model=model, tools=[count_up])

    assert await _left_by(lambda: agent.arun("Hi", session_id="s")) == []


async def test_a_run_of_a_team_leaves_no_garbage() -> None:
    clerk = Agent(model=FunctionModel(lambda ask: "Done."), id="clerk")
    work = tool_call("delegate_task_to_member", member_id="clerk", task="work")
    lead = FunctionModel(lambda ask: "Done." if ask.messages[-1].role == "tool" else work)
    team = Team(model=lead, members=[clerk])

    assert await _left_by(lambda: team.arun("Hi", session_id="s")) == []


async def test_a_streamed_run_leaves_no_garbage() -> None:
    agent = Agent(model=FunctionModel(lambda ask: "one two three"))

    async def run() -> None:
        async with agent.arun("Hi", stream=True, session_id="s") as events:
            async for _ in events:
                pass

    assert await _left_by(run) == []
