# mypy: ignore-errors
# What it imports is installed in an environment of its own.
"""The OpenAI Agents SDK: agents as tools, state in the context, history in its own SQLite session."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    RunContextWrapper,
    Runner,
    SQLiteSession,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI

from benchmarks.contenders import Job, Setup, expect

set_tracing_disabled(True)


@dataclass
class State:
    count: int = 0
    notes: list[str] = field(default_factory=list)


@function_tool
async def add_item(item: str) -> str:
    """Add an item to the list."""
    return f"added {item}"


@function_tool
async def count(context: RunContextWrapper[State]) -> str:
    """Count one more."""
    context.context.count += 1
    return f"{context.context.count}"


def _model(setup: Setup, name: str = "") -> OpenAIChatCompletionsModel:
    client = AsyncOpenAI(base_url=setup.base_url, api_key="none")
    return OpenAIChatCompletionsModel(name or setup.model, client)


def construct(setup: Setup) -> Job:
    model = _model(setup)

    async def run(number: int) -> Any:
        return Agent(name="Lister", model=model, instructions="Keep the list.", tools=[add_item])

    return Job(run)


def tool_run(setup: Setup) -> Job:
    agent = Agent(name="Lister", model=_model(setup), tools=[add_item])

    async def run(number: int) -> None:
        result = await Runner.run(agent, "Add milk to my list.")
        expect(result.final_output, "done")

    return Job(run)


def stream(setup: Setup) -> Job:
    agent = Agent(name="Talker", model=_model(setup))

    async def run(number: int) -> float:
        started, first, pieces = time.perf_counter(), 0.0, 0
        result = Runner.run_streamed(agent, "Talk.")
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                first = first or time.perf_counter() - started
                pieces += 1
        expect(pieces, setup.count)
        return first

    return Job(run)


def team(setup: Setup) -> Job:
    model = _model(setup, f"tool@{setup.model.partition('@')[2]}")
    tools: list[Any] = [
        Agent[State](name=f"member_{number}", model=model, tools=[count]).as_tool(
            f"member_{number}", "Counts."
        )
        for number in range(setup.count)
    ]
    leader = Agent[State](name="Leader", model=_model(setup), tools=tools)

    async def run(number: int) -> None:
        state = State()
        result = await Runner.run(leader, "Count, all of you.", context=state)
        expect(result.final_output, "done")
        expect(state.count, setup.count)

    return Job(run)


def session(setup: Setup) -> Job:
    """Its session keeps the conversation, and sends all of it with each run; state is not kept."""
    agent = Agent(name="Lister", model=_model(setup), tools=[add_item])
    kept = SQLiteSession("the-one", f"{setup.folder}/sessions.db")

    async def run(number: int) -> None:
        result = await Runner.run(agent, "Add milk.", session=kept)
        expect(result.final_output, "done")

    return Job(run)


def state(setup: Setup) -> Job:
    agent = Agent[State](name="Counter", model=_model(setup), tools=[count])
    kept = State(notes=["x" * 80] * (setup.size // 84))

    async def run(number: int) -> None:
        result = await Runner.run(agent, "Count.", context=kept)
        expect(result.final_output, "done")

    async def final() -> int:
        return kept.count

    return Job(run, final)
