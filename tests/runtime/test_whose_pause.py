"""A paused run is continued by the agent or team that made it, and cancelled as a whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, CancelResult, RunStatus, Team, tool
from kern.db import Db
from kern.durable import DbJournal
from kern.errors import UsageError
from kern.models.base import ModelRequest, ModelResponse
from kern.testing import FunctionModel, tool_call
from tests.databases import KINDS, opener


@pytest.fixture(params=KINDS)
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Db]:
    db = opener(request, tmp_path)()
    yield db
    await db.aclose()


class Desk:
    """An agent, or a team of one, that asks before it refunds."""

    def __init__(self, db: Db, name: str | None, *, team: bool = False) -> None:
        self.called: list[str | None] = []

        @tool(requires_confirmation=True)
        def refund(amount: int) -> str:
            """Refund."""
            self.called.append(name)
            return "refunded"

        def answer(request: ModelRequest) -> ModelResponse | str:
            return "done" if request.messages[-1].role == "tool" else tool_call("refund", amount=20)

        def lead(request: ModelRequest) -> ModelResponse | str:
            if request.messages[-1].role == "tool":
                return "done"
            return tool_call("delegate_task_to_member", member_id="m", task="refund")

        agent = Agent(
            id="m" if team else name, model=FunctionModel(answer), tools=[refund], db=None if team else db
        )
        self.runner: Any = agent
        if team:
            self.runner = Team(id=name, members=[agent], model=FunctionModel(lead), db=db)


@pytest.mark.parametrize("team", [False, True])
@pytest.mark.parametrize("journaled", [False, True])
@pytest.mark.parametrize("door", ["output", "run_id", "journal", "astart"])
async def test_another_one_does_not_continue_it(db: Db, team: bool, journaled: bool, door: str) -> None:
    eu, us = Desk(db, "eu", team=team), Desk(db, "us", team=team)
    paused = await eu.runner.arun("Refund", journal=DbJournal(db) if journaled else None)
    paused.requirements[0].confirm()

    async def go_on(desk: Desk) -> Any:
        if door == "astart":
            return await (await desk.runner.astart_continuation(paused)).result()
        if door == "run_id":
            return await desk.runner.acontinue_run(run_id=paused.run_id, requirements=paused.requirements)
        return await desk.runner.acontinue_run(paused, journal=DbJournal(db) if door == "journal" else None)

    with pytest.raises(UsageError, match=r"of 'eu', and 'us' cannot continue it"):
        await go_on(us)
    assert us.called == []
    assert (await go_on(eu)).content == "done"
    assert eu.called == ["eu"]


async def test_one_without_a_name_continues_a_run_of_one_without_a_name(db: Db) -> None:
    first, again = Desk(db, None), Desk(db, None)
    paused = await first.runner.arun("Refund")
    paused.requirements[0].confirm()
    assert (await again.runner.acontinue_run(paused)).content == "done"


async def test_a_paused_members_run_is_cancelled_with_its_teams_run(db: Db) -> None:
    desk = Desk(db, "eu", team=True)
    paused = await desk.runner.arun("Refund", run_id="R")
    (asked,) = paused.requirements
    assert asked.run_id != "R"
    with pytest.raises(UsageError, match="paused as a part of run 'R': cancel that one"):
        await desk.runner.acancel_run(asked.run_id)
    assert await desk.runner.acancel_run("R") is CancelResult.cancelled
    assert await desk.runner.acancel_run(asked.run_id) is CancelResult.too_late
    output = await desk.runner.aget_run_output("R")
    assert (output.status, desk.called) == (RunStatus.cancelled, [])


async def test_a_paused_members_run_is_asked_to_stop_while_another_process_continues_its_team(
    db: Db,
) -> None:
    if not db.shared:
        pytest.skip("one process")
    desk = Desk(db, "eu", team=True)
    paused = await desk.runner.arun("Refund", run_id="R")
    claimed: Any = db
    assert await claimed.claim_run("R", "another process", 60.0)
    assert await desk.runner.acancel_run(paused.requirements[0].run_id) is CancelResult.requested
