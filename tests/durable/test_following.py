"""Following runs: rows while they run, events from any process, whole texts where a process dies."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunStatus, Team, shutdown, tool
from kern.db import Db, InMemoryDb
from kern.db.journals import JournalDb
from kern.durable import DbJournal
from kern.errors import SessionOwnershipError, ShutdownError, UsageError
from kern.run.events import Event
from kern.run.output import TeamRunOutput
from kern.testing import ScriptedModel, tool_call
from tests.databases import SHARED, opener, place_of
from tests.durable.listener import Heard, listen, post
from tests.durable.serving import team_on
from tests.processes import ROOT


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Db]:
    db = opener(request, tmp_path)()
    yield db
    await db.aclose()


class Waiting:
    """An agent whose tool waits until it is let go."""

    def __init__(self, db: Db, *answers: Any, **more: Any) -> None:
        self.waits, self.go = asyncio.Event(), asyncio.Event()

        @tool(effect="read")
        async def work() -> str:
            """Work."""
            self.waits.set()
            await self.go.wait()
            return "worked"

        model = ScriptedModel(answers or [tool_call("work"), "all is done"])
        self.agent = Agent(id="desk", name="Desk", model=model, tools=[work], db=db, **more)


async def heard(events: AsyncIterator[Event]) -> Heard:
    ears = Heard()
    async for event in events:
        ears.add(event)
    return ears


async def test_a_run_that_was_started_is_listed_while_it_runs(db: Db) -> None:
    desk = Waiting(db)
    handle = await desk.agent.astart("go", session_id="s", user_id="u")
    await desk.waits.wait()
    (listed,) = await desk.agent.alist_runs(status=RunStatus.running, user_id="u")
    assert (listed.run_id, listed.status, listed.session_id) == (handle.run_id, RunStatus.running, "s")
    assert await desk.agent.alist_runs(status="RUNNING", session_id="s", user_id="u") == [listed]
    assert await desk.agent.alist_runs(status="RUNNING", user_id="somebody else") == []
    desk.go.set()
    assert (await handle.result()).content == "all is done"
    assert await desk.agent.alist_runs(status="RUNNING") == []


async def test_a_run_that_is_started_twice_is_one_run(db: Db) -> None:
    desk = Waiting(db)
    first = await desk.agent.astart("go", session_id="s", run_id="r")
    await desk.waits.wait()
    second = await desk.agent.astart("go", session_id="s", run_id="r")
    desk.go.set()
    outputs = [await handle.result() for handle in (first, second)]
    third = await (await desk.agent.astart("go", session_id="s", run_id="r")).result()
    assert [output.content for output in (*outputs, third)] == ["all is done"] * 3
    assert (await heard(desk.agent.follow("r"))).seen[-1].content == "all is done"


async def test_what_refuses_a_run_refuses_its_start(db: Db) -> None:
    desk = Waiting(db)
    desk.go.set()
    await (await desk.agent.astart("go", session_id="s", user_id="u")).result()
    with pytest.raises(SessionOwnershipError):
        await desk.agent.astart("go", session_id="s", user_id="somebody else")


async def test_a_plain_run_writes_no_such_row() -> None:
    desk = Waiting(InMemoryDb())
    task = asyncio.create_task(desk.agent.arun("go"))
    await desk.waits.wait()
    assert await desk.agent.alist_runs(status="RUNNING") == []
    desk.go.set()
    await task


async def test_a_follower_hears_the_whole_run_and_its_end(db: Db) -> None:
    desk = Waiting(db)
    handle = await desk.agent.astart("go", session_id="s")
    following = asyncio.create_task(heard(handle.follow()))
    await desk.waits.wait()
    desk.go.set()
    ears = await following
    assert [event.event for event in ears.seen] == [
        "RunStarted",
        "ModelRequestStarted",
        "ModelRequestCompleted",
        "ToolCallStarted",
        "ToolCallCompleted",
        "ModelRequestStarted",
        "RunContent",
        "ModelRequestCompleted",
        "RunContentCompleted",
        "RunCompleted",
    ]
    assert [event.seq for event in ears.seen] == sorted({event.seq for event in ears.seen})
    assert ears.texts[handle.run_id] == ears.seen[-1].content == "all is done"


async def test_a_stream_that_is_cut_at_any_event_is_whole_when_it_is_read_on(db: Db) -> None:
    desk = Waiting(db)
    desk.go.set()
    handle = await desk.agent.astart("go", session_id="s")
    await handle.result()
    whole = [event.to_dict() async for event in desk.agent.follow(handle.run_id)]
    for cut, event in enumerate(whole, 1):
        rest = [later.to_dict() async for later in desk.agent.follow(handle.run_id, after=event["seq"])]
        assert whole[:cut] + rest == whole


async def test_nobody_follows_the_run_of_another_user(db: Db) -> None:
    desk = Waiting(db)
    handle = await desk.agent.astart("go", session_id="s", user_id="u")
    for _ in range(2):  # while it runs, and when it has ended
        with pytest.raises(SessionOwnershipError):
            await anext(desk.agent.follow(handle.run_id, user_id="somebody else"))
        desk.go.set()
        await handle.result()
    assert (await heard(desk.agent.follow(handle.run_id, user_id="u"))).ended


async def test_a_run_that_is_unknown_cannot_be_followed(db: Db) -> None:
    with pytest.raises(UsageError, match="no run 'x' to follow"):
        await anext(Waiting(db).agent.follow("x"))


async def test_a_deleted_session_leaves_no_events(db: Db) -> None:
    desk = Waiting(db)
    desk.go.set()
    handle = await desk.agent.astart("go", session_id="s")
    await handle.result()
    await desk.agent.adelete_session("s")
    with pytest.raises(UsageError, match="to follow"):
        await anext(desk.agent.follow(handle.run_id))
    assert isinstance(db, JournalDb)
    assert await db.load_events(handle.run_id) == []


async def test_a_started_run_is_cancelled_by_its_id_and_tells_so(db: Db) -> None:
    desk = Waiting(db)
    handle = await desk.agent.astart("go", session_id="s")
    await desk.waits.wait()
    assert await handle.cancel()
    assert (await handle.result()).status is RunStatus.cancelled
    assert (await heard(handle.follow())).seen[-1].event == "RunCancelled"


async def test_a_paused_run_ends_the_stream_and_numbers_go_on_when_it_is_continued(db: Db) -> None:
    @tool(requires_confirmation=True, effect="read")
    def pay() -> str:
        """Pay."""
        return "paid"

    model = ScriptedModel([tool_call("pay"), "it is paid"])
    agent = Agent(model=model, tools=[pay], db=db, journal=DbJournal(db))
    paused = await (await agent.astart("go", session_id="s", run_id="r")).result()
    first = await heard(agent.follow("r"))
    assert first.seen[-1].event == "RunPaused"
    paused.requirements[0].confirm()
    await agent.acontinue_run(paused)
    second = await heard(agent.follow("r", after=first.last))
    assert [event.event for event in second.seen][::5] == ["RunContinued", second.seen[5].event]
    assert second.seen[-1].content == "it is paid"
    assert second.seen[0].seq > first.last


async def test_shutdown_lets_go_and_another_process_goes_on_under_higher_numbers(db: Db) -> None:
    desk = Waiting(db)
    handle = await desk.agent.astart("go", session_id="s", run_id="r")
    await desk.waits.wait()
    await shutdown(0)
    with pytest.raises(ShutdownError):
        await handle.result()
    other = Waiting(db, "all is done")
    other.go.set()
    following = asyncio.create_task(heard(other.agent.follow("r")))
    output = await (await other.agent.astart("go", session_id="s", run_id="r")).result()
    ears = await following
    assert [event.event for event in ears.seen].count("ModelRequestCompleted") == 2
    assert [event.event for event in ears.seen].count("RunStarted") == 1
    assert [event.event for event in ears.seen].count("RunContinued") == 1
    assert ears.texts["r"] == output.content == "all is done"


def test_sync_code_starts_a_run_and_waits_for_it() -> None:
    agent = Agent(model=ScriptedModel(["hello"]))
    handle = agent.start("go")
    assert handle.wait(20).content == "hello"


# Servers that are killed.


class Servers:
    """A process that forks servers."""

    def __init__(self, process: subprocess.Popen[str], **order: Any) -> None:
        self._process = process
        self._order = json.dumps(order)

    def one_more(self) -> tuple[int, int]:
        """The id and the port of a new server."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self._order}\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return answer["pid"], answer["port"]


@contextmanager
def servers(place: str, redis: str | None = None, claim_seconds: float = 0.3) -> Iterator[Servers]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.durable.serving"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield Servers(process, place=place, redis=redis, claim_seconds=claim_seconds)
    finally:
        process.kill()
        process.wait(timeout=20)
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


async def survive(forge: Servers, team: Team, run_id: str) -> tuple[list[str], bool]:
    """Follow a run whose server dies; what is wrong with what was heard, and whether it died in the run."""
    (first, port), (second, other) = forge.one_more(), forge.one_more()
    try:
        assert await post(port, f"/runs/{run_id}") == "started"
        ears = Heard()
        listening = asyncio.create_task(listen(port, run_id, ears))
        await asyncio.sleep(random.uniform(0, 0.5))
        os.kill(first, signal.SIGKILL)
        await listening
        died_in_it = not ears.ended
        going_on = asyncio.create_task(post(other, f"/runs/{run_id}"))
        until = time.monotonic() + 20
        while not ears.ended and time.monotonic() < until:
            await listen(other, run_id, ears)
        await going_on
    finally:
        for pid in (first, second):
            os.kill(pid, signal.SIGKILL)
    output = await team.aget_run_output(run_id)
    assert isinstance(output, TeamRunOutput)
    found = []
    for run in (output, *output.member_responses):
        if ears.texts[run.run_id] != run.content:
            found.append(f"{run_id}: heard {ears.texts[run.run_id]!r}, and it was {run.content!r}")
            found += [f"{e.seq} {e.event} {e.content!r}" for e in ears.seen if e.run_id == run.run_id]
    if [event.seq for event in ears.seen] != sorted({event.seq for event in ears.seen}):
        found.append(f"{run_id}: numbers {[event.seq for event in ears.seen]}")
    return found, died_in_it


async def survivals(
    kind: str, number: int, tmp_path: Path, request: pytest.FixtureRequest, redis: str | None = None
) -> None:
    place = place_of(kind, tmp_path, request)
    team = team_on(place)
    await team.aget_session_state(session_id="none")  # the tables are there
    found, deaths, tried = [], 0, 0
    with servers(place, redis) as forge:
        while deaths < number and tried < 3 * number:
            texts, died = await survive(forge, team, f"r{tried}")
            found += texts
            deaths += died
            tried += 1
    print(f"\n{deaths} of {tried} servers died in the run")
    assert found == []
    assert deaths == number
    assert team.db is not None
    await team.db.aclose()


@pytest.mark.timeout(120)  # of work that takes a few seconds on an idle machine
@pytest.mark.parametrize("kind", SHARED)
async def test_a_client_whose_server_is_killed_has_the_whole_text_from_another_one(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    await survivals(kind, 2, tmp_path, request)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", SHARED)
async def test_twenty_four_clients_whose_servers_are_killed_have_the_whole_text(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    await survivals(kind, 24, tmp_path, request)
