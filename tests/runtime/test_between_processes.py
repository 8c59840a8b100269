"""Several processes at work on one session of one database: nothing is lost."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from kern.db.base import ChangeRow, RunRow, SessionRow
from kern.state.patch import apply
from tests import processes
from tests.databases import opened

START: dict[str, Any] = {"items": [], "count": 0, "own": {}}

WORKER = """
    import sys
    from tests.played import agent_with
    from kern.run import RunContext
    from kern.state.policies import add
    from tests.databases import opened

    path, name, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])

    def work(run_context: RunContext):
        state = run_context.session_state
        mine = state["own"].get(name, 0)
        state["own"][name] = mine + 1
        state["items"].append(f"{name}-{mine}")
        state["count"] += 1

    agent = agent_with(
        work,
        db=opened(path),
        session_id="one",
        session_state={"items": [], "count": 0, "own": {}},
        merge={"count": add},
    )
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(runs):
        output = agent.run("go")
        assert output.status.value == "COMPLETED"
        assert not output.tools[0].tool_call_error, output.tools[0].result
        items = [item for item in output.session_state["items"] if item.startswith(f"{name}-")]
        assert output.session_state["own"][name] == len(items)
"""


async def stored(place: str) -> tuple[SessionRow, list[ChangeRow], list[RunRow]]:
    db = opened(place)
    row = await db.load_session("one")
    assert row is not None
    return row, await db.load_changes("one"), await db.load_runs("one")


def work_together(place: str, number: int, runs: int) -> None:
    workers = [processes.start(WORKER, place, f"p{n}", runs) for n in range(number)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        processes.finish(worker, seconds=30 + runs)
    row, changes, run_rows = asyncio.run(stored(place))
    state = json.loads(row.state)
    names = [f"p{n}" for n in range(number)]
    assert state["own"] == dict.fromkeys(names, runs)
    for name in names:
        assert [item for item in state["items"] if item.startswith(f"{name}-")] == [
            f"{name}-{n}" for n in range(runs)
        ]
    assert len(state["items"]) == state["count"] == number * runs
    assert len(run_rows) == number * runs
    # The log is exact: one commit after the other, each from the state that the one before it left.
    assert [change.revision for change in changes] == list(range(1, row.revision + 1))
    replayed: Any = START
    for change in changes:
        replayed = apply(replayed, json.loads(change.patch))
    assert replayed == state


def test_two_processes_at_once_lose_nothing(place: str) -> None:
    work_together(place, 2, 25)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [2, 4])
def test_processes_at_once_for_a_hundred_runs_each_lose_nothing(place: str, number: int) -> None:
    work_together(place, number, 100)
