"""Kern."""

from __future__ import annotations

import json
import time
from typing import Any

from benchmarks.contenders import Job, Setup, expect
from kern import Agent, RunContext, Team
from kern.db.sqlite import SqliteDb
from kern.models.base import Model
from kern.models.openai import OpenAIChat, OpenAIResponses

PACKAGES = ("kern",)


async def add_item(item: str) -> str:
    """Add an item to the list."""
    return f"added {item}"


async def count(run_context: RunContext) -> str:
    """Count one more."""
    state = run_context.session_state
    state["count"] = state.get("count", 0) + 1
    return f"{state['count']}"


def _model(setup: Setup, name: str = "") -> Model:
    kind = OpenAIChat if setup.protocol == "chat" else OpenAIResponses
    return kind(name or setup.model, base_url=setup.base_url, api_key="none")


def construct(setup: Setup) -> Job:
    model = _model(setup)

    async def run(number: int) -> Agent:
        return Agent(name="Lister", model=model, instructions="Keep the list.", tools=[add_item])

    return Job(run)


def tool_run(setup: Setup) -> Job:
    agent = Agent(model=_model(setup), tools=[add_item])

    async def run(number: int) -> None:
        output = await agent.arun("Add milk to my list.", session_id=f"session-{number}")
        expect(output.content, "done")

    return Job(run)


def stream(setup: Setup) -> Job:
    agent = Agent(model=_model(setup))

    async def run(number: int) -> float:
        started, first, pieces = time.perf_counter(), 0.0, 0
        async for _ in agent.arun("Talk.", stream=True, session_id=f"session-{number}"):
            first = first or time.perf_counter() - started
            pieces += 1
        expect(pieces, setup.count)
        return first

    return Job(run)


def team(setup: Setup) -> Job:
    member_model = _model(setup, f"tool@{setup.model.partition('@')[2]}")
    members: list[Any] = [
        Agent(name=f"member-{number}", role="Counts.", model=member_model, tools=[count])
        for number in range(setup.count)
    ]
    leader = Team(members=members, model=_model(setup))

    async def run(number: int) -> None:
        output = await leader.arun("Count, all of you.", session_id=f"session-{number}")
        expect(output.content, "done")
        expect((output.session_state or {}).get("count"), setup.count)

    return Job(run)


def session(setup: Setup) -> Job:
    agent = Agent(model=_model(setup), tools=[count], db=SqliteDb(f"{setup.folder}/sessions.db"))

    async def run(number: int) -> None:
        await agent.arun("Count.", session_id="the-one")

    async def final() -> Any:
        return (await agent.aget_session_state("the-one"))["count"]

    return Job(run, final)


def state(setup: Setup) -> Job:
    notes = ["x" * 80] * (setup.size // 84)
    agent = Agent(model=_model(setup), tools=[count], session_state={"count": 0, "notes": notes})
    expect(abs(len(json.dumps(notes)) - setup.size) < 100, True)

    async def run(number: int) -> None:
        await agent.arun("Count.")

    async def final() -> Any:
        return (await agent.aget_session_state())["count"]

    return Job(run, final)
