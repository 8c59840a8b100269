"""A row of steps that is missing from a damaged database is noticed before anything is done again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunContext, RunStatus, Team, tool
from kern.db import SqliteDb
from kern.db.base import Db
from kern.db.journals import JournalDb, StepRow
from kern.durable import DbJournal
from kern.durable.journal import Entry
from kern.durable.numbered import check_numbers, numbered
from kern.errors import KernError, StoreError
from kern.models.base import ModelRequest, ModelResponse
from kern.testing import FunctionModel, tool_call
from tests.databases import ask


class Desk:
    """An agent, or a team of one, whose run dies in its second payment: `calls` has the calls."""

    def __init__(self, db: Db, *, team: bool) -> None:
        self.calls: list[str] = []
        self.dies = asyncio.Event()
        self._dying = False
        assert isinstance(db, JournalDb)
        journal = DbJournal(db)
        clerk = FunctionModel(self.play)
        tools = [tool(self.look, effect="read"), tool(self.pay, effect="once")]
        member = Agent(id="a", model=clerk, tools=tools, db=None if team else db)
        self.runner: Agent | Team = member
        if team:
            self.runner = Team([member], id="t", model=FunctionModel(lead), db=db, journal=journal)
        else:
            member.journal = journal

    async def look(self, run_context: RunContext) -> str:
        run_context.session_state["looked"] = True
        self.calls.append("look")
        return "seen"

    async def pay(self, run_context: RunContext, amount: int) -> str:
        run_context.session_state["paid"] = run_context.session_state.get("paid", 0) + amount
        self.calls.append(f"pay {amount}")
        if self._dying and amount == 2:
            self.dies.set()
            await asyncio.sleep(60)
        return "paid"

    def play(self, request: ModelRequest) -> Any:
        results = sum(message.role == "tool" for message in request.messages)
        if results == 0:
            return ModelResponse.of(None, tool_call("pay", amount=1), tool_call("look"))
        return tool_call("pay", amount=2) if results == 2 else "done"

    async def die(self) -> None:
        """Begin the run, and leave it in the middle of the second payment."""
        self._dying = True
        running = asyncio.create_task(self.runner.arun("q", session_id="s", run_id="R"))
        await self.dies.wait()
        running.cancel()
        await asyncio.wait([running])


def lead(request: ModelRequest) -> Any:
    if request.messages[-1].role == "tool":
        return "led"
    return tool_call("delegate_task_to_member", member_id="a", task="go")


@pytest.mark.parametrize("team", [False, True], ids=["agent", "team"])
async def test_a_step_that_is_missing_is_said_at_once(tmp_path: Path, team: bool) -> None:
    place = str(tmp_path / "a.db")
    db = SqliteDb(place)
    await Desk(db, team=team).die()
    rows = ask(place, "SELECT seq FROM {t}_steps ORDER BY seq").split("\n")
    assert len(rows) > 6
    ask(place, "CREATE TABLE kept AS SELECT * FROM {t}_steps")
    for row in rows[:-1]:  # nobody can know that a last one is missing: it may not have been written
        ask(place, f"DELETE FROM {{t}}_steps WHERE seq = {row}")
        desk = Desk(db, team=team)
        with pytest.raises(StoreError, match=r"a recorded step of run 'R' is missing.*forget\('R'\)"):
            await desk.runner.arun("q", session_id="s", run_id="R")
        assert desk.calls == []
        assert await DbJournal(db).unfinished() == ["R"]
        ask(place, "DELETE FROM {t}_steps")
        ask(place, "INSERT INTO {t}_steps SELECT * FROM kept")
    desk = Desk(db, team=team)
    output = await desk.runner.arun("q", session_id="s", run_id="R")
    assert (output.status, [asked.kind for asked in output.requirements]) == (RunStatus.paused, ["in_doubt"])
    assert desk.calls == []
    await db.aclose()


def test_steps_of_an_older_version_have_no_numbers_and_those_after_them_have_some() -> None:
    old = [StepRow(key=f"R/model/{at}", kind="model", data=b'{"at": 1.0}') for at in range(3)]
    check_numbers("R", old)
    entries = [Entry(f"R/tool/{at}", "tool", b'{"at":1.0}') for at in range(3)]
    new, following = numbered(entries, len(old))
    assert following == 6
    assert [json.loads(row.data) for row in new] == [{"at": 1.0, "number": at} for at in (3, 4, 5)]
    check_numbers("R", [*old, *new])
    for gone in range(5):
        rows = [*old, *new]
        del rows[gone]
        with pytest.raises(StoreError, match="a recorded step of run 'R' is missing"):
            check_numbers("R", rows)


@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
async def test_a_write_of_which_nobody_knows_whether_it_was_done_makes_no_gap(
    tmp_path: Path, written: bool
) -> None:
    place = str(tmp_path / "a.db")
    db = SqliteDb(place)
    append_steps, failed = db.append_steps, False

    async def lost(claim: Any, seconds: float, steps: Any, events: Any = ()) -> bool:
        nonlocal failed
        if len(steps) > 1 and not failed:
            failed = True
            if written:
                await append_steps(claim, seconds, steps, events)
            raise StoreError("the answer was lost")
        return await append_steps(claim, seconds, steps, events)

    setattr(db, "append_steps", lost)  # noqa: B010 - a method
    with pytest.raises(KernError, match="the answer was lost"):
        await Desk(db, team=False).runner.arun("q", session_id="s", run_id="R")
    assert failed
    desk = Desk(db, team=False)
    output = await desk.runner.arun("q", session_id="s", run_id="R")
    assert output.status in (RunStatus.completed, RunStatus.paused)
    await db.aclose()
