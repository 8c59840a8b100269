"""`cancel_run`: whose run it is, what it says, and that what it says is true."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, CancelResult, RunContext, RunStatus, Team, tool
from kern.db import InMemoryDb, SqliteDb
from kern.errors import RunConflictError, RunDeadlineExceeded, SessionOwnershipError
from kern.models.base import ModelRequest, ModelResponse
from kern.run import RunCancelledEvent
from kern.testing import FunctionModel, ScriptedModel, no_leaks, tool_call


class Tool:
    """A tool that says when it has begun, and stays until it is cancelled."""

    def __init__(self, *, swallows: bool = False, raises: bool = False) -> None:
        self.began = asyncio.Event()
        self.swallows = swallows
        self.raises = raises

    async def work(self) -> str:
        self.began.set()
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            if self.raises:
                raise LookupError("while cleaning up") from None
            if not self.swallows:
                raise
        return "worked"

    def agent(self, **options: Any) -> Agent:
        model = FunctionModel(
            lambda r: "done" if r.messages[-1].role == "tool" else ModelResponse.of(None, tool_call("work"))
        )
        return Agent(model=model, tools=[self.work], **options)


async def begun(agent: Agent, tool: Tool, **options: Any) -> asyncio.Task[Any]:
    run = asyncio.create_task(agent.arun("go", **options))
    await tool.began.wait()
    return run


def test_a_result_is_true_only_if_the_run_is_cancelled() -> None:
    assert [result for result in CancelResult if result] == [CancelResult.cancelled]
    assert json.dumps([int(result) for result in CancelResult]) == "[1, 0, 0, 0]"


async def test_the_owner_and_trusted_code_cancel_a_run_and_nobody_else() -> None:
    for owner in ("alice", "", None):
        for asking in ("mallory", "", None, "alice"):
            work = Tool()
            agent = work.agent(db=InMemoryDb())
            run = await begun(agent, work, run_id="r", user_id=owner)
            if asking is None or asking == owner:
                assert await agent.acancel_run("r", user_id=asking) is CancelResult.cancelled
                assert (await run).status is RunStatus.cancelled
                continue
            with pytest.raises(SessionOwnershipError):
                await agent.acancel_run("r", user_id=asking)
            with pytest.raises(SessionOwnershipError):
                agent.cancel_run("r", user_id=asking)
            assert not run.done()
            agent.cancel_run("r")
            await run


async def test_ended_and_paused_runs_are_their_owner_s_too() -> None:
    @tool(requires_confirmation=True)
    def wipe() -> str:
        return "wiped"

    agent = Agent(model=ScriptedModel([tool_call("wipe"), "hi"]), tools=[wipe], db=InMemoryDb())
    paused = await agent.arun("go", user_id="alice")
    ended = await agent.arun("hello", user_id="alice")
    for run in (paused, ended):
        with pytest.raises(SessionOwnershipError):
            await agent.acancel_run(run.run_id, user_id="mallory")
    assert await agent.acancel_run(ended.run_id, user_id="alice") is CancelResult.too_late
    assert await agent.acancel_run(paused.run_id, user_id="alice") is CancelResult.cancelled
    assert await agent.acancel_run(paused.run_id, user_id="alice") is CancelResult.too_late
    with pytest.raises(RunConflictError, match="its status is CANCELLED"):
        await agent.acontinue_run(paused)


async def test_a_member_s_run_is_its_team_s_owner_s(tmp_path: Path) -> None:
    work = Tool()
    member = work.agent(name="m")
    lead = FunctionModel(
        lambda r: (
            "told"
            if r.messages[-1].role == "tool"
            else _calls("delegate_task_to_member", member_id="m", task="x")
        )
    )
    team = Team([member], model=lead, db=SqliteDb(tmp_path / "a.db"))
    events = team.arun("go", stream=True, stream_events=True, yield_run_output=True, user_id="alice")
    output: Any = None
    async for item in events:
        if getattr(item, "event", "") == "ToolCallStarted":
            assert item.parent_run_id is not None
            with pytest.raises(SessionOwnershipError):
                await team.acancel_run(item.run_id, user_id="mallory")
            assert await team.acancel_run(item.run_id, user_id="alice")
        output = item
    assert output.member_responses[0].status is RunStatus.cancelled
    assert output.status is RunStatus.completed
    assert await team.acancel_run(output.member_responses[0].run_id) is CancelResult.too_late


def _calls(name: str, **arguments: Any) -> ModelResponse:
    return ModelResponse.of(None, tool_call(name, **arguments))


async def test_a_run_of_another_database_is_unknown_whatever_its_id() -> None:
    one, other = Tool(), Tool()
    x, y = one.agent(db=InMemoryDb()), other.agent(db=InMemoryDb())
    of_x, of_y = await begun(x, one, run_id="1"), await begun(y, other, run_id="1")
    assert await x.acancel_run("2") is CancelResult.unknown
    assert await x.acancel_run("1") is CancelResult.cancelled
    assert (await of_x).status is RunStatus.cancelled
    assert await x.acancel_run("1") is CancelResult.too_late
    assert not of_y.done()
    y.cancel_run("1")
    await of_y


@pytest.mark.parametrize("kind", ["swallows", "raises"])
async def test_a_run_that_is_said_to_be_cancelled_is_so_whatever_its_tool_does(
    kind: str,
) -> None:
    work = Tool(**{kind: True})
    agent = work.agent()
    run = await begun(agent, work, run_id="r")
    assert await agent.acancel_run("r") is CancelResult.cancelled
    output = await run
    assert (output.status, output.error) == (RunStatus.cancelled, None)
    assert run.cancelling() == 0
    stored = await agent.aget_run_output("r")
    assert stored is not None
    assert stored.status is RunStatus.cancelled


async def test_a_model_that_swallows_the_cancellation_does_not_complete_the_run() -> None:
    asked = asyncio.Event()

    async def play(request: ModelRequest) -> str:
        asked.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(20)
        return "The answer."

    agent = Agent(model=FunctionModel(play))
    run = asyncio.create_task(agent.arun("go", run_id="r"))
    await asked.wait()
    assert await agent.acancel_run("r")
    assert (await run).status is RunStatus.cancelled


async def test_a_cancel_while_the_last_hook_runs_is_in_time_and_one_during_the_commit_is_not() -> None:
    said: dict[str, CancelResult] = {}

    class SlowDb(InMemoryDb):
        async def commit(self, commit: Any) -> Any:
            if commit.runs:
                said["commit"] = await agent.acancel_run("r")
            return await super().commit(commit)

    async def hook() -> None:
        if early:
            said["hook"] = await agent.acancel_run("r")

    agent = Agent(model=FunctionModel(lambda r: "The answer."), db=SlowDb(), post_hooks=[hook])
    early = False
    assert (await agent.arun("go", run_id="r", session_id="s")).status is RunStatus.completed
    assert said == {"commit": CancelResult.too_late}
    early = True
    agent.db = SlowDb()
    assert (await agent.arun("go", run_id="r", session_id="s")).status is RunStatus.cancelled
    assert said == {"commit": CancelResult.too_late, "hook": CancelResult.cancelled}


async def test_what_many_threads_are_told_fits_the_end() -> None:
    """Races between the stop and the end: a true answer and a COMPLETED run never meet."""
    agent = Agent(model=FunctionModel(lambda r: "The answer."), db=InMemoryDb())
    seen = set()
    for number in range(60):
        run_id = f"r{number}"
        answers: list[CancelResult] = []
        begin = threading.Event()

        def cancel(run_id: str, begin: threading.Event, answers: list[CancelResult], pause: float) -> None:
            begin.wait()
            time.sleep(pause)
            answers.append(agent.cancel_run(run_id))

        thread = threading.Thread(target=cancel, args=(run_id, begin, answers, number * 2e-5))
        thread.start()
        begin.set()
        output = await agent.arun("go", run_id=run_id)
        await asyncio.to_thread(thread.join)
        assert (output.status is RunStatus.cancelled) == bool(answers[0]), answers
        stored = await agent.aget_run_output(run_id)
        assert stored is not None
        assert stored.status is output.status
        seen.add(output.status)


@pytest.mark.parametrize("how", ["cancel_run", "timeout"])
@pytest.mark.parametrize("holder", ["this process", "another process"])
async def test_a_queued_run_hears_and_never_starts(tmp_path: Path, how: str, holder: str) -> None:
    db = SqliteDb(tmp_path / "a.db")
    work = Tool()
    first = work.agent(db=db, session_id="s", on_busy="queue")
    model = ScriptedModel([])
    started: list[str] = []
    second = Agent(
        model=model,
        db=db,
        session_id="s",
        on_busy="queue",
        pre_hooks=[lambda: started.append("hook")],
        timeout=0.2 if how == "timeout" else None,
    )
    async with no_leaks():
        if holder == "this process":
            run = await begun(first, work)
        else:
            assert await db.acquire_lease("s", "somebody", 60.0)
        queued = asyncio.create_task(second.arun("go", run_id="q", session_state={"started": True}))
        await asyncio.sleep(0.05)
        if how == "cancel_run":
            assert await second.acancel_run("q") is CancelResult.cancelled
            assert (await queued).status is RunStatus.cancelled
        else:
            with pytest.raises(RunDeadlineExceeded, match=r"0\.2 s") as caught:
                await queued
            assert caught.value.run_output.status is RunStatus.error
        stored = await second.aget_run_output("q")
        assert stored is not None
        assert stored.status is (RunStatus.cancelled if how == "cancel_run" else RunStatus.error)
        assert started == []
        assert model.requests == []
        if holder == "this process":
            assert not run.done()
            run.cancel()
            await asyncio.wait([run])
        assert await second.aget_session_state() == {}


async def test_a_queued_stream_that_is_cancelled_ends_with_its_event() -> None:
    work = Tool()
    agent = work.agent(session_id="s", on_busy="queue")
    run = await begun(agent, work)
    stream = agent.arun("go", stream=True, stream_events=True, yield_run_output=True, run_id="q")
    items: list[Any] = []

    async def listen() -> None:
        items.extend([item async for item in stream])

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0.05)
    assert agent.cancel_run("q")
    await listening
    assert isinstance(items[0], RunCancelledEvent)
    assert items[1].status is RunStatus.cancelled
    assert len(items) == 2
    run.cancel()
    await asyncio.wait([run])


async def test_a_continuation_that_is_cancelled_while_it_waits_is_over() -> None:
    @tool(requires_confirmation=True)
    def wipe() -> str:
        raise AssertionError("cancelled before")

    db = InMemoryDb()
    work = Tool()
    holder = work.agent(db=db, session_id="s", on_busy="queue")
    agent = Agent(
        model=ScriptedModel([tool_call("wipe")]), tools=[wipe], db=db, session_id="s", on_busy="queue"
    )
    paused = await agent.arun("go")
    paused.requirements[0].confirm()
    run = await begun(holder, work)
    waiting = asyncio.create_task(agent.acontinue_run(paused))
    await asyncio.sleep(0.05)
    assert agent.cancel_run(paused.run_id)
    assert (await waiting).status is RunStatus.cancelled
    stored = await agent.aget_run_output(paused.run_id)
    assert stored is not None
    assert (stored.status, stored.requirements) == (RunStatus.cancelled, [])
    run.cancel()
    await asyncio.wait([run])


def test_a_forked_child_cancels_through_the_database(tmp_path: Path) -> None:
    began = threading.Event()

    async def slow() -> str:
        began.set()
        await asyncio.sleep(20)
        return "ok"

    model = FunctionModel(
        lambda r: "done" if r.messages[-1].role == "tool" else ModelResponse.of(None, tool_call("slow"))
    )
    agent = Agent(model=model, tools=[slow], db=SqliteDb(tmp_path / "a.db"), session_id="s")
    ended: list[RunStatus] = []
    thread = threading.Thread(target=lambda: ended.append(agent.run("x", run_id="R").status))
    thread.start()
    began.wait()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if agent.cancel_run("R") is CancelResult.requested else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    thread.join()
    assert ended == [RunStatus.cancelled]


async def test_a_cancelled_run_has_what_its_context_says_of_the_state() -> None:
    async def touch(run_context: RunContext) -> str:
        run_context.session_state["touched"] = True
        began.set()
        await asyncio.sleep(20)
        return ""

    began = asyncio.Event()
    agent = Agent(model=ScriptedModel([tool_call("touch")]), tools=[touch], session_id="s")
    run = asyncio.create_task(agent.arun("go", run_id="r"))
    await began.wait()
    assert agent.cancel_run("r")
    assert (await run).session_state == {}
