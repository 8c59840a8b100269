"""What a commit writes and a query reads does not grow with the number of earlier runs."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from uuid import UUID

import pytest

from kern import Agent, RunContext
from kern.db import SqliteDb
from kern.db._sqlite_connection import PAGE_BYTES
from kern.db._sqlite_sql import SQL
from kern.models.base import ModelRequest, ModelResponse
from kern.testing import FunctionModel, tool_call
from kern.testing.db import change_row, run_row, state_commit


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[SqliteDb]:
    """A database whose log only grows, so that its size is the sum of what was written."""
    db = SqliteDb(tmp_path / "agents.db")
    await db.commit(state_commit())
    await db._read(lambda raw: raw.execute("PRAGMA wal_autocheckpoint = 0").fetchall())
    yield db
    await db.aclose()


def written(tmp_path: Path) -> int:
    return (tmp_path / "agents.db-wal").stat().st_size


async def commit_run(db: SqliteDb, n: int) -> None:
    """One run of a team with a member, and one change to the state."""
    data = b'{"content":"' + b"x" * 2000 + b'"}'
    runs = [
        run_row(f"run-{n:06}", runner_id="team", data=data, created_at=n),
        run_row(f"member-{n:06}", parent_run_id=f"run-{n:06}", data=data, created_at=n),
    ]
    state = b'{"n":%06d,"notes":"%s"}' % (n, b"x" * 1000)
    await db.commit(state_commit(state, runs=runs, changes=[change_row(n)], now=float(n)))


async def test_the_bytes_of_a_run_do_not_grow_with_the_runs_before_it(db: SqliteDb, tmp_path: Path) -> None:
    sizes = []
    for n in range(1, 301):
        await commit_run(db, n)
        sizes.append(written(tmp_path))
    early = (sizes[59] - sizes[9]) / 50
    late = (sizes[299] - sizes[249]) / 50
    # These ids do not sort by time: the numbers of the two runs are first on one page, and later on two. To
    # rewrite the earlier runs would take a thousand kB.
    assert late < early * 1.2
    assert late < 24 * 1024


def count_up(run_context: RunContext) -> str:
    """Count."""
    run_context.session_state["n"] += 1
    return "counted"


def written_by_this_process() -> int:
    told = Path("/proc/self/io").read_text()
    return int(told.split("wchar:")[1].split()[0])


def counter(path: Path) -> Agent:
    def play(request: ModelRequest) -> str | ModelResponse:
        return "done" if request.messages[-1].role == "tool" else tool_call("count_up")

    model = FunctionModel(play)
    return Agent(name="Counter", model=model, tools=[count_up], session_state={"n": 0}, db=SqliteDb(path))


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs Linux")
async def test_a_run_with_a_tool_call_writes_at_most_24_kb_with_all_checkpoints(tmp_path: Path) -> None:
    agent = counter(tmp_path / "agents.db")
    before = {}
    for n in range(1001):
        before[n] = written_by_this_process() if n in (10, 60, 500, 1000) else 0
        await agent.arun("count", session_id="one")
    assert await agent.aget_session_state("one") == {"n": 1001}
    early, late = (before[60] - before[10]) / 50, (before[1000] - before[500]) / 500
    assert late < 16_000
    # The first runs see no checkpoint, which copies each page that is in the log.
    assert late < early * 1.2


async def pages_per_run(agent: Agent, own_session: bool, runs: int, tmp_path: Path) -> list[float]:
    """The pages that a run writes to the log, in windows of 100 runs from the eleventh on."""
    assert isinstance(agent.db, SqliteDb)
    await agent.db._read(lambda raw: raw.execute("PRAGMA wal_autocheckpoint = 0").fetchall())
    drawn = Random(1)
    sizes = []
    for _ in range(runs + 10):
        own = str(UUID(int=drawn.getrandbits(128), version=4))
        await agent.arun("count", session_id=own if own_session else "one")
        sizes.append(written(tmp_path) / (PAGE_BYTES + 24))
    return [(sizes[n + 99] - sizes[n - 1]) / 100 for n in range(10, runs, 100)]


CASES = [
    # with a tool call, in a session of its own, pages, growth
    (False, False, 4.7, 1.02),
    (True, False, 6.3, 1.02),
    # Ids of sessions that are drawn at random go to any page of their table, which is full now and then.
    (False, True, 7.2, 1.04),
    (True, True, 8.7, 1.04),
]


@pytest.mark.parametrize("runs", [500, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.parametrize(("tool", "own_session", "most", "growth"), CASES)
async def test_a_run_writes_as_many_pages_to_the_log_as_the_runs_before_it(
    tool: bool, own_session: bool, most: float, growth: float, runs: int, tmp_path: Path
) -> None:
    path = tmp_path / "agents.db"
    plain = Agent(name="Plain", model=FunctionModel(lambda request: "done"), db=SqliteDb(path))
    early, *later = await pages_per_run(counter(path) if tool else plain, own_session, runs, tmp_path)
    assert max(early, *later) < most
    assert sum(later) / len(later) < early * growth


async def test_a_run_that_leaves_the_state_alone_does_not_write_it(db: SqliteDb, tmp_path: Path) -> None:
    state = b'{"notes":"' + b"x" * 500_000 + b'"}'
    await db.commit(state_commit(state, now=2.5))
    before = written(tmp_path)
    await db.commit(state_commit(None, runs=[run_row("r")], now=3.5))
    assert written(tmp_path) - before < 100_000
    row = await db.load_session("s")
    assert row is not None
    assert row.state == state


def plan_of(raw: sqlite3.Connection, sql: str) -> list[str]:
    named = dict.fromkeys(re.findall(r":(\w+)", sql))
    numbered = [int(number) for number in re.findall(r"\?(\d+)", sql)]
    values = named or [None] * (max(numbered) if numbered else sql.count("?"))
    rows = raw.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
    return [row[3] for row in rows if row[3] != "SCAN CONSTANT ROW"]  # which reads nothing


async def test_no_query_on_claims_or_cancellations_scans_runs_or_sessions(db: SqliteDb) -> None:
    statements = {**db._queries.journals._sql, **db._queries.cancels._sql}
    for name, sql in statements.items():
        plan = await db._read(lambda raw, sql=sql: plan_of(raw, sql))
        # The tables of claims, steps, events and cancellations hold only what has not ended.
        assert not [step for step in plan if re.match(r"SCAN ([rsxai]|kern_sessions(_runs)?)\b", step)], (
            name,
            plan,
        )


@pytest.mark.parametrize("name", [name for name, sql in SQL.items() if re.search("SELECT|WHERE", sql)])
async def test_no_query_scans_or_sorts_more_than_it_returns(db: SqliteDb, name: str) -> None:
    if name in ("forget_cancels", "forget_cancels_of_user"):
        pytest.skip("goes through a small table")
    sorts = name == "list_runs_of_user"  # the numbers of the runs, in an index

    plan = await db._read(lambda raw: plan_of(raw, db._queries._sql[name]))
    assert not [step for step in plan if "SCAN" in step or ("TEMP B-TREE" in step and not sorts)], plan


async def test_runs_that_wait_are_found_among_any_number_of_completed_ones(db: SqliteDb) -> None:
    async def steps(status: str, user_id: str | None) -> int:
        counted = 0

        def count() -> int:
            nonlocal counted
            counted += 1
            return 0

        await db._read(lambda raw: raw.set_progress_handler(count, 1))
        rows = await db.list_runs(status=status, user_id=user_id)
        await db._read(lambda raw: raw.set_progress_handler(None, 0))
        assert len(rows) == 3
        return counted

    found = []
    for n, size in enumerate((50, 1000)):
        session_id = f"ann {n}"
        rows = [run_row(f"{n} {i}", session_id=session_id) for i in range(size)]
        rows += [
            run_row(f"{n} {status} {i}", session_id=session_id, status=status)
            for status in ("PAUSED", "ERROR")
            for i in range(3 * (n == 0))
        ]
        await db.commit(state_commit(session_id=session_id, user_id="ann", runs=rows))
        found.append([await steps(status, user) for status in ("PAUSED", "ERROR") for user in (None, "ann")])
    few, many = found
    # A scan would take twenty times the steps. How many a deeper tree takes is up to the version of SQLite.
    assert all(among_many < 2 * among_few for among_few, among_many in zip(few, many, strict=True)), found
