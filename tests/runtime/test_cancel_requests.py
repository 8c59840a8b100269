"""Requests to cancel that wait in the database: each is for one attempt of one run, and reaches no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from kern import Agent, CancelResult, RunStatus, tool
from kern.db import InMemoryDb
from kern.db.base import Db, RunRow
from kern.engines.driving import submission, submit
from kern.engines.worker import Worker
from kern.errors import ModelError, RunConflictError
from kern.models.base import ModelRequest, ModelResponse
from kern.run import RunCancelledEvent
from kern.testing import FunctionModel, ScriptedModel, tool_call
from tests.databases import ask, opened

LOOKED = 1.3
"""Seconds after which the database has been asked for requests."""


@pytest.fixture
async def db(place: str) -> AsyncIterator[Db]:
    db = opened(place)
    yield db
    await db.aclose()


def requests(place: str) -> int:
    return int(ask(place, "SELECT count(*) FROM {t}_cancels"))


class Played:
    """An agent whose model is asked, waits, and then fails or answers; and whose tool needs a person."""

    def __init__(self, db: Db, *, fails: bool = False, pauses: bool = False) -> None:
        self.fails, self.pauses = fails, pauses
        self.wiped = 0
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.agent = Agent(
            id="played",
            model=FunctionModel(self.play),
            tools=[tool(self.wipe, requires_confirmation=True)],
            db=db,
        )

    def wipe(self) -> str:
        self.wiped += 1
        return "wiped"

    async def play(self, request: ModelRequest) -> ModelResponse:
        self.asked.set()
        await self.go.wait()
        if self.fails:
            raise ModelError("dead")
        if self.pauses and request.messages[-1].role != "tool":
            return ModelResponse.of(None, tool_call("wipe"))
        return ModelResponse.of("done")


async def test_the_end_of_an_attempt_takes_its_requests_along(db: Db, place: str) -> None:
    played = Played(db, fails=True)
    run = asyncio.create_task(played.agent.arun("x", run_id="R", user_id="ann"))
    await played.asked.wait()
    await db.request_cancel("R", user_id="ann")  # as another process does
    await db.request_cancel("R", user_id="mallory")
    played.go.set()
    with pytest.raises(ModelError):
        await run
    assert requests(place) == 0
    played.fails, played.go = False, asyncio.Event()
    again = asyncio.create_task(
        played.agent.arun("x", run_id="R", user_id="ann", on_duplicate="retry_failed")
    )
    await asyncio.sleep(LOOKED)
    played.go.set()
    assert (await again).status is RunStatus.completed


async def test_a_request_for_an_id_that_starts_later_does_not_reach_that_run(db: Db, place: str) -> None:
    played = Played(db, pauses=True)
    assert await played.agent.acancel_run("R") is CancelResult.requested  # nobody knows that id
    await asyncio.sleep(0.02)
    run = asyncio.create_task(played.agent.arun("x", run_id="R"))
    await asyncio.sleep(LOOKED)
    assert not run.done()
    await db.request_cancel("other")
    played.go.set()
    output = await run
    assert output.status is RunStatus.paused
    output.requirements[0].confirm()
    assert (await played.agent.acontinue_run(output)).status is RunStatus.completed
    assert played.wiped == 1


async def test_a_run_that_was_to_be_cancelled_does_not_wait_for_a_person(db: Db, place: str) -> None:
    played = Played(db, pauses=True)
    run = played.agent.arun("x", run_id="R", stream=True, stream_events=True)
    kinds = []

    async def listen() -> None:
        kinds.extend([type(event) async for event in run])

    heard = asyncio.create_task(listen())
    await played.asked.wait()
    await db.request_cancel("R")
    played.go.set()
    await heard
    assert kinds[-1] is RunCancelledEvent
    output = await played.agent.aget_run_output("R")
    assert output is not None
    assert output.status is RunStatus.cancelled
    assert output.requirements == []
    with pytest.raises(RunConflictError):
        await played.agent.acontinue_run(output)
    assert requests(place) == 0


async def test_a_run_that_goes_on_looks_before_it_acts(db: Db, place: str) -> None:
    played = Played(db, pauses=True)
    played.go.set()
    output = await played.agent.arun("x", run_id="R")
    await db.request_cancel("R")  # by a process that has not seen the pause
    output.requirements[0].confirm()
    assert (await played.agent.acontinue_run(output)).status is RunStatus.cancelled
    assert played.wiped == 0
    stored = await played.agent.aget_run_output("R")
    assert stored is not None
    assert stored.status is RunStatus.cancelled
    assert requests(place) == 0


def late(place: str) -> Db:
    """A database in which a row comes to be seen just after it was asked for."""
    db = opened(place)
    load_run, blind = db.load_run, 1

    async def load_late(run_id: str) -> RunRow | None:
        nonlocal blind
        blind -= 1
        return None if blind >= 0 else await load_run(run_id)

    setattr(db, "load_run", load_late)  # noqa: B010 - a method
    return db


async def test_a_run_that_pauses_or_ends_while_it_is_asked_for_is_told_as_what_it_is(
    db: Db, place: str
) -> None:
    played = Played(db, pauses=True)
    played.go.set()
    await played.agent.arun("x", run_id="R")
    assert await Agent(model=ScriptedModel([]), db=late(place)).acancel_run("R") is CancelResult.cancelled
    played.pauses = False
    await played.agent.arun("x", run_id="Q")
    assert await Agent(model=ScriptedModel([]), db=late(place)).acancel_run("Q") is CancelResult.too_late
    assert requests(place) == 0


def flood(place: str) -> None:
    """Insert 12,000 requests in eve's name for ids that nobody knows."""
    trusted, now = ("false", "now()") if "#" in place else ("0", "(julianday('now') - 2440587.5) * 86400.0")
    ask(
        place,
        "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 11999)"
        " INSERT INTO {t}_cancels (run_id, trusted, user_id, requested_at)"
        f" SELECT 'guess ' || i, {trusted}, 'eve', {now} FROM n",
    )


def age(place: str) -> None:
    """Make all requests older than an hour."""
    earlier = "interval '4000 s'" if "#" in place else "4000"
    ask(place, f"UPDATE {{t}}_cancels SET requested_at = requested_at - {earlier}")


async def test_requests_for_ids_that_nobody_knows_do_not_pile_up(db: Db, place: str) -> None:
    await db.request_cancel("first", user_id="eve")
    flood(place)
    await db.request_cancel("last", user_id="eve")
    assert requests(place) == 10_000
    assert await db.cancel_requested(["first", "last"], owners={"first": "eve", "last": "eve"}) == {"last"}
    age(place)
    await db.request_cancel("one")
    assert requests(place) == 1


async def test_a_request_is_not_lost_by_those_of_another_user(db: Db, place: str) -> None:
    await db.request_cancel("R", user_id="ann")
    await db.request_cancel("R")
    flood(place)
    await db.request_cancel("last", user_id="eve")
    assert requests(place) == 10_002
    assert await db.cancel_requested(["R"], owners={"R": "ann"}) == {"R"}
    assert requests(place) == 10_000


async def test_requests_in_memory_are_bounded_by_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kern.db._memory_cancels._MOST", 3)
    db = InMemoryDb()
    await db.claim_run("claimed", "process", 60.0)
    await db.request_cancel("claimed", user_id="eve")
    await db.request_cancel("R", user_id="ann")
    for at in range(9):
        await db.request_cancel(f"guess {at}", user_id="eve")
    owners = {"R": "ann", "claimed": "eve", **{f"guess {at}": "eve" for at in range(9)}}
    found = await db.cancel_requested(list(owners), owners=owners)
    assert found == {"claimed", "R", "guess 6", "guess 7", "guess 8"}


@pytest.mark.parametrize("state", ["submitted", "dead"])
@pytest.mark.parametrize("lost_by", ["age", "others"])
async def test_a_run_that_no_process_has_is_cancelled_whenever_its_worker_comes(
    db: Db, place: str, state: str, lost_by: str
) -> None:
    played = Played(db)
    asked = submission(played.agent, "x", run_id="R", session_id="s", user_id="ann")
    await submit(played.agent, asked)
    if state == "dead":
        worker = Worker(played.agent, poll_seconds=0.01)
        at_work = asyncio.create_task(worker.work())
        await played.asked.wait()
        worker.stop()
        await at_work
        played.asked.clear()
    assert await played.agent.acancel_run("R", user_id="ann") is CancelResult.requested
    if lost_by == "age":
        age(place)
    else:
        flood(place)
    await db.request_cancel("other", user_id="eve")
    played.go.set()
    worker = Worker(played.agent, poll_seconds=0.01)
    at_work = asyncio.create_task(worker.work())
    ended = (RunStatus.cancelled, RunStatus.completed)
    while (run := await played.agent.aget_run_output("R")) is None or run.status not in ended:
        await asyncio.sleep(0.02)
    worker.stop()
    await at_work
    assert run.status is RunStatus.cancelled
    assert not played.asked.is_set()
    assert await db.cancel_requested(["R"], owners={"R": "ann"}) == set()
