# mypy: ignore-errors
# What it imports is installed in an environment of its own.
"""Agno: agents and teams with its own session state and its own asynchronous SQLite database."""

from __future__ import annotations

import time
from typing import Any

from agno.agent import Agent
from agno.db.sqlite import AsyncSqliteDb
from agno.models.openai import OpenAIChat
from agno.run import RunContext
from agno.team import Team

from benchmarks.contenders import Job, Setup, expect


async def add_item(item: str) -> str:
    """Add an item to the list."""
    return f"added {item}"


async def count(run_context: RunContext) -> str:
    """Count one more."""
    state = run_context.session_state
    assert state is not None
    state["count"] = state.get("count", 0) + 1
    return f"{state['count']}"


def _model(setup: Setup, name: str = "") -> OpenAIChat:
    return OpenAIChat(id=name or setup.model, base_url=setup.base_url, api_key="none")


def construct(setup: Setup) -> Job:
    model = _model(setup)

    async def run(number: int) -> Agent:
        return Agent(
            name="Lister", model=model, instructions="Keep the list.", tools=[add_item], telemetry=False
        )

    return Job(run)


def tool_run(setup: Setup) -> Job:
    agent = Agent(model=_model(setup), tools=[add_item], telemetry=False)

    async def run(number: int) -> None:
        output = await agent.arun("Add milk to my list.", session_id=f"session-{number}")
        expect(output.content, "done")

    return Job(run)


def stream(setup: Setup) -> Job:
    agent = Agent(model=_model(setup), telemetry=False)

    async def run(number: int) -> float:
        started, first, pieces = time.perf_counter(), 0.0, 0
        async for event in agent.arun("Talk.", stream=True, session_id=f"session-{number}"):
            if event.event == "RunContent" and event.content:
                first = first or time.perf_counter() - started
                pieces += 1
        expect(pieces, setup.count)
        return first

    return Job(run)


def team(setup: Setup) -> Job:
    latency = setup.model.partition("@")[2]
    members: list[Any] = [
        Agent(
            name=f"member-{number}",
            id=f"member-{number}",
            role="Counts.",
            model=_model(setup, f"tool@{latency}"),
            tools=[count],
            telemetry=False,
        )
        for number in range(setup.count)
    ]
    leader = Team(members=members, model=_model(setup), telemetry=False)

    async def run(number: int) -> None:
        output = await leader.arun("Count, all of you.", session_id=f"session-{number}", session_state={})
        expect(output.content, "done")

    return Job(run)


def session(setup: Setup) -> Job:
    db = AsyncSqliteDb(db_file=f"{setup.folder}/sessions.db")
    agent = Agent(model=_model(setup), tools=[count], db=db, telemetry=False)

    async def run(number: int) -> None:
        output = await agent.arun("Count.", session_id="the-one")
        expect(output.content, "done")

    async def final() -> Any:
        return (await agent.aget_session_state(session_id="the-one"))["count"]

    return Job(run, final)


def state(setup: Setup) -> Job:
    notes = ["x" * 80] * (setup.size // 84)
    initial = {"count": 0, "notes": notes}
    agent = Agent(model=_model(setup), tools=[count], session_state=initial, telemetry=False)

    async def run(number: int) -> None:
        output = await agent.arun("Count.", session_id=f"session-{number}")
        expect(output.content, "done")

    return Job(run)
