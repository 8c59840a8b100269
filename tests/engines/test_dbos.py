"""Durable runs that DBOS drives, on an SQLite file of its own."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

pytest.importorskip("dbos")

from dbos import DBOS

from kern import Agent
from kern.db import SqliteDb
from kern.durable.submission import Submission
from kern.engines import submission
from kern.engines.dbos import DbosRuns
from kern.errors import RunMismatch, SessionDeletedError, SessionOwnershipError
from kern.testing import ScriptedModel
from tests.durable.desk import Ledger
from tests.durable.test_kills import SqliteFiles
from tests.engines.killing import drivers, faults_of, kill_in_the_middle, processes, until

APP = ("-m", "tests.engines.dbos_app")


def survive(folder: Path, kills: int, seed: int) -> list[str]:
    """Kill the process, and start another one with its executor id; what was wrong."""
    dice, found, killed, number, kept = random.Random(seed), [], 0, 0, SqliteFiles()
    while killed < kills:
        place = folder / f"run{number}"
        place.mkdir(parents=True)
        number += 1
        db, ledger = kept.place(place), Ledger(place / "ledger")
        with processes(place, db) as start:
            start(*APP, "here", "R")
            before = kill_in_the_middle(place, ledger, dice)
            on_record = kept.steps(db, "R")
            start(*APP, "here")
            texts = faults_of(place, db, "R", "s", kept, before, on_record)
        if len(drivers(ledger)) == 1:
            continue  # it was done before
        killed += 1
        found += [f"run {number - 1}: {text}" for text in texts]
    return found


@pytest.mark.timeout(120)  # of work that takes some seconds on an idle machine
def test_a_run_whose_process_is_killed_goes_on_at_the_next_start(tmp_path: Path) -> None:
    assert survive(tmp_path, 1, time.time_ns()) == []


@pytest.mark.long
@pytest.mark.timeout(900)
def test_twenty_kills_leave_nothing_wrong(tmp_path: Path) -> None:
    assert survive(tmp_path, 20, time.time_ns()) == []


@pytest.mark.timeout(120)  # of work that takes some seconds on an idle machine
def test_a_second_process_with_the_same_executor_id_does_not_do_the_run_as_well(tmp_path: Path) -> None:
    """DBOS starts a run again that its first process still has: "local" is the id of all that set none."""
    kept, ledger = SqliteFiles(), Ledger(tmp_path / "ledger")
    db = kept.place(tmp_path)
    with processes(tmp_path, db) as start:
        start(*APP, "local", "R")
        until(lambda: len(ledger.lines()) > 5, tmp_path)
        start(*APP, "local")
        assert faults_of(tmp_path, db, "R", "s", kept, None, "") == []
    assert len(drivers(ledger)) == 1


async def test_dbos_refuses_another_request_under_the_id_of_a_run(tmp_path: Path) -> None:
    agent = Agent(id="a", model=ScriptedModel(["one"]), db=SqliteDb(tmp_path / "kern.db"))
    DBOS(config={"name": "kern-same", "system_database_url": f"sqlite:///{tmp_path}/dbos.sqlite"})
    try:
        runs = DbosRuns(agent, name="kern-same")
        DBOS.launch()

        def asked(text: str = "one", user: str = "ann", session: str = "s") -> Submission:
            return submission(agent, text, run_id="r", session_id=session, user_id=user)

        for _ in range(2):
            assert await (await runs.start(asked())).get_result() == "COMPLETED"
        for other, error in (
            (asked("two"), RunMismatch),
            (asked(session="another"), RunMismatch),
            (asked(user="bob"), SessionOwnershipError),
        ):
            with pytest.raises(error):
                await runs.start(other)
        await agent.adelete_session("s")
        with pytest.raises(RunMismatch):  # DBOS knows the run still
            await runs.start(asked("two"))
        with pytest.raises(SessionDeletedError):
            await runs.start(asked())
    finally:
        DBOS.destroy()
