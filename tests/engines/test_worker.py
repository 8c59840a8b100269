"""Workers: they take submitted runs, die, and let go; others go on."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kern import Agent, RunStatus
from kern.db import SqliteDb
from kern.durable import DbJournal, Submission
from kern.engines import Worker, submission, submit
from kern.errors import SessionOwnershipError, StoreError, UsageError
from kern.runtime.journaled import opened
from kern.runtime.run_tree import RunRequest
from kern.runtime.steps import Steps
from kern.testing import ScriptedModel
from kern.testing._db_rows import state_commit
from tests.durable.desk import Ledger
from tests.durable.test_kills import PostgresTables, SqliteFiles
from tests.engines.killing import (
    Kept,
    drivers,
    faults_of,
    hand_over,
    kill_in_the_middle,
    processes,
    until,
)
from tests.postgres import Postgres

WORKER = ("-m", "kern.cli", "worker", "tests.engines.worker_app:team", "--poll", "0.05", "--claim", "0.5")


def survive(folder: Path, kills: int, seed: int, kept: Kept) -> list[str]:
    """Kill the worker that has the run while another one is idle; what was wrong."""
    dice, found, killed, number = random.Random(seed), [], 0, 0
    while killed < kills:
        place = folder / f"run{number}"
        place.mkdir(parents=True)
        db, run_id, session_id = kept.place(place), f"R{number}", f"s{number}"
        number += 1
        ledger = Ledger(place / "ledger")
        with processes(place, db) as start:
            hand_over(db, run_id, session_id)
            for _ in range(2):
                start(*WORKER)
            before = kill_in_the_middle(place, ledger, dice)
            on_record = kept.steps(db, run_id)
            texts = faults_of(place, db, run_id, session_id, kept, before, on_record)
            if len(drivers(ledger)) == 1:
                continue  # it was done before
        killed += 1
        found += [f"run {number - 1}: {text}" for text in texts]
    return found


@pytest.mark.timeout(120)  # of work that takes a few seconds on an idle machine
def test_a_run_whose_worker_is_killed_is_gone_on_with_by_another_worker(tmp_path: Path) -> None:
    assert survive(tmp_path, 2, time.time_ns(), SqliteFiles()) == []


@pytest.mark.timeout(120)  # of work that takes a few seconds on an idle machine
def test_a_run_on_postgres_whose_worker_is_killed_is_gone_on_with(tmp_path: Path, postgres: Postgres) -> None:
    assert survive(tmp_path, 1, time.time_ns(), PostgresTables(postgres)) == []


@pytest.mark.long
@pytest.mark.timeout(900)
def test_twenty_killed_workers_leave_nothing_wrong(tmp_path: Path) -> None:
    assert survive(tmp_path, 20, time.time_ns(), SqliteFiles()) == []


@pytest.mark.long
@pytest.mark.timeout(900)
def test_twenty_killed_workers_on_postgres_leave_nothing_wrong(tmp_path: Path, postgres: Postgres) -> None:
    assert survive(tmp_path, 20, time.time_ns(), PostgresTables(postgres)) == []


@pytest.mark.timeout(120)  # of work that takes a few seconds on an idle machine
def test_sigterm_lets_go_of_a_run_and_another_worker_goes_on_at_once(tmp_path: Path) -> None:
    kept, ledger = SqliteFiles(), Ledger(tmp_path / "ledger")
    db = kept.place(tmp_path)
    # a claim of an hour: a worker that did not let go would keep the run
    worker = (*WORKER[:-1], "3600")
    with processes(tmp_path, db) as start:
        hand_over(db, "R", "s")
        first = start(*worker)
        until(lambda: len(ledger.lines()) > 20, tmp_path)
        assert first.terminate() == 0
        before, on_record = len(ledger.lines()), kept.steps(db, "R")
        assert "stopped" in (tmp_path / "log").read_text()
        start(*worker)
        assert faults_of(tmp_path, db, "R", "s", kept, before, on_record) == []
    assert len(drivers(ledger)) == 2


@asynccontextmanager
async def working(worker: Worker) -> AsyncIterator[None]:
    task = asyncio.create_task(worker.work())
    try:
        yield
    finally:
        worker.stop()
        await asyncio.wait_for(task, 10)


async def ended(agent: Agent, run_id: str) -> RunStatus:
    while True:
        output = await agent.aget_run_output(run_id)
        if output is not None and output.status not in (RunStatus.running, RunStatus.pending):
            return output.status
        await asyncio.sleep(0.01)


def agent_on(path: Path, *answers: str | Exception) -> Agent:
    db = SqliteDb(path / "kern.db")
    return Agent(id="desk", model=ScriptedModel(list(answers)), db=db, journal=DbJournal(db))


async def test_runs_are_done_as_they_were_asked_for(tmp_path: Path) -> None:
    agent = agent_on(tmp_path, "one", "two", "three")
    runs = [
        submission(agent, f"task {n}", session_id=f"s{n}", user_id="ann", metadata={"n": n}) for n in range(3)
    ]
    assert [await submit(agent, run) for run in runs] == [True] * 3
    assert not await submit(agent, runs[0])
    async with working(Worker(agent, at_once=2, poll_seconds=0.02)):
        assert [await ended(agent, run.run_id) for run in runs] == [RunStatus.completed] * 3
    output = await agent.aget_run_output(runs[1].run_id, user_id="ann")
    assert output is not None
    assert output.metadata == {"n": 1}
    assert output.messages is not None
    assert [message.content for message in output.messages if message.role == "user"] == ["task 1"]
    assert await DbJournal(SqliteDb(tmp_path / "kern.db")).unfinished() == []


async def test_a_run_that_is_submitted_again_after_its_end_is_not_done_again(tmp_path: Path) -> None:
    agent = agent_on(tmp_path, "one")
    run = submission(agent, "go", session_id="s", run_id="r")
    await agent.arun("go", session_id="s", run_id="r")
    assert not await submit(agent, run)
    journal = DbJournal(SqliteDb(tmp_path / "kern.db"))
    assert not await journal.submit(run)
    assert await journal.unfinished() == []
    assert await ended(agent, "r") is RunStatus.completed


async def test_a_run_in_a_session_that_has_become_another_users_ends_and_who_follows_it_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agent = agent_on(tmp_path, "one")
    run = submission(agent, "go", session_id="s", user_id="bob")
    await submit(agent, run)
    db = SqliteDb(tmp_path / "kern.db")
    await db._write(lambda raw: raw.execute("UPDATE kern_sessions_claims SET user_id = 'ann'"))
    await db.commit(state_commit(user_id="ann"))  # as if the two had not seen each other
    await db._write(lambda raw: raw.execute("UPDATE kern_sessions_claims SET user_id = 'bob'"))
    following = asyncio.create_task(anext(agent.follow(run.run_id, user_id="bob")))
    await asyncio.sleep(0)
    async with working(Worker(agent, poll_seconds=0.02)):
        with pytest.raises(SessionOwnershipError, match="'s' belongs to another user"):
            await following
        while await DbJournal(db).unfinished():
            await asyncio.sleep(0.01)
    assert run.run_id in caplog.text
    with pytest.raises(SessionOwnershipError):
        await submit(agent, run)


async def test_a_run_that_a_worker_has_can_be_followed_from_anywhere(tmp_path: Path) -> None:
    agent = agent_on(tmp_path, "one")
    run = submission(agent, "go", session_id="s")
    await submit(agent, run)
    async with working(Worker(agent, poll_seconds=0.02)):
        assert await ended(agent, run.run_id) is RunStatus.completed
    told = [event.event async for event in agent_on(tmp_path).follow(run.run_id)]
    assert told[0] == "RunStarted"
    assert told[-1] == "RunCompleted"
    assert "RunContent" in told


async def test_a_run_that_fails_has_ended(tmp_path: Path) -> None:
    agent = agent_on(tmp_path, ValueError("no"))
    run = submission(agent, "go", session_id="s")
    await submit(agent, run)
    async with working(Worker(agent, poll_seconds=0.02)):
        assert await ended(agent, run.run_id) is RunStatus.error
    assert await DbJournal(SqliteDb(tmp_path / "kern.db")).unfinished() == []


async def test_a_run_that_is_cancelled_before_a_worker_has_it_never_begins(tmp_path: Path) -> None:
    agent = agent_on(tmp_path)
    run = submission(agent, "go", session_id="s")
    await submit(agent, run)
    await agent.acancel_run(run.run_id)
    async with working(Worker(agent, poll_seconds=0.02)):
        assert await ended(agent, run.run_id) is RunStatus.cancelled


async def test_so_it_is_if_its_journal_takes_long_to_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[float] = []

    @asynccontextmanager
    async def slowly(request: RunRequest) -> AsyncIterator[Steps]:
        times.append(time.monotonic())
        await asyncio.sleep(0.3)
        async with opened(request) as steps:
            yield steps

    monkeypatch.setattr("kern.runtime.run_start.opened", slowly)
    monkeypatch.setattr("kern.runtime.active_runs.POLL_SECONDS", 0.02)
    agent = agent_on(tmp_path)
    run = submission(agent, "go", session_id="s")
    await submit(agent, run)
    await agent.acancel_run(run.run_id)
    async with working(Worker(agent, poll_seconds=0.02)):
        assert await ended(agent, run.run_id) is RunStatus.cancelled


async def test_a_run_that_cannot_begin_is_put_off_and_keeps_nobody_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agent = agent_on(tmp_path, "one", "two")
    await agent.arun("mine", session_id="anns", user_id="ann")
    theirs = submission(agent, "go", session_id="bobs", user_id="bob")
    good = submission(agent, "go", session_id="s")
    damaged = submission(agent, "go", session_id="s2")
    await submit(agent, theirs)
    await submit(agent, damaged)
    db = SqliteDb(tmp_path / "kern.db")
    await db._write(
        lambda raw: raw.execute(
            "UPDATE kern_sessions_claims SET session_id = 'other' WHERE run_id = ?", (theirs.run_id,)
        )
    )
    await db._write(
        lambda raw: raw.execute(
            "UPDATE kern_sessions_claims SET request = '{}' WHERE run_id = ?", (damaged.run_id,)
        )
    )
    await submit(agent, good)
    with caplog.at_level(logging.WARNING, "kern"):
        async with working(Worker(agent, poll_seconds=0.02)):
            assert await ended(agent, good.run_id) is RunStatus.completed
    texts = [record.getMessage() for record in caplog.records]
    assert any(theirs.run_id in text for text in texts)
    assert any(damaged.run_id in text and "cannot be read" in text for text in texts)
    journal = DbJournal(db)
    assert await journal.take(["desk"]) is None, "both are put off"
    assert await journal.forget(theirs.run_id)
    assert not await journal.forget(theirs.run_id)


async def test_a_run_that_kills_its_workers_is_left_in_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agent = agent_on(tmp_path)
    run = submission(agent, "go", session_id="s")
    await submit(agent, run)
    dying = DbJournal(SqliteDb(tmp_path / "kern.db"), claim_seconds=0.001)
    for attempt in (1, 2):
        await asyncio.sleep(0.01)
        taken = await dying.take(["desk"])
        assert taken is not None
        assert taken.claim.attempt == attempt
    await asyncio.sleep(0.01)
    with caplog.at_level(logging.ERROR, "kern"):
        async with working(Worker(agent, poll_seconds=0.02, attempts=2)):
            while "in every attempt (2 so far)" not in caplog.text:
                await asyncio.sleep(0.01)


def test_what_no_other_process_can_know_is_refused(tmp_path: Path) -> None:
    db = SqliteDb(tmp_path / "kern.db")
    with pytest.raises(UsageError, match="id="):
        Worker(Agent(db=db))
    with pytest.raises(UsageError, match="no db that other processes see"):
        Worker(Agent(id="a"))
    with pytest.raises(UsageError, match="two agents"):
        Worker(Agent(id="a", db=db), Agent(id="a", db=db))
    with pytest.raises(UsageError, match="one database"):
        Worker(Agent(id="a", db=db), Agent(id="b", db=SqliteDb(tmp_path / "other.db")))
    with pytest.raises(UsageError, match="as JSON"):
        submission(Agent(id="a", db=db), "go", session_id="s", dependencies={"client": object()})
    with pytest.raises(StoreError, match="cannot be read"):
        Submission.from_dict(b'{"run_id": 7}')
