"""Durable runs that Temporal drives, on its own server."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("temporalio")

from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.worker import Worker

from kern import Agent, RunStatus
from kern.db import SqliteDb
from kern.durable import DbJournal
from kern.engines import submission
from kern.engines.temporal import TemporalRuns, start_run
from kern.testing import ScriptedModel
from tests.durable.desk import Ledger, desk
from tests.durable.test_kills import SqliteFiles
from tests.durable.victim import database
from tests.engines.killing import drivers, faults_of, kill_in_the_middle, processes
from tests.engines.temporal_server import temporal_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with temporal_server(tmp_path_factory.mktemp("temporal")) as address:
        yield address


async def connected(address: str) -> Client:
    """The server listens before all of it is up."""
    end = time.monotonic() + 20
    while True:
        try:
            return await Client.connect(address)
        except RuntimeError:
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.1)


def survive(folder: Path, kills: int, seed: int, address: str) -> list[str]:
    """Kill the worker that has the activity while another one is idle; what was wrong."""
    dice, found, killed, number, kept = random.Random(seed), [], 0, 0, SqliteFiles()
    while killed < kills:
        place = folder / f"run{number}"
        place.mkdir(parents=True)
        run_id, queue, db = f"R{seed}-{number}", f"q{seed}-{number}", kept.place(place)
        number += 1
        ledger = Ledger(place / "ledger")

        async def ask(run_id: str = run_id, queue: str = queue, db: str = db) -> None:
            opened = database(db, Ledger(Path("/dev/null")))
            run = submission(desk(Ledger(Path("/dev/null")), opened), "go", session_id="s", run_id=run_id)
            await start_run(await connected(address), run, task_queue=queue, heartbeat_seconds=1)
            await opened.aclose()

        async def result(run_id: str = run_id) -> str:
            handle: WorkflowHandle[Any, str] = (await connected(address)).get_workflow_handle(run_id)
            return await asyncio.wait_for(handle.result(), 60)

        with processes(place, db) as start:
            for _ in range(2):
                start("-m", "tests.engines.temporal_app", address, queue)
            asyncio.run(ask())
            before = kill_in_the_middle(place, ledger, dice)
            on_record = kept.steps(db, run_id)
            texts = faults_of(place, db, run_id, "s", kept, before, on_record)
            if asyncio.run(result()) != "COMPLETED":
                texts.append("the workflow has another end")
        if len(drivers(ledger)) == 1:
            continue  # it was done before
        killed += 1
        found += [f"run {number - 1}: {text}" for text in texts]
    return found


@pytest.mark.timeout(120)  # of work that takes some seconds on an idle machine
def test_a_run_whose_temporal_worker_is_killed_goes_on_in_another_one(tmp_path: Path, server: str) -> None:
    assert survive(tmp_path, 1, time.time_ns(), server) == []


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_twenty_killed_temporal_workers_leave_nothing_wrong(tmp_path: Path, server: str) -> None:
    assert survive(tmp_path, 20, time.time_ns(), server) == []


async def test_a_run_that_is_asked_for_twice_is_done_once_and_a_failed_one_has_ended(
    tmp_path: Path, server: str
) -> None:
    client = await connected(server)
    db = SqliteDb(tmp_path / "kern.db")
    agent = Agent(id="a", model=ScriptedModel(["one", ValueError("no")]), db=db, journal=DbJournal(db))
    runs, queue = TemporalRuns(agent), f"q{time.time_ns()}"
    async with Worker(client, task_queue=queue, workflows=runs.workflows, activities=runs.activities):
        run = submission(agent, "go", session_id="s")
        for _ in range(2):
            handle = await start_run(client, run, task_queue=queue)
            assert await asyncio.wait_for(handle.result(), 30) == "COMPLETED"
        failing = submission(agent, "go", session_id="s")
        handle = await start_run(client, failing, task_queue=queue)
        assert await asyncio.wait_for(handle.result(), 30) == "ERROR"
        nobodys = submission(Agent(id="other", db=db), "go", session_id="s")
        handle = await start_run(client, nobodys, task_queue=queue)
        with pytest.raises(WorkflowFailureError):
            await asyncio.wait_for(handle.result(), 30)


@pytest.mark.timeout(120)  # Temporal tells an activity of its cancellation with a heartbeat
async def test_cancelling_the_workflow_cancels_the_run(tmp_path: Path, server: str) -> None:
    begun = asyncio.Event()

    async def wait() -> str:
        """Wait."""
        begun.set()
        await asyncio.sleep(3600)
        return "never"

    client = await connected(server)
    db = SqliteDb(tmp_path / "kern.db")
    from kern.testing import tool_call

    agent = Agent(id="a", model=ScriptedModel([tool_call("wait")]), tools=[wait], db=db)
    runs, queue = TemporalRuns(agent), f"q{time.time_ns()}"
    async with Worker(client, task_queue=queue, workflows=runs.workflows, activities=runs.activities):
        run = submission(agent, "go", session_id="s")
        handle = await start_run(client, run, task_queue=queue, heartbeat_seconds=1)
        await asyncio.wait_for(begun.wait(), 30)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await asyncio.wait_for(handle.result(), 60)
        output = await agent.aget_run_output(run.run_id)
        assert output is not None
        assert output.status is RunStatus.cancelled
