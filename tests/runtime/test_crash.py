"""A process killed at any moment.

What it has acknowledged is there, and what it has not is there whole or not at all.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kern.db.base import RunRow
from kern.runner.session_view import Session
from tests import processes
from tests.databases import opened
from tests.runtime.victim import team_on

NURSERY = """
    import json, os, random, signal, sys, time
    from tests.runtime.victim import team_on

    path, dice = sys.argv[1], random.Random(int(sys.argv[2]))

    def live(out):
        team = team_on(path)
        while True:
            os.write(out, team.run("go").run_id.encode() + b"\\n")

    for line in sys.stdin:  # for each line, a process that runs and runs, and is killed
        inlet, outlet = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                live(outlet)
            finally:
                os._exit(1)
        os.close(outlet)
        with open(inlet) as pipe:
            acknowledged = [pipe.readline() for _ in range(dice.randint(0, 4))]
            time.sleep(dice.random() * 0.02)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            acknowledged += pipe
        print(json.dumps([line.strip() for line in acknowledged]), flush=True)
"""


async def stored(place: str) -> tuple[Session[Any] | None, list[RunRow]]:
    """What there is at one moment: a server may still be at the last statement of a killed process."""
    db = opened(place)
    row = None
    while True:
        before, runs, row = row, await db.load_runs("one", top_level=False), await db.load_session("one")
        if row == before:
            return await team_on(place).aget_session(), runs


def check(place: str, acknowledged: set[str]) -> None:
    """The file is sound; every run in it is whole; no acknowledged one is missing."""
    if Path(place).exists():
        with closing(sqlite3.connect(place)) as raw, raw:
            assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    session, runs = asyncio.run(stored(place))
    if session is None:  # killed before its first commit
        assert not acknowledged
        return
    state = session.state
    assert {run.status for run in runs} == {"COMPLETED"}
    top = {run.run_id for run in runs if run.parent_run_id is None}
    members = {run.parent_run_id for run in runs if run.parent_run_id is not None}
    assert acknowledged <= top
    assert top == members == set(state["runs"])
    assert state["count"] == len(top) == session.revision


def survive(place: str, kills: int) -> None:
    nursery = processes.start(NURSERY, place, time.time_ns())
    acknowledged: set[str] = set()
    for _ in range(kills):
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        nursery.stdin.write("next\n")
        nursery.stdin.flush()
        line = nursery.stdout.readline()
        assert line, nursery.communicate()[1]
        acknowledged.update(json.loads(line))
        check(place, acknowledged)
    processes.finish(nursery)
    assert len(acknowledged) >= kills
    output = team_on(place).run("go")
    check(place, acknowledged | {output.run_id})


@pytest.mark.timeout(120)  # of work that takes a few seconds on an idle machine
def test_a_process_killed_at_random_points_loses_no_acknowledged_run(place: str) -> None:
    survive(place, kills=20)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_process_killed_a_hundred_times_loses_no_acknowledged_run(place: str) -> None:
    survive(place, kills=100)
