"""Runs that go on by themselves: who is refused is told, what goes on can be read, a pause goes on."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunStatus, tool
from kern.db import Db, SqliteDb
from kern.db.journals import RunAbout, StepRow
from kern.durable import DbJournal
from kern.durable.fingerprint import fingerprint
from kern.engines import submission, submit
from kern.errors import (
    KernError,
    RunConflictError,
    RunMismatch,
    SessionDeletedError,
    SessionOwnershipError,
)
from kern.messages import Message
from kern.run import RunPausedEvent
from kern.testing import ScriptedModel, tool_call
from tests.databases import KINDS, opener


@pytest.fixture(params=[kind for kind in KINDS if kind != "memory"])
async def opened(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Opens the database, each time as another process would."""
    dbs: list[Db] = []
    once = opener(request, tmp_path)

    def open() -> Db:
        dbs.append(once())
        return dbs[-1]

    yield open
    for db in dbs:
        await db.aclose()


class Desk:
    """An agent whose tool waits."""

    def __init__(self, db: Db, *answers: Any, waits: bool = True) -> None:
        self.waits = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.done: list[str] = []

        @tool(effect="idempotent")
        async def work() -> str:
            """Work."""
            self.waits.set()
            if waits:
                await self.goes_on.wait()
            return "worked"

        @tool(requires_confirmation=True, effect="idempotent")
        async def pay() -> str:
            """Pay."""
            self.done.append("paid")
            self.waits.set()
            if waits:
                await self.goes_on.wait()
            return "paid"

        journal = DbJournal(db, claim_seconds=0.5)
        self.model = ScriptedModel(list(answers))
        self.agent = Agent(id="desk", model=self.model, tools=[work, pay], db=db, journal=journal)


ASKED: dict[str, Any] = {"session_id": "s", "user_id": "ann", "run_id": "r"}


async def test_a_second_start_that_is_refused_is_told(opened: Any) -> None:
    desk = Desk(opened(), tool_call("work"), "done")
    first = await desk.agent.astart("q", **ASKED)
    await desk.waits.wait()
    for other, error in (
        ({"session_id": "another"}, RunMismatch),
        ({"input": "another"}, RunMismatch),
        ({"on_duplicate": "raise"}, RunConflictError),
        ({"user_id": "eve"}, SessionOwnershipError),
        ({"user_id": "eve", "session_id": "hers"}, SessionOwnershipError),
    ):
        asked = {"input": "q", **ASKED, **other}
        with pytest.raises(error):
            await desk.agent.astart(asked.pop("input"), **asked)
    agent_of_that_db = Agent(id="another", model=ScriptedModel(["x"]), db=desk.agent.db)
    with pytest.raises(RunMismatch, match="agent or team"):
        await agent_of_that_db.astart("q", **ASKED)
    again = await desk.agent.astart("q", **ASKED)
    desk.goes_on.set()
    assert (await again.result()).content == (await first.result()).content == "done"


@pytest.mark.parametrize(
    ("other", "error"),
    [
        ({"user_id": "eve"}, SessionOwnershipError),
        ({"user_id": "eve", "session_id": "hers"}, SessionOwnershipError),
        ({"session_id": "another"}, RunMismatch),
        ({"input": "another"}, RunMismatch),
    ],
)
async def test_whoever_names_a_run_that_goes_on_gets_the_right_error(
    opened: Any, other: dict[str, Any], error: type[KernError]
) -> None:
    desk = Desk(opened(), tool_call("work"), "done")
    handle = await desk.agent.astart("q", **ASKED)
    await desk.waits.wait()
    asked = {"input": "q", **ASKED, **other}
    stranger = Desk(opened(), "theirs")
    with pytest.raises(error) as caught:
        await stranger.agent.arun(asked.pop("input"), **asked)
    assert type(caught.value) is error
    assert stranger.model.requests == []
    desk.goes_on.set()
    assert (await handle.result()).status is RunStatus.completed


async def test_the_output_of_a_run_that_goes_on_is_running(opened: Any) -> None:
    desk = Desk(opened(), tool_call("work"), tool_call("pay"), "done")
    handle = await desk.agent.astart("q", **ASKED)
    await desk.waits.wait()
    there = Desk(opened()).agent

    async def status() -> RunStatus:
        output = await there.aget_run_output("r", user_id="ann")
        assert output is not None
        assert (output.run_id, output.session_id, output.user_id) == ("r", "s", "ann")
        return output.status

    assert await status() is RunStatus.running
    with pytest.raises(SessionOwnershipError):
        await there.aget_run_output("r", user_id="eve")
    assert await there.aget_run_output("unknown") is None
    desk.goes_on.set()
    paused = await handle.result()
    assert await status() is RunStatus.paused
    desk.goes_on.clear()
    desk.waits.clear()
    paused.requirements[0].confirm()
    handle = await desk.agent.astart_continuation(paused)
    await desk.waits.wait()
    assert await status() is RunStatus.running
    desk.goes_on.set()
    await handle.result()
    assert await status() is RunStatus.completed


async def test_a_pause_is_gone_on_with_by_id_and_stays_in_what_the_run_has_told(opened: Any) -> None:
    desk = Desk(opened(), tool_call("pay"), "done", waits=False)
    paused = await (await desk.agent.astart("q", **ASKED)).result()
    before = [event async for event in desk.agent.follow("r")]
    assert isinstance(before[-1], RunPausedEvent)
    paused.requirements[0].confirm()
    handle = await desk.agent.astart_continuation(run_id="r", user_id="ann", requirements=paused.requirements)
    assert (await handle.result()).content == "done"
    assert (await handle.result()).run_id == handle.run_id == "r"
    whole = [event async for event in Desk(opened()).agent.follow("r")]
    assert [(event.seq, event.event) for event in whole[: len(before)]] == [
        (event.seq, event.event) for event in before
    ]
    told = whole[len(before) - 1]
    assert isinstance(told, RunPausedEvent)
    assert [need.tool_name for need in told.requirements] == ["pay"]
    assert whole[len(before)].event == "RunContinued"
    assert whole[-1].event == "RunCompleted"
    numbers = [event.seq for event in whole]
    assert numbers == sorted(set(numbers))
    later = [event async for event in handle.follow(after=before[-1].seq)]
    assert [event.seq for event in later] == numbers[len(before) :]


async def test_a_continuation_that_is_refused_is_told(opened: Any) -> None:
    desk = Desk(opened(), tool_call("pay"), "done")
    paused = await (await desk.agent.astart("q", **ASKED)).result()
    with pytest.raises(SessionOwnershipError):
        await desk.agent.astart_continuation(run_id="r", user_id="eve")
    paused.requirements[0].confirm()
    handle = await desk.agent.astart_continuation(paused)
    with pytest.raises(RunConflictError):
        await desk.agent.astart_continuation(paused)
    desk.goes_on.set()
    assert (await handle.result()).content == "done"
    assert desk.done == ["paid"]


async def test_a_continuation_is_started_by_sync_code(opened: Any) -> None:
    desk = Desk(opened(), tool_call("pay"), "done", waits=False)

    def work() -> Any:
        paused = desk.agent.start("q", **ASKED).wait(20)
        paused.requirements[0].confirm()
        return desk.agent.start_continuation(paused).wait(20)

    assert (await asyncio.to_thread(work)).content == "done"


@pytest.mark.parametrize("earlier", [True, False], ids=["stored session", "new session"])
@pytest.mark.parametrize("whole_user", [True, False], ids=["user", "session"])
async def test_a_run_whose_session_is_deleted_elsewhere_ends_with_the_documented_error(
    opened: Any, earlier: bool, whole_user: bool
) -> None:
    answers = ["hello"] if earlier else []
    desk = Desk(opened(), *answers, tool_call("work"), "done")
    if earlier:
        await desk.agent.arun("hi", session_id="s", user_id="ann", run_id="before")
    handle = await desk.agent.astart("q", **ASKED)
    await desk.waits.wait()
    elsewhere = opened()
    await elsewhere.delete_user("ann") if whole_user else await elsewhere.delete_session("s")
    desk.goes_on.set()
    with pytest.raises(SessionDeletedError):
        await handle.result()
    assert await elsewhere.load_run("r") is None
    assert await elsewhere.load_session("s") is None
    assert await elsewhere.load_events("r") == []
    assert await DbJournal(elsewhere).unfinished() == []
    assert len(desk.model.requests) == 1 + earlier, "the model is not asked again"


@pytest.mark.parametrize("whole_user", [True, False], ids=["user", "session"])
async def test_a_session_takes_its_submitted_runs_along(opened: Any, whole_user: bool) -> None:
    agent = Desk(opened()).agent
    for session_id in ("s", "s2"):
        run = submission(agent, "go", session_id=session_id, user_id="ann", run_id=f"r-{session_id}")
        await submit(agent, run)
    journal = DbJournal(opened())
    if whole_user:
        await agent.adelete_user("ann")
    else:
        await agent.adelete_session("s", user_id="ann")
    left = [] if whole_user else ["r-s2"]
    assert await journal.unfinished() == left
    assert [run.run_id for run in await agent.alist_runs(status="RUNNING")] == left
    taken = await journal.take(["desk"])
    assert (taken is None) == whole_user


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kern.runner.detached.STAND_BY_SECONDS", 0.05)


@pytest.mark.usefixtures("quick_looks")
async def test_a_start_of_a_run_whose_process_dies_resumes_it(opened: Any) -> None:
    db = opened()
    about = RunAbout(session_id="s", user_id="ann", runner_id="desk", is_team=False)
    dying = await db.claim_run("r", "elsewhere", 3600.0, about)
    desk = Desk(opened(), "done")
    handles = [await desk.agent.astart("q", **ASKED) for _ in range(3)]
    await asyncio.sleep(0.2)
    assert desk.model.requests == []
    assert dying is not None
    await db.release_claim(dying.claim)
    outputs = [await handle.result() for handle in handles]
    assert [output.content for output in outputs] == ["done"] * 3
    assert len(desk.model.requests) == 1


@pytest.mark.usefixtures("quick_looks")
async def test_a_start_with_another_input_is_refused_once_the_run_s_first_step_is_known(opened: Any) -> None:
    db = opened()
    about = RunAbout(session_id="s", user_id="ann", runner_id="desk", is_team=False)
    theirs = await db.claim_run("r", "elsewhere", 3600.0, about)
    assert theirs is not None
    desk = Desk(opened(), "done")
    right = await desk.agent.astart("q", **ASKED)
    wrong = await desk.agent.astart("another question", **ASKED)
    data = json.dumps({"fingerprint": fingerprint("q", [Message("user", "q")])}).encode()
    assert await db.append_steps(theirs.claim, 3600.0, [StepRow(key="r/base", kind="base", data=data)])
    with pytest.raises(RunMismatch, match="input"):
        await wrong.result()
    assert desk.model.requests == []
    await db.forget_run("r")
    assert (await right.result()).content == "done"


ELSEWHERE = """
import asyncio, sys, time
from pathlib import Path
from kern import Agent
from kern.db import SqliteDb
from kern.testing import FunctionModel

def answer(request):
    print("asked", flush=True)
    while not Path("go").exists():
        time.sleep(0.01)
    return "theirs"

async def main():
    agent = Agent(id="desk", model=FunctionModel(answer), db=SqliteDb("a.db"))
    await (await agent.astart("q", session_id="s", user_id="ann", run_id="r")).result()

asyncio.run(main())
"""


@pytest.mark.usefixtures("quick_looks")
async def test_a_start_of_a_run_of_another_process_returns_a_handle_of_it(tmp_path: Path) -> None:
    there = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ELSEWHERE, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
    )
    assert there.stdout is not None
    assert await there.stdout.readline() == b"asked\n"
    desk = Desk(SqliteDb(tmp_path / "a.db"))
    handle = await desk.agent.astart("q", **ASKED)
    (tmp_path / "go").touch()
    assert [event.event async for event in handle.follow()][-1] == "RunCompleted"
    assert (await handle.result()).content == "theirs"
    assert await there.wait() == 0
    assert desk.model.requests == []
