"""A process killed at any moment.

What it has acknowledged is there, and what it has not is there whole or not at all.
"""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import pytest

from tests import processes
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


def check(path: Path, acknowledged: set[str]) -> None:
    """The file is sound; every run in it is whole; no acknowledged one is missing."""
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    raw.close()
    session = team_on(path).get_session()
    if session is None:  # killed before its first commit
        assert not acknowledged
        return
    state = session.state
    runs = rows_of(path)
    top = {run_id for run_id, parent, status in runs if parent is None and status == "COMPLETED"}
    members = {parent for _, parent, status in runs if parent is not None and status == "COMPLETED"}
    assert acknowledged <= top
    assert top == members == set(state["runs"])
    assert state["count"] == len(top) == session.revision


def rows_of(path: Path) -> list[tuple[str, str | None, str]]:
    with sqlite3.connect(path) as raw:
        (table,) = [
            name
            for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            if "run" in name
        ]
        rows = raw.execute(f"SELECT run_id, parent_run_id, status FROM {table}").fetchall()
    raw.close()
    return rows


def survive(path: Path, kills: int) -> None:
    nursery = processes.start(NURSERY, path, time.time_ns())
    acknowledged: set[str] = set()
    for _ in range(kills):
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        nursery.stdin.write("next\n")
        nursery.stdin.flush()
        line = nursery.stdout.readline()
        assert line, nursery.communicate()[1]
        acknowledged.update(json.loads(line))
        if path.exists():
            check(path, acknowledged)
    processes.finish(nursery)
    assert len(acknowledged) >= kills
    output = team_on(path).run("go")
    check(path, acknowledged | {output.run_id})


@pytest.mark.timeout(120)  # of work that takes a few seconds on an idle machine
def test_a_process_killed_at_random_points_loses_no_acknowledged_run(tmp_path: Path) -> None:
    survive(tmp_path / "agents.db", kills=20)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_process_killed_a_hundred_times_loses_no_acknowledged_run(tmp_path: Path) -> None:
    survive(tmp_path / "agents.db", kills=100)
