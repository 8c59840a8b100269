# mypy: ignore-errors
# What it imports is installed in an environment of its own.
"""pydantic-ai: agents whose tools delegate to agents, state in the dependencies; it stores no sessions."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from pydantic_ai import Agent, RunContext
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from benchmarks.contenders import Job, Setup, expect

MISSING = {"session": "pydantic-ai stores no sessions"}


@dataclass
class State:
    count: int = 0
    notes: list[str] = field(default_factory=list)


async def add_item(item: str) -> str:
    """Add an item to the list."""
    return f"added {item}"


async def count(context: RunContext[State]) -> str:
    """Count one more."""
    context.deps.count += 1
    return f"{context.deps.count}"


def _model(setup: Setup, name: str = "") -> OpenAIChatModel:
    provider = OpenAIProvider(base_url=setup.base_url, api_key="none")
    return OpenAIChatModel(name or setup.model, provider=provider)


def construct(setup: Setup) -> Job:
    model = _model(setup)

    async def run(number: int) -> Any:
        return Agent(model, name="Lister", instructions="Keep the list.", tools=[add_item])

    return Job(run)


def tool_run(setup: Setup) -> Job:
    agent = Agent(_model(setup), tools=[add_item])

    async def run(number: int) -> None:
        result = await agent.run("Add milk to my list.")
        expect(result.output, "done")

    return Job(run)


def stream(setup: Setup) -> Job:
    agent = Agent(_model(setup))

    async def run(number: int) -> float:
        started, first, pieces = time.perf_counter(), 0.0, 0
        async with agent.run_stream("Talk.") as result:
            async for _ in result.stream_text(delta=True, debounce_by=None):
                first = first or time.perf_counter() - started
                pieces += 1
        expect(pieces, setup.count)
        return first

    return Job(run)


def team(setup: Setup) -> Job:
    model = _model(setup, f"tool@{setup.model.partition('@')[2]}")
    leader = Agent(_model(setup), deps_type=State)
    for number in range(setup.count):
        _add_member(leader, Agent(model, deps_type=State, tools=[count]), f"member_{number}")

    async def run(number: int) -> None:
        state = State()
        result = await leader.run("Count, all of you.", deps=state)
        expect(result.output, "done")
        expect(state.count, setup.count)

    return Job(run)


def _add_member(leader: Agent[State, str], member: Agent[State, str], name: str) -> None:
    async def delegate(context: RunContext[State], task: str) -> str:
        return (await member.run(task, deps=context.deps, usage=context.usage)).output

    leader.tool(delegate, name=name)


def state(setup: Setup) -> Job:
    agent = Agent(_model(setup), deps_type=State, tools=[count])
    kept = State(notes=["x" * 80] * (setup.size // 84))

    async def run(number: int) -> None:
        result = await agent.run("Count.", deps=kept)
        expect(result.output, "done")

    async def final() -> int:
        return kept.count

    return Job(run, final)
