"""An id is one run's, whether it has a journal or not: no act is carried out twice, no run is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunOutput, RunStatus, tool
from kern.db import Db
from kern.db.journals import JournalDb
from kern.durable import DbJournal
from kern.engines import submission
from kern.engines.driving import journal_of
from kern.errors import KernError, RunConflictError, SessionBusyError, SessionOwnershipError
from kern.models.base import ModelRequest, ModelResponse
from kern.testing import FunctionModel, tool_call
from tests.databases import KINDS, opener

HOUR = 3600.0
ANN: Any = {"session_id": "s", "run_id": "R", "user_id": "ann"}


class Desk:
    """An agent without a journal; `astart` and `submit` make one."""

    def __init__(self, db: Db, *, asks: bool = False) -> None:
        self.paid = 0
        self.inside = asyncio.Event()
        self.goes_on = asyncio.Event()

        @tool(effect="once", requires_confirmation=asks)
        async def pay() -> str:
            """Pay."""
            self.paid += 1
            self.inside.set()
            await self.goes_on.wait()
            return "paid"

        def answer(request: ModelRequest) -> ModelResponse | str:
            return "done" if request.messages[-1].role == "tool" else tool_call("pay")

        self.db = db
        self.agent = Agent(id="desk", model=FunctionModel(answer), tools=[pay], db=db)

    @property
    def journals(self) -> JournalDb:
        assert isinstance(self.db, JournalDb)
        return self.db

    async def left(self, run: asyncio.Task[Any]) -> None:
        """Let the process of the run die in the middle of the payment."""
        await self.inside.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        self.goes_on.set()

    async def is_over(self) -> None:
        """Nothing is left of a run but its row."""
        assert await self.journals.unfinished_runs() == []
        assert await self.journals.running_runs() == []
        found = await self.journals.claim_run("R", "later", HOUR)
        assert found is not None
        assert (found.claim.attempt, list(found.steps)) == (1, [])


@pytest.fixture(params=KINDS)
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Db]:
    db = opener(request, tmp_path)()
    yield db
    await db.aclose()


def asked_about(output: RunOutput[str]) -> list[str]:
    return [requirement.kind for requirement in output.requirements]


async def test_a_plain_call_resumes_the_durable_run_of_a_dead_process(db: Db) -> None:
    desk = Desk(db)
    await desk.left(asyncio.create_task(desk.agent.arun("Pay", journal=DbJournal(db), **ANN)))
    output = await desk.agent.arun("Pay", **ANN)
    assert (output.status, asked_about(output), desk.paid) == (RunStatus.paused, ["in_doubt"], 1)
    await desk.is_over()


@pytest.mark.parametrize("how", ["raise", "return", "retry_failed"])
async def test_a_plain_call_of_another_user_does_not_take_the_id_of_a_durable_run(db: Db, how: Any) -> None:
    desk = Desk(db)
    await desk.left(asyncio.create_task(desk.agent.arun("Pay", journal=DbJournal(db), **ANN)))
    with pytest.raises(SessionOwnershipError):
        await desk.agent.arun("Pay", session_id="b", run_id="R", user_id="bob", on_duplicate=how)
    assert await db.load_run("R") is None
    output = await desk.agent.arun("Pay", journal=DbJournal(db), **ANN)
    assert asked_about(output) == ["in_doubt"]


async def test_a_plain_call_takes_the_run_that_was_submitted(db: Db) -> None:
    desk = Desk(db)
    desk.goes_on.set()
    assert await desk.journals.submit_run(submission(desk.agent, "Pay", **ANN).row())
    with pytest.raises(KernError):
        await desk.agent.arun("Pay", session_id="b", run_id="R", user_id="bob")
    output = await desk.agent.arun("Pay", **ANN)
    assert (output.content, desk.paid) == ("done", 1)
    await desk.is_over()


@pytest.mark.parametrize("how", ["raise", "return", "retry_failed"])
async def test_a_plain_call_is_refused_while_another_process_has_the_durable_run(db: Db, how: Any) -> None:
    desk = Desk(db)
    assert await desk.journals.claim_run("R", "another process", HOUR) is not None
    with pytest.raises(SessionBusyError if how == "return" else RunConflictError, match="another process"):
        await desk.agent.arun("Pay", on_duplicate=how, **ANN)
    assert desk.paid == 0


@pytest.mark.parametrize("times_out", [False, True])
async def test_a_run_that_ends_before_it_begins_does_not_take_the_id(db: Db, times_out: bool) -> None:
    """While it waits for its session, it is cancelled or its time is over."""
    desk, queued = Desk(db), Desk(db)
    queued.agent.on_busy = "queue"
    assert await desk.journals.claim_run("R", "another process", HOUR) is not None
    assert await db.acquire_lease("s", "another run", HOUR)
    waiting = asyncio.create_task(queued.agent.arun("Pay", timeout=0.05 if times_out else None, **ANN))
    if not times_out:
        while not await queued.agent.acancel_run("R", user_id="ann"):
            await asyncio.sleep(0.01)
    with pytest.raises(RunConflictError, match="another process"):
        await waiting
    assert await db.load_run("R") is None


@pytest.mark.parametrize("continues", [False, True])
async def test_while_a_plain_run_is_in_progress_no_process_gets_a_claim(db: Db, continues: bool) -> None:
    desk = Desk(db, asks=continues)
    if continues:
        paused = await desk.agent.arun("Pay", **ANN)
        paused.requirements[0].confirm()
        run = asyncio.create_task(desk.agent.acontinue_run(paused))
    else:
        run = asyncio.create_task(desk.agent.arun("Pay", **ANN))
    await desk.inside.wait()
    assert await desk.journals.claim_run("R", "another process", HOUR) is None
    assert not await desk.journals.submit_run(submission(desk.agent, "Pay", **ANN).row())
    assert await desk.agent.alist_runs(status="RUNNING") == []
    desk.goes_on.set()
    assert ((await run).content, desk.paid) == ("done", 1)
    await desk.is_over()


async def test_a_plain_call_resumes_the_durable_continuation_of_a_dead_process(db: Db) -> None:
    desk = Desk(db, asks=True)
    paused = await desk.agent.arun("Pay", **ANN)
    paused.requirements[0].confirm()
    await desk.left(asyncio.create_task(desk.agent.acontinue_run(paused, journal=DbJournal(db))))
    output = await desk.agent.acontinue_run(paused)
    assert (output.status, asked_about(output), desk.paid) == (RunStatus.paused, ["in_doubt"], 1)
    output.requirements[0].confirm()
    assert (await desk.agent.acontinue_run(output)).content == "done"
    await desk.is_over()


async def test_what_died_before_its_first_step_does_not_keep_a_run_from_being_submitted(db: Db) -> None:
    desk = Desk(db)
    assert await desk.journals.claim_run("R", "a plain run", 0.0) is not None
    if not db.shared:
        assert await desk.journals.submit_run(submission(desk.agent, "Pay", **ANN).row())
        return
    assert await journal_of(desk.agent).submit(submission(desk.agent, "Pay", **ANN))
    assert await desk.journals.unfinished_runs() == ["R"]
