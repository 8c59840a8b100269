"""`on_busy`: one run of a session at a time, within a process and between processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunContext, RunStatus, Team
from kern.db.base import Db
from kern.db.in_memory import InMemoryDb
from kern.errors import SessionBusyError, SessionError, StoreError, UsageError
from kern.models.base import ModelRequest
from kern.runtime import lease
from kern.runtime.session import live_sessions
from kern.testing import FunctionModel, ScriptedModel, no_leaks, tool_call
from tests import processes
from tests.databases import KINDS, opened, opener
from tests.played import agent_with, execution_of


class Room:
    """A model that notes who is in, and keeps everybody until told."""

    def __init__(self) -> None:
        self.inside = 0
        self.most = 0
        self.came: list[str] = []
        self.open = asyncio.Event()
        self.someone = asyncio.Event()

    def model(self) -> FunctionModel:
        async def play(request: ModelRequest) -> str:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.came.append(str(request.messages[-1].content))
            self.someone.set()
            try:
                await self.open.wait()
            finally:
                self.inside -= 1
            return "ok"

        return FunctionModel(play)

    def agent(self, db: Db, on_busy: Any = "queue", **options: Any) -> Agent:
        return Agent(model=self.model(), db=db, session_id="s", on_busy=on_busy, **options)


@pytest.fixture(params=KINDS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Db:
    return opener(request, tmp_path)()


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def lease_is_free(db: Db) -> bool:
    free = await db.acquire_lease("s", "test", 30.0)
    await db.release_lease("s", "test")
    return free


async def test_sharing_is_the_default() -> None:
    room = Room()
    agent = Agent(model=room.model(), session_id="s")
    runs = [asyncio.create_task(agent.arun(str(i))) for i in range(3)]
    while room.inside < 3:
        await asyncio.sleep(0)
    room.open.set()
    await asyncio.gather(*runs)


async def test_queued_runs_go_one_by_one_in_the_order_of_their_coming(db: Db) -> None:
    room = Room()
    agent = room.agent(db)
    async with no_leaks():
        runs = []
        for name in ("one", "two", "three"):
            runs.append(asyncio.create_task(agent.arun(name)))
            await turns()
        await room.someone.wait()
        assert not await lease_is_free(db)
        room.open.set()
        await asyncio.gather(*runs)
        assert (room.came, room.most) == (["one", "two", "three"], 1)
        assert await lease_is_free(db)
    assert len(live_sessions) == 0


async def test_a_queued_run_sees_what_the_one_before_it_has_written(db: Db) -> None:
    def count(run_context: RunContext) -> str:
        run_context.session_state["n"] += 1
        return str(run_context.session_state["n"])

    agent = agent_with(count, db=db, session_id="s", session_state={"n": 0}, on_busy="queue")
    agent.instructions = "It is {n}."
    await asyncio.gather(*(agent.arun("go") for _ in range(4)))
    model = agent.model
    assert isinstance(model, FunctionModel)
    assert [r.messages[0].content for r in model.requests[::2]] == [f"It is {n}." for n in range(4)]


async def test_a_busy_session_is_refused(db: Db) -> None:
    room = Room()
    agent = room.agent(db, "reject")
    first = asyncio.create_task(agent.arun("one"))
    await room.someone.wait()
    with pytest.raises(SessionBusyError, match="session 's' is used by another run"):
        await agent.arun("two")
    room.open.set()
    await first
    assert (await agent.arun("three")).status is RunStatus.completed
    assert room.came == ["one", "three"]


async def test_other_sessions_are_not_waited_for(db: Db) -> None:
    room = Room()
    agent = room.agent(db, "reject")
    runs = [asyncio.create_task(agent.arun("go", session_id=f"s{i}")) for i in range(3)]
    while room.inside < 3:
        await asyncio.sleep(0)
    room.open.set()
    await asyncio.gather(*runs)


async def test_a_run_that_was_walked_away_from_is_no_reason_to_refuse(db: Db) -> None:
    room = Room()
    room.open.set()
    agent = room.agent(db, "reject")
    async for _ in agent.arun("one", stream=True):
        break
    assert (await agent.arun("two")).status is RunStatus.completed


async def test_waiting_can_be_cancelled(db: Db) -> None:
    room = Room()
    agent = room.agent(db)
    first = asyncio.create_task(agent.arun("one"))
    await room.someone.wait()
    second = asyncio.create_task(agent.arun("two"))
    third = asyncio.create_task(agent.arun("three"))
    await turns()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    room.open.set()
    await asyncio.gather(first, third)
    assert room.came == ["one", "three"]
    assert await lease_is_free(db)


@pytest.mark.parametrize("how", ["error", "cancel"])
async def test_the_lease_is_given_back_however_the_run_ends(db: Db, how: str) -> None:
    async def fail(request: ModelRequest) -> str:
        if how == "error":
            raise LookupError("no")
        await asyncio.Event().wait()
        return ""

    model = FunctionModel(fail)
    agent = Agent(model=model, db=db, session_id="s", on_busy="queue")
    run = asyncio.create_task(agent.arun("go"))
    while not model.requests:
        await asyncio.sleep(0)
    run.cancel()
    await asyncio.wait([run])
    assert await lease_is_free(db)


@pytest.mark.parametrize("touched", [True, False])
async def test_a_nested_run_does_not_wait_for_its_own_caller(db: Db, touched: bool) -> None:
    inner = Agent(model=ScriptedModel(["inner answer"] * 4), db=db, session_id="s", on_busy="queue")

    async def with_context(run_context: RunContext) -> str:
        if touched:
            run_context.session_state["touched"] = True
        return str((await inner.arun("go")).content)

    def sync_with_context(run_context: RunContext) -> str:
        if touched:
            run_context.session_state["touched"] = True
        return str(inner.run("go").content)

    async def without_context() -> str:
        return str((await inner.arun("go")).content)

    def sync_without_context() -> str:
        return str(inner.run("go").content)

    tools = [with_context, sync_with_context, without_context, sync_without_context]
    output = await agent_with(*tools, db=db, session_id="s", on_busy="queue").arun("go")
    for tool in tools:
        assert execution_of(output, tool.__name__).result == "inner answer"
    assert await lease_is_free(db)


async def test_members_take_no_lease(db: Db) -> None:
    member = Agent(name="m", model=ScriptedModel(["done"]), on_busy="reject")
    leader = ScriptedModel([tool_call("delegate_task_to_member", member_id="m", task="go"), "all done"])
    team = Team([member], model=leader, db=db, session_id="s", on_busy="reject")
    assert (await team.arun("go")).content == "all done"


async def test_accessors_need_no_lease(db: Db) -> None:
    room = Room()
    agent = room.agent(db, "reject", session_state={"a": 1})
    run = asyncio.create_task(agent.arun("one"))
    await room.someone.wait()
    assert await agent.aget_session_state() == {"a": 1}
    assert await agent.aupdate_session_state({"b": 2}) == {"a": 1, "b": 2}
    room.open.set()
    output = await run
    assert output.session_state == {"a": 1, "b": 2}


async def test_a_lease_of_another_process_is_waited_for(db: Db) -> None:
    room = Room()
    room.open.set()
    agent = room.agent(db)
    assert await db.acquire_lease("s", "another process", 30.0)
    run = asyncio.create_task(agent.arun("go"))
    with pytest.raises(SessionBusyError):
        await room.agent(InMemoryFront(db), "reject").arun("go")
    await turns()
    assert room.came == []
    await db.release_lease("s", "another process")
    await run
    assert room.came == ["go"]


class InMemoryFront(InMemoryDb):
    """The leases of another database, reached from what passes for another process."""

    def __init__(self, db: Db) -> None:
        super().__init__()
        self._db = db

    async def acquire_lease(self, session_id: str, owner: str, seconds: float) -> bool:
        return await self._db.acquire_lease(session_id, owner, seconds)

    async def release_lease(self, session_id: str, owner: str) -> None:
        await self._db.release_lease(session_id, owner)


async def test_waiting_for_another_process_can_be_cancelled_and_leaves_nothing(db: Db) -> None:
    agent = Room().agent(db)
    assert await db.acquire_lease("s", "another process", 30.0)
    async with no_leaks():
        run = asyncio.create_task(agent.arun("go"))
        await turns()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
    await db.release_lease("s", "another process")
    assert await lease_is_free(db)


class LosingDb(InMemoryDb):
    """Grants the lease until it is told to lose it."""

    def __init__(self, renewal: Callable[[], Awaitable[bool]]) -> None:
        super().__init__()
        self.renewal = renewal
        self.loses = False

    async def acquire_lease(self, session_id: str, owner: str, seconds: float) -> bool:
        return await self.renewal() if self.loses else True


async def refused() -> bool:
    return False


async def unreachable() -> bool:
    raise StoreError("the database is away")


@pytest.mark.parametrize(
    ("renewal", "message"),
    [(refused, "another run took it over"), (unreachable, "could not be renewed: the database is away")],
)
async def test_a_lost_lease_fails_the_run_and_keeps_what_it_has_done(
    renewal: Callable[[], Awaitable[bool]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(lease, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.05)
    db = LosingDb(renewal)

    def note(run_context: RunContext) -> str:
        run_context.session_state["noted"] = True
        return "noted"

    async def stay() -> str:
        db.loses = True
        await asyncio.Event().wait()
        return ""

    async def play(request: ModelRequest) -> Any:
        return tool_call("stay") if request.messages[-1].role == "tool" else tool_call("note")

    agent = Agent(model=FunctionModel(play), tools=[note, stay], db=db, session_id="s", on_busy="queue")
    async with no_leaks():
        with pytest.raises(SessionError, match=message) as caught:
            await agent.arun("go")
    assert caught.value.run_output.status is RunStatus.error
    stored = await agent.aget_last_run_output()
    assert stored is not None
    assert (stored.status, stored.error_type) == (RunStatus.error, "SessionError")
    assert await agent.aget_session_state() == {"noted": True}


async def test_a_renewal_that_comes_late_and_finds_others_at_work_is_a_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The process stood still for longer than the lease, and the lease was free again when it woke up."""
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(lease, "LEASE_SECONDS", 0.0)
    db = InMemoryDb()
    room = Room()
    agent = room.agent(db)
    await agent.aupdate_session_state({"a": 1})
    run = asyncio.create_task(agent.arun("go"))
    await room.someone.wait()
    (session,) = live_sessions._sessions.values()
    session.row = replace(session.row, version=session.row.version - 1)  # as if another process had written
    with pytest.raises(SessionError, match="took it over"):
        await run


async def test_a_renewed_lease_lives_as_long_as_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.01)
    renewed = asyncio.Event()

    class Counting(InMemoryDb):
        asked = 0

        async def acquire_lease(self, session_id: str, owner: str, seconds: float) -> bool:
            self.asked += 1
            if self.asked == 5:
                renewed.set()
            return await super().acquire_lease(session_id, owner, seconds)

    room = Room()
    run = asyncio.create_task(room.agent(Counting()).arun("go"))
    await renewed.wait()
    room.open.set()
    assert (await run).status is RunStatus.completed


def test_an_unknown_word_is_refused() -> None:
    with pytest.raises(UsageError, match="on_busy must be one of share, queue, reject, not 'wait'"):
        Agent(on_busy="wait")


# Real processes.

WORKER = """
    import asyncio, os, sys
    from kern import Agent
    from kern.runtime import lease
    from kern.testing import FunctionModel
    from tests.databases import opened

    place, marker, runs, stay = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "stay"
    lease.LEASE_SECONDS = float(sys.argv[5])

    async def play(request):
        handle = os.open(marker, os.O_CREAT | os.O_EXCL)  # fails if another is inside
        os.close(handle)
        print("in", flush=True)
        if stay:
            await asyncio.Event().wait()
        await asyncio.sleep(0.002)
        os.unlink(marker)
        return "ok"

    async def main():
        agent = Agent(model=FunctionModel(play), db=opened(place), session_id="s", on_busy="queue")
        for _ in range(runs):
            await agent.arun("go")

    asyncio.run(main())
"""


async def worker(
    place: str, marker: Path, runs: int, *, stay: bool = False, seconds: float = 30.0
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        textwrap.dedent(WORKER),
        place,
        str(marker),
        str(runs),
        "stay" if stay else "go",
        str(seconds),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=processes.environment(),
    )


async def test_real_processes_take_turns(place: str, tmp_path: Path) -> None:
    workers = [await worker(place, tmp_path / "inside", 4) for _ in range(3)]
    for process in workers:
        out, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        assert out.count(b"in") == 4


async def test_the_lease_of_a_process_that_was_killed_expires(place: str, tmp_path: Path) -> None:
    holder = await worker(place, tmp_path / "inside", 1, stay=True, seconds=1.0)
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"in\n"
    room = Room()
    room.open.set()
    with pytest.raises(SessionBusyError):
        await room.agent(opened(place), "reject").arun("go")
    os.kill(holder.pid, signal.SIGKILL)
    await holder.communicate()
    assert (await room.agent(opened(place)).arun("go")).status is RunStatus.completed
