"""Whatever tools do at the same time: the outcome is that of some order, one after the other.

Hypothesis makes up runs, members and calls, sync and async, that read, wait, write, fail, steer and are
cancelled. The order of the commit log is the serial order: replayed alone, each transaction makes of the
state before it exactly the state after it. And nobody has ever seen anything but a committed state.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from played import calling, team_of, until
from programs import COMMITTING, Call, Recorder, RunPlan, State, programs, result_of

from kern.agent import Agent
from kern.db.in_memory import InMemoryDb
from kern.run import RunContext
from kern.runtime import run as run_module
from kern.runtime.session import live_sessions
from kern.state.patch import apply
from kern.team import Team
from kern.testing import tool_call

START: State = {"a": 1, "b": 2}

tried: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def patient_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of calls may send the model back."""
    monkeypatch.setattr(run_module, "MOST_TRIES_AGAIN", 1000)


@pytest.mark.timeout(120)  # of work that takes five seconds on an idle machine
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(programs)
def test_random_programs_behave_as_if_one_transaction_ran_after_the_other(
    plans: list[RunPlan],
) -> None:
    asyncio.run(play(plans))


@pytest.mark.long
@pytest.mark.timeout(1200)
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(programs)
def test_many_random_programs_behave_as_if_one_transaction_ran_after_the_other(
    plans: list[RunPlan],
) -> None:
    asyncio.run(play(plans))


async def play(plans: Sequence[RunPlan]) -> None:
    """Let the runs loose on one session, with a reader beside them; then judge."""
    db = InMemoryDb()
    calls = {
        f"r{r}m{m}c{c}": call
        for r, plan in enumerate(plans)
        for m, member in enumerate(plan.members)
        for c, call in enumerate(member)
    }
    recorder = Recorder(calls)
    read: list[State] = []
    reader_agent = Agent(model=calling(), db=db, session_id="one", session_state=START)

    async def read_on() -> None:
        while True:
            read.append(await reader_agent.aget_session_state())
            await asyncio.sleep(0.0005)

    reader = asyncio.create_task(read_on())
    await asyncio.gather(*(start(plan, number, recorder, db) for number, plan in enumerate(plans)))
    # A cancelled run does not wait for its threads; one that was about to commit may still do so.
    await until(lambda: not any(session.state.lock.held for session in live()))
    reader.cancel()
    await asyncio.wait([reader])
    assert len(live_sessions) == 0
    history = await committed_states(db)
    judge_order(history, calls)
    judge_readers(history, [*read, *recorder.seen, *recorder.snapshots])
    judge_outcome(history, recorder, plans)
    tried.update(programs=1, calls=len(calls), commits=len(history) - 1, reads=len(read))


def live() -> list[Any]:
    return [session for session in live_sessions._sessions.values() if hasattr(session, "state")]


async def start(plan: RunPlan, number: int, recorder: Recorder, db: InMemoryDb) -> None:
    async def work(run_context: RunContext, name: str) -> str:
        return await recorder.work(run_context, name)

    def work_sync(run_context: RunContext, name: str) -> str:
        return recorder.work_sync(run_context, name)

    def member(m: int, **options: Any) -> Agent:
        asked = [
            tool_call("work" if call.kind == "async" else "work_sync", name=f"r{number}m{m}c{c}")
            for c, call in enumerate(plan.members[m])
        ]
        return Agent(name=f"member-{m}", model=calling(*asked), tools=[work, work_sync], **options)

    options: dict[str, Any] = {"db": db, "session_id": "one", "session_state": START}
    runner: Agent | Team
    if len(plan.members) == 1:
        runner = member(0, **options)
    else:
        runner = team_of([member(m) for m in range(len(plan.members))], **options)
    await drive(runner, plan)


async def drive(runner: Agent | Team, plan: RunPlan) -> None:
    async def stream() -> None:
        async with runner.arun("go", stream=True, stream_events=True) as events:
            async for _ in events:
                pass

    if plan.where == "portal":
        task = asyncio.create_task(asyncio.to_thread(runner.run, "go", run_id=str(id(plan))))
    elif plan.where == "loop":
        task = asyncio.create_task(asyncio.to_thread(asyncio.run, runner.arun("go", run_id=str(id(plan)))))
    else:
        task = asyncio.create_task(stream() if plan.where == "stream" else runner.arun("go"))
    if plan.cancel_after is not None:
        for _ in range(plan.cancel_after):
            await asyncio.sleep(0)
        if plan.where in ("portal", "loop"):
            await runner.acancel_run(str(id(plan)))
        else:
            task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        await task


async def committed_states(db: InMemoryDb) -> list[State]:
    """The state at every revision, from the log; the last one is what is stored."""
    states: list[State] = [START]
    for change in await db.load_changes("one"):
        assert change.revision == len(states)
        states.append(apply(states[-1], json.loads(change.patch)))
    row = await db.load_session("one")
    if row is not None:
        assert json.loads(row.state) == states[-1]
        assert row.revision == len(states) - 1
    return states


def judge_order(history: list[State], calls: dict[str, Call]) -> None:
    """Each commit is one transaction, once, whole, alone on the state before it."""
    marks = [state["by"] for state in history[1:]]
    assert len(set(marks)) == len(marks)
    for before, after in pairwise(history):
        name, _, number = after["by"].rpartition(".")
        transaction = calls[name].transactions[int(number)]
        assert transaction.end in COMMITTING, f"{after['by']} failed and was committed"
        assert after == result_of(before, transaction, after["by"])


def judge_readers(history: list[State], observed: list[State]) -> None:
    """Nobody saw anything but a committed state."""
    committed = {json.dumps(state) for state in history}
    for state in observed:
        assert json.dumps(state) in committed, f"{state} was never committed"


def judge_outcome(history: list[State], recorder: Recorder, plans: Sequence[RunPlan]) -> None:
    """What nobody cancelled, and did not fail, is there."""
    marks = {state["by"] for state in history[1:]}
    for name, call in recorder.calls.items():
        if plans[int(name[1 : name.index("m")])].cancel_after is not None:
            continue
        for number, transaction in enumerate(call.transactions):
            if transaction.end in COMMITTING:
                assert f"{name}.{number}" in marks, f"lost: {name}.{number}; {recorder.errors.get(name)!r}"
            if transaction.end != "return" and (transaction.end != "raise" or not call.blocks):
                break  # the call ends here
