"""Whatever tools do at the same time: the outcome is that of some order, one after the other.

Hypothesis makes up runs, members and calls, sync and async, that read, wait, write, fail, steer, run other
agents, and are cancelled. The order of the commit log is the serial order: replayed alone, each transaction
makes of the state before it exactly the state after it. Nobody has ever seen anything but a committed state.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from kern.agent import Agent
from kern.db.base import Db
from kern.db.in_memory import InMemoryDb
from kern.db.sqlite import SqliteDb
from kern.run import RunContext
from kern.runtime import run_tree
from kern.runtime.session import live_sessions
from kern.team import Team
from kern.testing import tool_call
from tests.played import agent_with, calling, team_of, until
from tests.state.judges import START, Judge, Seen, committed_states, executions
from tests.state.programs import Program, Recorder, RunPlan, State, Update, programs

tried: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def patient_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of calls may send the model back."""
    monkeypatch.setattr(run_tree, "MAX_RETRIES_OF_ONE_KIND", 1000)


@pytest.fixture(autouse=True)
def told() -> Iterator[None]:
    """The figures, for `pytest -s`."""
    yield
    print(", ".join(f"{name}: {number}" for name, number in tried.items()))


@pytest.mark.timeout(120)  # of work that takes ten seconds on an idle machine
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(programs)
def test_random_programs_behave_as_if_one_transaction_ran_after_the_other(program: Program) -> None:
    asyncio.run(play(program))


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(programs)
def test_many_random_programs_behave_as_if_one_transaction_ran_after_the_other(program: Program) -> None:
    asyncio.run(play(program))


async def play(program: Program) -> None:
    """Let the runs loose on one session, with a reader and writers beside them; then judge."""
    with tempfile.TemporaryDirectory() as folder:
        db: Db = InMemoryDb() if program.store == "memory" else await at(folder)
        await play_on(db, program)


async def at(folder: str) -> SqliteDb:
    return await asyncio.to_thread(SqliteDb, db_file=f"{folder}/agents.db")


async def play_on(db: Db, program: Program) -> None:
    options: dict[str, Any] = {"db": db, "session_id": "one", "session_state": START}
    recorder = Recorder(program.calls(), lambda tool: agent_with(tool, **options))
    seen = Seen()
    outsider = Agent(model=calling(), **options)

    async def read_on() -> None:
        while True:
            seen.read.append(await outsider.aget_session_state())
            await asyncio.sleep(0.0005)

    async def update(number: int, plan: Update) -> None:
        for _ in range(plan.after):
            await asyncio.sleep(0)
        mark = f"update.{number}"
        state = await outsider.aupdate_session_state({plan.key: 100, "by": mark})
        recorder.seen.append(state)
        row = await db.load_session("one")
        assert row is not None
        seen.stored[mark] = decoded(row.state)

    reader = asyncio.create_task(read_on())
    await asyncio.gather(
        *(start(plan, number, recorder, seen, options) for number, plan in enumerate(program.runs)),
        *(update(number, plan) for number, plan in enumerate(program.updates)),
    )
    reader.cancel()
    await asyncio.wait([reader])
    # A cancelled run does not wait for its threads; one that was about to commit may still do so.
    await until(lambda: not len(live_sessions))
    history = await committed_states(db)
    Judge(program, recorder, seen, history).judge(await executions(db))
    tried.update(programs=1, runs=len(program.runs), calls=len(recorder.calls))
    tried.update(commits=len(history) - 1, reads=len(seen.read))


async def start(plan: RunPlan, number: int, recorder: Recorder, seen: Seen, options: dict[str, Any]) -> None:
    async def work_async(run_context: RunContext, name: str) -> str:
        return await recorder.work(run_context, name)

    def work_sync(run_context: RunContext, name: str) -> str:
        return recorder.work_sync(run_context, name)

    async def work_async_generator(run_context: RunContext, name: str) -> AsyncIterator[str]:
        async for piece in recorder.work_in_pieces(run_context, name):
            yield piece

    def work_generator(run_context: RunContext, name: str) -> Iterator[str]:
        yield from recorder.work_in_pieces_sync(run_context, name)

    tools = [work_async, work_sync, work_async_generator, work_generator]

    def member(m: int, **more: Any) -> Agent:
        asked = [
            tool_call(f"work_{call.kind}", name=f"r{number}m{m}c{c}")
            for c, call in enumerate(plan.members[m])
        ]
        return Agent(name=f"member-{m}", model=calling(*asked), tools=list(tools), **more)

    runner: Agent | Team
    if len(plan.members) == 1:
        runner = member(0, **options, on_busy=plan.on_busy)
    else:
        members = [member(m) for m in range(len(plan.members))]
        runner = team_of(members, **options, on_busy=plan.on_busy)
    reached, loop = asyncio.Event(), asyncio.get_running_loop()
    if plan.cancel_at is not None:
        recorder.alarms[f"r{number}", plan.cancel_at] = lambda: loop.call_soon_threadsafe(reached.set)
    await drive(runner, plan, number, seen, reached)


async def drive(runner: Agent | Team, plan: RunPlan, number: int, seen: Seen, reached: asyncio.Event) -> None:
    run_id = f"run-{number}"
    options: dict[str, Any] = {"run_id": run_id}
    if plan.argument:
        options["session_state"] = {"argument": f"r{number}", "by": f"r{number}.argument"}

    async def stream() -> Any:
        told = seen.streams.setdefault(number, [])
        async with runner.arun(
            "go", stream=True, stream_events=True, yield_run_output=True, **options
        ) as events:
            async for event in events:
                told.append(event)
        return told.pop()

    task: asyncio.Task[Any]
    if plan.where == "portal":
        task = asyncio.create_task(asyncio.to_thread(runner.run, "go", **options))
    elif plan.where == "loop":
        task = asyncio.create_task(asyncio.to_thread(asyncio.run, runner.arun("go", **options)))
    else:
        task = asyncio.create_task(stream() if plan.where == "stream" else runner.arun("go", **options))
    if plan.cancelled:
        if plan.cancel_at is not None:
            waiter = asyncio.create_task(reached.wait())
            await asyncio.wait([task, waiter], return_when=asyncio.FIRST_COMPLETED)
            waiter.cancel()
        for _ in range(plan.cancel_after or 0):
            await asyncio.sleep(0)
        if plan.where in ("portal", "loop"):
            await runner.acancel_run(run_id)
        else:
            task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        state = (await task).session_state
        assert state is not None
        seen.ended[number] = state


def decoded(text: bytes) -> State:
    state: State = json.loads(text)
    return state
