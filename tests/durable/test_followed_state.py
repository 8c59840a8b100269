"""A follower that applies the patches has the session state of the run, whatever interrupted the run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunContext, Team, tool
from kern.db import Db, InMemoryDb, SqliteDb
from kern.durable import DbJournal
from kern.run.events import RunContinuedEvent, RunStartedEvent, SessionStateChangedEvent
from kern.run.output import AnyRunOutput
from kern.state.patch import apply
from kern.testing import ScriptedModel, tool_call


@pytest.fixture(params=["memory", "sqlite"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> Db:
    return InMemoryDb() if request.param == "memory" else SqliteDb(tmp_path / "s.db")


class Sums:
    """Adds numbers to a list, one after a person's consent; it stands still where it is told to."""

    def __init__(self, db: Db, *answers: Any, waits: bool = False, as_team: bool = False) -> None:
        self.waits = asyncio.Event()

        @tool(effect="idempotent")
        def add(run_context: RunContext, n: int) -> str:
            """Add."""
            run_context.session_state["items"].append(n)
            return "added"

        @tool(effect="idempotent", requires_confirmation=True)
        def add_confirmed(run_context: RunContext, n: int) -> str:
            """Add."""
            run_context.session_state["items"].append(n)
            return "added"

        @tool(effect="idempotent")
        async def rest() -> str:
            """Rest."""
            if waits:
                self.waits.set()
                await asyncio.sleep(60)
            return "rested"

        tools, model = [add, add_confirmed, rest], ScriptedModel(list(answers))
        store: dict[str, Any] = {"db": db, "journal": DbJournal(db), "session_state": {"items": []}}
        self.agent: Agent | Team = Agent(id="m", model=model, tools=tools, **({} if as_team else store))
        if as_team:
            lead = (
                [tool_call("delegate_task_to_member", member_id="m", task="go")] if len(answers) > 1 else []
            )
            self.agent = Team([self.agent], id="t", model=ScriptedModel([*lead, "all done"]), **store)

    async def interrupted(self, running: Any) -> None:
        """Interrupt the run where its tool rests."""
        task = asyncio.create_task(running)
        await asyncio.wait_for(self.waits.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def follow(agent: Agent | Team) -> tuple[Any, list[tuple[str, int | None]]]:
    """Follow the run from its first event. Return its state by the patches, and the revisions."""
    state: Any = None
    seen: list[tuple[str, int | None]] = []
    async for event in agent.follow("r"):
        if isinstance(event, RunStartedEvent | RunContinuedEvent) and event.source.nested_depth == 0:
            state = event.session_state
        elif isinstance(event, SessionStateChangedEvent):
            state = apply(state, event.patch)
        else:
            continue
        seen.append((event.event.removeprefix("Team"), event.revision))
    return state, seen


async def by_a_call(sums: Callable[..., Sums]) -> AnyRunOutput:
    first = sums(tool_call("add", n=5), tool_call("add", n=7), tool_call("rest"), waits=True)
    await first.interrupted(first.agent.arun("go", session_id="s", run_id="r"))
    return await sums("done").agent.arun("go", session_id="s", run_id="r")


async def in_its_continuation(sums: Callable[..., Sums]) -> AnyRunOutput:
    first = sums(tool_call("add", n=5), tool_call("add_confirmed", n=7), tool_call("rest"), waits=True)
    paused = await first.agent.arun("go", session_id="s", run_id="r")
    paused.requirements[0].confirm()
    await first.interrupted(first.agent.acontinue_run(paused))
    return await sums("done").agent.arun("go", session_id="s", run_id="r")


@pytest.mark.parametrize("as_team", [False, True], ids=["agent", "team"])
@pytest.mark.parametrize("run", [by_a_call, in_its_continuation])
async def test_a_follower_that_applies_the_patches_has_the_state_of_a_resumed_run(
    db: Db, run: Callable[[Callable[..., Sums]], Any], as_team: bool
) -> None:
    def sums(*answers: Any, waits: bool = False) -> Sums:
        return Sums(db, *answers, waits=waits, as_team=as_team)

    output = await run(sums)
    state, seen = await follow(sums().agent)
    assert state == output.session_state == {"items": [5, 7]}
    resumed = [("RunContinued", 2)]
    paused = [("RunContinued", 1)] if run is in_its_continuation else []
    changes = [("SessionStateChanged", 1), *paused, ("SessionStateChanged", 2)]
    assert seen == [("RunStarted", 0), *changes, *resumed]
