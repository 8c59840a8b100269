"""The end of a run under bad weather: cancelled while it is written, slow, failing, hanging."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from kern.agent import Agent
from kern.db.base import Commit, Committed
from kern.db.in_memory import InMemoryDb
from kern.errors import ModelError, StoreError
from kern.run import RunContext
from kern.runtime import lifecycle
from kern.runtime.session import live_sessions
from kern.state.shared_state import LiveState
from kern.testing import FunctionModel
from tests.played import agent_with, turns, until


class SlowDb(InMemoryDb):
    """Writes when it is told to, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.writing = asyncio.Event()
        self.go_on = asyncio.Event()
        self.error: Exception | None = None

    async def commit(self, commit: Commit) -> Committed:
        self.writing.set()
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return await super().commit(commit)


async def write(run_context: RunContext) -> None:
    run_context.session_state["written"] = True


@pytest.fixture
def db() -> SlowDb:
    return SlowDb()


@pytest.fixture
def agent(db: SlowDb) -> Agent:
    return agent_with(write, db=db, session_id="one")


async def status(db: InMemoryDb) -> str | None:
    rows = await db.load_runs("one")
    return rows[0].status if rows else None


async def test_a_cancellation_during_the_commit_is_raised_when_the_end_is_written(
    db: SlowDb, agent: Agent
) -> None:
    run = asyncio.create_task(agent.arun("go"))
    await db.writing.wait()
    run.cancel()
    run.cancel()
    await asyncio.sleep(0)
    assert not run.done()
    db.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert await status(db) == "COMPLETED"
    assert await agent.aget_session_state() == {"written": True}
    assert len(live_sessions) == 0


async def test_a_stream_that_is_closed_during_the_commit_waits_for_it(db: SlowDb, agent: Agent) -> None:
    stream = agent.arun("go", stream=True, stream_events=True)
    async for event in stream:
        if event.kind == "RunContentCompleted":
            break
    closing = asyncio.create_task(stream.aclose())
    await db.writing.wait()
    closing.cancel()
    await asyncio.sleep(0)
    assert not closing.done()
    db.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert await status(db) is not None


async def test_a_deadline_that_passes_during_the_commit_is_a_timeout(db: SlowDb, agent: Agent) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(None) as deadline:
            asyncio.get_running_loop().call_soon(lambda: None)
            waiter = asyncio.create_task(db.writing.wait())
            waiter.add_done_callback(lambda _: deadline.reschedule(asyncio.get_running_loop().time()))
            await agent.arun("go")

    run = asyncio.create_task(in_time())
    await db.writing.wait()
    await asyncio.sleep(0.01)
    db.go_on.set()
    with pytest.raises(TimeoutError):
        await run
    assert await status(db) == "COMPLETED"


async def test_a_cancellation_is_not_lost_to_a_commit_that_fails(db: SlowDb, agent: Agent) -> None:
    run = asyncio.create_task(agent.arun("go"))
    await db.writing.wait()
    run.cancel()
    await asyncio.sleep(0)
    db.error = StoreError("the disk is full")
    db.go_on.set()
    with pytest.raises(asyncio.CancelledError) as raised:
        await run
    assert isinstance(raised.value.__context__, StoreError)
    assert await status(db) is None


async def test_a_cancellation_is_not_lost_to_a_commit_that_hangs(
    db: SlowDb, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "COMMIT_SECONDS", 0.05)
    run = asyncio.create_task(agent.arun("go"))
    await db.writing.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError) as raised:
        await run
    assert isinstance(raised.value.__context__, StoreError)
    assert "not committed within" in str(raised.value.__context__)
    db.go_on.set()  # it comes late, and well
    while await status(db) is None:
        await asyncio.sleep(0)


async def test_a_cancellation_is_not_lost_to_a_run_that_has_failed(db: SlowDb) -> None:
    def fail(_: Any) -> Any:
        raise ModelError("no answer")

    agent = Agent(model=FunctionModel(fail), db=db, session_id="one")
    run = asyncio.create_task(agent.arun("go"))
    await db.writing.wait()
    run.cancel()
    await asyncio.sleep(0)
    db.go_on.set()
    with pytest.raises(asyncio.CancelledError) as raised:
        await run
    assert isinstance(raised.value.__context__, ModelError)
    assert await status(db) == "ERROR"


async def test_a_commit_that_fails_fails_the_run(db: SlowDb, agent: Agent) -> None:
    db.error = StoreError("the disk is full")
    db.go_on.set()
    with pytest.raises(StoreError, match="disk is full") as raised:
        await agent.arun("go")
    assert raised.value.run_output.status.value == "ERROR"
    db.error = None
    assert await agent.aget_session_state() == {}
    output = await agent.arun("go")
    assert output.session_state == {"written": True}


async def test_the_terminal_event_tells_what_is_stored_when_a_cancellation_comes_too_late(
    db: SlowDb, agent: Agent
) -> None:
    stream = agent.arun("go", stream=True, stream_events=True)
    kinds = []
    async for event in stream:
        kinds.append(event.kind)
        if event.kind == "RunContentCompleted":
            break
    assert stream._task is not None
    await db.writing.wait()
    stream._task.cancel()
    await asyncio.sleep(0)
    db.go_on.set()
    with suppress(asyncio.CancelledError):
        async for event in stream:
            kinds.append(event.kind)
    assert stream._task.cancelled()
    assert kinds[-1] == "RunCompleted"
    assert await status(db) == "COMPLETED"


# A thread that is about to commit when its run is cancelled.


@pytest.mark.parametrize("block", [False, True])
async def test_a_commit_that_is_under_way_in_a_thread_is_part_of_the_cancelled_run_s_end(
    block: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    committing, go_on = threading.Event(), threading.Event()
    commit = LiveState.commit

    def slow_commit(*arguments: Any) -> None:
        committing.set()
        go_on.wait(20)
        commit(*arguments)

    def write_sync(run_context: RunContext) -> None:
        if block:
            with run_context.transaction() as state:
                state["written"] = True
        else:
            run_context.session_state["written"] = True

    monkeypatch.setattr(LiveState, "commit", slow_commit)
    db = InMemoryDb()
    run = asyncio.create_task(agent_with(write_sync, db=db, session_id="one").arun("go"))
    await until(committing.is_set)
    run.cancel()
    await turns()
    assert not run.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    session = await db.load_session("one")
    assert session is not None
    assert json.loads(session.state) == {"written": True}
    assert await status(db) == "CANCELLED"


# asyncio.run cancels every task at its end, the one that writes the end of a run too.


class PacedDb(InMemoryDb):
    """Writes slowly, and says so."""

    def __init__(self) -> None:
        super().__init__()
        self.writing = False
        self.attempts = 0

    async def commit(self, commit: Commit) -> Committed:
        self.writing = True
        self.attempts += 1
        await asyncio.sleep(0.02)
        return await super().commit(commit)


class ForgetfulDb(PacedDb):
    """Writes, and is interrupted before it can say so."""

    async def commit(self, commit: Commit) -> Committed:
        self.attempts += 1
        committed = await InMemoryDb.commit(self, commit)
        self.writing = True
        await asyncio.sleep(0.02)
        return committed


@pytest.mark.parametrize("make", [PacedDb, ForgetfulDb])
@pytest.mark.parametrize("leave", ["break", "cancelled", "abandoned task"])
async def test_a_program_that_ends_while_a_run_is_written_leaves_it_written(
    make: Callable[[], PacedDb], leave: str
) -> None:
    db = make()
    agent = agent_with(write, db=db, session_id="one")

    async def program() -> None:
        if leave == "break":
            async for event in agent.arun("go", stream=True, stream_events=True):
                if event.kind == "RunContentCompleted":
                    break
        else:
            task = asyncio.create_task(agent.arun("go"))
            await until(lambda: db.writing)
            if leave == "cancelled":
                task.cancel()
        # and out, without waiting for anything

    await asyncio.to_thread(lambda: asyncio.run(program()))
    (row,) = await db.load_runs("one")
    assert row.status in ("COMPLETED", "CANCELLED")
    session = await db.load_session("one")
    assert session is not None
    assert json.loads(session.state) == {"written": True}
    assert len(await db.load_changes("one")) == 1
    assert len(live_sessions) == 0


async def test_a_program_that_ends_while_several_runs_are_written_leaves_all_of_them_written() -> None:
    db = ForgetfulDb()
    agents = [agent_with(write_number, db=db, session_id="one") for _ in range(5)]

    async def program() -> None:
        for agent in agents:
            _keep.append(asyncio.create_task(agent.arun("go")))
        await until(lambda: db.writing)

    _keep: list[Any] = []
    await asyncio.to_thread(lambda: asyncio.run(program()))
    session = await db.load_session("one")
    assert session is not None
    changes = await db.load_changes("one")
    assert [change.revision for change in changes] == list(range(1, session.revision + 1))
    assert len(json.loads(session.state)["items"]) == len(changes) == 5
    assert len(await db.load_runs("one")) == 5


async def write_number(run_context: RunContext) -> None:
    run_context.session_state.setdefault("items", []).append(1)
