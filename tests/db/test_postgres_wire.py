"""What goes between a `PostgresDb` and its server: how many questions, and what if some are lost."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from kern import Agent, RunContext, RunStatus, Team
from kern.db import _postgres_pool
from kern.db._postgres_server import Server
from kern.db.postgres import PostgresDb
from kern.models.base import ModelRequest, ModelResponse
from kern.state import add
from kern.testing import FunctionModel, tool_call
from kern.testing.db import change_row, run_row, state_commit
from tests.db.wire import Wire
from tests.postgres import PORT, Postgres, new_tables


@pytest.fixture
def wire(postgres: Postgres) -> Iterator[Wire]:
    with tempfile.TemporaryDirectory(prefix="kern-w-") as folder:  # the path of a socket is short
        wire = Wire(postgres, Path(folder))
        yield wire
        wire.close()


@pytest.fixture
async def db(wire: Wire) -> AsyncIterator[PostgresDb]:
    db = PostgresDb(wire.url, session_table=new_tables())
    yield db
    await db.aclose()


def note(run_context: RunContext) -> str:
    """Take a note."""
    run_context.session_state["n"] = run_context.session_state.get("n", 0) + 1
    return "noted"


def play(request: ModelRequest) -> Any:
    return "done" if request.messages[-1].role == "tool" else tool_call("note")


def noting(db: PostgresDb | None = None, **options: Any) -> Agent:
    return Agent(model=FunctionModel(play), tools=[note], db=db, session_state={"n": 0}, **options)


def team_of(size: int, db: PostgresDb) -> Team:
    def lead(request: ModelRequest) -> Any:
        if request.messages[-1].role == "tool":
            return "all done"
        calls = [tool_call("delegate_task_to_member", member_id=f"m{n}", task="go") for n in range(size)]
        return ModelResponse.of(None, *calls)

    members = [noting(name=f"m{n}") for n in range(size)]
    return Team(members, model=FunctionModel(lead), db=db, session_state={"n": 0})


async def questions(wire: Wire, run: Any) -> int:
    before = wire.questions
    assert (await run).status is RunStatus.completed
    return wire.questions - before


# How many questions


async def test_a_run_asks_two_questions_and_a_third_for_its_history(wire: Wire, db: PostgresDb) -> None:
    plain, recalling = noting(db), noting(db, add_history_to_context=True)
    for agent in (plain, recalling):
        await agent.arun("x", session_id="warm")  # statements are prepared once per connection
        await agent.arun("x", session_id="warm")
    counted = {
        "in a new session": await questions(wire, plain.arun("x", session_id="s")),
        "in one that is there": await questions(wire, plain.arun("x", session_id="s")),
        "with history": await questions(wire, recalling.arun("x", session_id="s")),
    }
    assert counted == {"in a new session": 2, "in one that is there": 2, "with history": 3}


@pytest.mark.parametrize("size", [1, 3, 12])
async def test_a_team_of_any_size_asks_no_more(wire: Wire, db: PostgresDb, size: int) -> None:
    team = team_of(size, db)
    for _ in range(2):
        await team.arun("x", session_id="warm")
    assert await questions(wire, team.arun("x", session_id="s")) == 2
    assert await questions(wire, team.arun("x", session_id="s")) == 2
    state = await team.aget_session_state(session_id="s")
    assert state == {"n": 2 * size}


async def test_a_commit_on_a_session_that_another_process_has_changed_asks_twice_more(
    wire: Wire, db: PostgresDb
) -> None:
    known = (await db.commit(state_commit(b'{"a":1}'))).row
    other = (await db.commit(state_commit(b'{"a":2}', known=known))).row
    await db.commit(state_commit(b'{"a":3}', known=known))  # which prepares what is asked then
    before = wire.questions
    seen: list[Any] = []
    done = await db.commit(state_commit(b'{"a":4}', known=other, seen=seen.append))
    assert wire.questions - before == 3
    assert [row.version for row in seen] == [2, 3]
    assert done.row.version == 4


# What is lost on the way


async def test_the_end_of_a_run_whose_answer_is_lost_counts_once(wire: Wire, db: PostgresDb) -> None:
    agent = noting(db, merge={"n": add})
    await agent.arun("x", session_id="s")
    gate, hit = asyncio.Event(), asyncio.Event()

    async def wait(request: ModelRequest) -> Any:
        if request.messages[-1].role == "tool":
            hit.set()
            await gate.wait()
        return play(request)

    slow = Agent(model=FunctionModel(wait), tools=[note], db=db, merge={"n": add})
    for lost in range(1, 4):
        run = asyncio.create_task(slow.arun("x", session_id="s"))
        await hit.wait()
        wire.answers_to_lose = lost
        gate.set()
        assert (await run).status is RunStatus.completed
        assert wire.answers_to_lose == 0
        gate.clear()
        hit.clear()
    row = await db.load_session("s")
    assert row is not None
    assert (row.state, row.revision) == (b'{"n":4}', 4)
    assert len(await db.load_runs("s")) == 4
    assert [change.revision for change in await db.load_changes("s")] == [1, 2, 3, 4]


@pytest.mark.parametrize("fate", ["questions_to_lose", "answers_to_lose"])
async def test_every_verb_survives_what_is_lost(wire: Wire, db: PostgresDb, fate: str) -> None:
    def lose() -> PostgresDb:
        setattr(wire, fate, 2)
        return db

    first = state_commit(b'{"a":1}', user_id="ann", runs=[run_row("r", media={"aa": b"x"})])
    await db.commit(first)
    later = state_commit(None, user_id="ann", runs=[run_row("q")], changes=[change_row(2)])
    assert (await lose().commit(later)).row.revision == 2
    assert [run.run_id for run in await lose().load_runs("s")] == ["r", "q"]
    assert (await lose().load_session("s")) is not None
    assert (await lose().load_session_and_run("s", "r"))[1] is not None
    assert await lose().load_media("s", ["aa"]) == {"aa": b"x"}
    assert [change.revision for change in await lose().load_changes("s")] == [2]
    assert await lose().describe_session("s", name="Shopping")
    assert [info.name for info in await lose().list_sessions()] == ["Shopping"]
    assert [run.run_id for run in await lose().list_runs()] == ["q", "r"]
    assert await lose().acquire_lease("l", "a", 60.0)
    assert not await lose().acquire_lease("l", "b", 60.0)
    await lose().release_lease("l", "a")
    assert await lose().acquire_lease("l", "b", 60.0)
    await lose().request_cancel("r", user_id="ann")
    assert await lose().cancel_requested(["r"], owners={"r": "ann"}) == {"r"}
    assert await db.cancel_requested(["r"], owners={"r": "ann"}) == set()
    assert await lose().delete_session("s")
    assert await db.load_run("r") is None
    await db.commit(first)
    assert await lose().delete_user("ann") == 1
    assert await db.list_sessions() == []


async def test_connections_that_broke_while_they_were_at_rest_are_made_anew(
    wire: Wire, db: PostgresDb
) -> None:
    await asyncio.gather(*(db.load_session("s") for _ in range(8)))
    wire.cut()
    assert await db.load_session("s") is None
    assert (await db.commit(state_commit())).row.version == 1


# Silence: connections that stay open, and hosts that hang


@pytest.fixture
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt waits for a short time only, at first."""
    monkeypatch.setattr(_postgres_pool, "_LONGEST_PART", 0.3)


@pytest.mark.parametrize("hears", [True, False])
@pytest.mark.usefixtures("short_parts")
async def test_the_end_of_a_run_is_sent_again_if_its_connection_goes_silent(
    wire: Wire, db: PostgresDb, hears: bool
) -> None:
    async def hush(request: ModelRequest) -> Any:
        if request.messages[-1].role == "tool" and is_silent:
            wire.hush(hears=hears)
        return play(request)

    agent = Agent(model=FunctionModel(hush), tools=[note], db=db, merge={"n": add})
    for is_silent in (False, False, True):  # noqa: B007 - the model reads it
        assert (await agent.arun("x", session_id="s")).status is RunStatus.completed
    row = await db.load_session("s")
    assert row is not None
    assert (row.state, row.revision) == (b'{"n":3}', 3)
    assert [change.revision for change in await db.load_changes("s")] == [1, 2, 3]


@pytest.mark.usefixtures("short_parts")
async def test_of_connections_that_are_all_silent_one_costs_its_time(
    wire: Wire, db: PostgresDb, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []
    once = _postgres_pool.Pool._once

    async def counted(pool: Any, job: Any, deadline: float, part: float) -> Any:
        tried.append(part)
        return await once(pool, job, deadline, part)

    await asyncio.gather(*(db.load_session("s") for _ in range(8)))
    wire.hush(hears=False)
    monkeypatch.setattr(_postgres_pool.Pool, "_once", counted)
    monkeypatch.setattr(
        _postgres_pool, "_LONGEST_PART", 2.0
    )  # enough to connect, however busy the machine is
    assert await db.load_session("s") is None
    assert tried[:2] == [2.0, 4.0]
    assert len(tried) < 8  # a busy machine may need another attempt to connect


@pytest.mark.usefixtures("short_parts")
async def test_a_transaction_on_a_connection_that_goes_silent_is_run_again(
    wire: Wire, db: PostgresDb
) -> None:
    await db.commit(state_commit(user_id="ann"))
    wire.hush(hears=True)
    assert await db.delete_user("ann") == 1
    assert await db.list_sessions() == []


@pytest.mark.parametrize("pool_size", [1, 8])
@pytest.mark.usefixtures("short_parts")
async def test_a_host_that_hangs_leaves_time_for_the_next_one(wire: Wire, pool_size: int) -> None:
    with tempfile.TemporaryDirectory(prefix="kern-w-") as folder, socket.socket(socket.AF_UNIX) as hung:
        hung.bind(f"{folder}/.s.PGSQL.{PORT}")
        hung.listen(64)  # the kernel accepts, and nobody answers
        url = wire.url.replace("host=", f"host={folder},")
        db = PostgresDb(url, session_table=new_tables(), pool_size=pool_size)
        written = await asyncio.gather(*(db.commit(state_commit(session_id=f"s{n}")) for n in range(8)))
        assert [done.row.version for done in written] == [1] * 8
        await db.aclose()
        first = db._pool._hosts._first
        assert await db.load_session("s0") is not None
        assert db._pool._hosts._first == first  # it begins at the host that has answered
        await db.aclose()


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("postgresql://u@h/app", ["h"]),
        ("postgresql://u@one,two:5433/app", ["one,two:5433", "two:5433,one"]),
        ("postgresql://u@/app?host=/a,/b&port=1,2", ["/a,/b 1,2", "/b,/a 2,1"]),
        ("postgresql://u@/app?host=a,b&port=5", ["a,b 5,5", "b,a 5,5"]),
    ],
)
def test_each_host_comes_first_once_with_its_own_port(url: str, hosts: list[str]) -> None:
    found = []
    for rotated in Server.of(url).rotations():
        parts = urlsplit(rotated)
        options = dict(parse_qsl(parts.query))
        found.append(f"{parts.netloc[2:] or options['host']} {options.get('port', '')}".strip())
    assert found == hosts
