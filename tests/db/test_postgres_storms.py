"""Servers that kill what they serve, and processes that stand still: nothing is lost, and nobody waits."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from kern import Agent, RunContext, RunStatus
from kern.db import _postgres_commit
from kern.db.base import Commit, SessionRow, StateWrite
from kern.db.postgres import PostgresDb
from kern.models.base import ModelRequest
from kern.state import add
from kern.testing import FunctionModel, tool_call
from kern.testing.db import counting_commit
from tests import processes
from tests.postgres import Postgres, new_tables

KILL_HALF = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND backend_type = 'client backend' AND random() < 0.5"""


@asynccontextmanager
async def storm(url: str) -> AsyncIterator[Counter[str]]:
    """Inside the block, half of all that serves clients is killed every 20 ms."""
    killed: Counter[str] = Counter()
    killer = await asyncpg.connect(url)
    over = asyncio.Event()

    async def kill() -> None:
        while not over.is_set():
            killed["backends"] += await killer.fetchval(KILL_HALF)
            await asyncio.sleep(0.02)

    killing = asyncio.create_task(kill())
    try:
        yield killed
    finally:
        over.set()
        await killing
        await killer.close()


def note(run_context: RunContext) -> str:
    """Take a note."""
    run_context.session_state["n"] += 1
    return "noted"


async def play(request: ModelRequest) -> Any:
    await asyncio.sleep(random.uniform(0, 0.01))
    return "done" if request.messages[-1].role == "tool" else tool_call("note")


async def weather(postgres: Postgres, runs: int, sessions: int) -> None:
    table = new_tables()
    db = PostgresDb(postgres.url, session_table=table, pool_size=6)
    agent = Agent(model=FunctionModel(play), tools=[note], db=db, session_state={"n": 0}, merge={"n": add})
    await agent.arun("x", session_id="warm")
    async with storm(postgres.url) as killed:
        for start in range(0, runs, 20):
            names = [f"s{n % sessions}" for n in range(start, min(start + 20, runs))]
            for output in await asyncio.gather(*(agent.arun("x", session_id=name) for name in names)):
                assert output.status is RunStatus.completed
    counted = postgres.psql(f"SELECT sum((state ->> 'n')::int) FROM {table} WHERE session_id <> 'warm'")
    stored = postgres.psql(f"SELECT count(*) FROM {table}_runs WHERE session_id <> 'warm'")
    changes = postgres.psql(f"SELECT count(*) FROM {table}_changes WHERE session_id <> 'warm'")
    told = f"{runs} runs in {sessions} sessions: {killed['backends']} backends killed"
    print(f"{told}; {stored} runs stored, {counted} counted")
    assert killed["backends"] > 0
    assert (counted, stored, changes) == (str(runs),) * 3
    await db.aclose()


@pytest.mark.parametrize("sessions", [1, 20])
async def test_runs_in_a_storm_are_saved_once_each(postgres: Postgres, sessions: int) -> None:
    await weather(postgres, 60, sessions)


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("sessions", [1, 20])
async def test_three_hundred_runs_in_a_storm_are_saved_once_each(postgres: Postgres, sessions: int) -> None:
    await weather(postgres, 300, sessions)


# Processes that stand still

FREEZES = """
    import asyncio, os, signal, sys
    from dataclasses import replace
    from kern.db import _postgres_commit, _postgres_pool
    from kern.testing.db import counting_commit
    from tests.databases import opened

    _postgres_commit._MOST_TRIES = int(sys.argv[2])
    _postgres_pool._BEGIN = _postgres_pool._BEGIN.replace("'5s'", sys.argv[3])
    commit = counting_commit()
    calls = 0

    def freeze(row):
        global calls
        calls += 1
        if calls == 2:  # the first is with what the caller knows
            print("frozen", flush=True)
            os.kill(os.getpid(), signal.SIGSTOP)
        return commit.resolve(row)

    async def main():
        db = opened(sys.argv[1])
        print((await db.commit(replace(commit, resolve=freeze))).row.version, flush=True)

    asyncio.run(main())
"""


def counts_of(postgres: Postgres, table: str) -> int:
    return int(json.loads(postgres.psql(f"SELECT state FROM {table}"))["count"])


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
@pytest.mark.parametrize("turn", [False, True], ids=["by a statement", "with the session locked"])
async def test_a_process_that_is_frozen_in_the_middle_of_a_commit_holds_nobody_up(
    postgres: Postgres, turn: bool
) -> None:
    table = new_tables()
    db = PostgresDb(postgres.url, session_table=table)
    for _ in range(3):
        await db.commit(counting_commit())
    tries, patience = (0, "'250ms'") if turn else (5, "'5s'")
    frozen = processes.start(FREEZES, f"{postgres.url}#{table}", tries, patience)
    assert frozen.stdout is not None
    assert await asyncio.to_thread(frozen.stdout.readline) == "frozen\n"
    try:
        for n in range(4, 8):
            assert (await db.commit(counting_commit())).row.version == n
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    assert await asyncio.to_thread(processes.finish, frozen) == "8\n"
    assert counts_of(postgres, table) == 8
    await db.aclose()


async def test_who_merges_long_gets_a_turn_among_those_who_commit_without_end(postgres: Postgres) -> None:
    db = PostgresDb(postgres.url, session_table=new_tables())
    known = (await db.commit(padded())).row
    over = asyncio.Event()

    async def hurry() -> None:
        row = known
        while not over.is_set():
            row = (await db.commit(padded(row))).row

    others = [asyncio.create_task(hurry()) for _ in range(3)]
    merged: list[int] = []

    def merge(row: SessionRow | None) -> None:
        if threading.current_thread() is not threading.main_thread():  # where a large state is resolved
            merged.append(0 if row is None else row.version)
            time.sleep(0.02)

    for _ in range(3):
        await db.commit(padded(seen=merge))
    over.set()
    await asyncio.gather(*others)
    assert len(merged) > 3
    row = await db.load_session("s")
    assert row is not None
    assert json.loads(row.state)["count"] == row.version
    await db.aclose()


def padded(
    known: SessionRow | None = None, seen: Callable[[SessionRow | None], None] | None = None
) -> Commit:
    """A commit that counts, in a state that is large."""

    def resolve(row: SessionRow | None) -> StateWrite:
        if seen is not None:
            seen(row)
        count = 1 if row is None else json.loads(row.state)["count"] + 1
        state = json.dumps({"count": count, "notes": "x" * 120_000}).encode()
        return StateWrite(state, 1 if row is None else row.revision + 1)

    return Commit(session_id="s", user_id=None, resolve=resolve, known=known, now=1.0)


async def test_sessions_that_come_and_go_while_their_turn_is_waited_for_take_every_commit(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_postgres_commit, "_MOST_TRIES", 0)
    db = PostgresDb(postgres.url, session_table=new_tables())
    for _ in range(10):
        await asyncio.gather(*(db.commit(counting_commit()) for _ in range(6)))
        row = await db.load_session("s")
        assert row is not None
        assert row.state == b'{"count":6}'
        await db.delete_session("s")
    await db.aclose()
