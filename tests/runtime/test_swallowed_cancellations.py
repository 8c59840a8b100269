"""A tool that swallows its cancellation does not keep its run going: it ends at the next turn."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from kern import Agent, RunStatus, Team
from kern.errors import RunDeadlineExceeded
from kern.models.base import ModelRequest, ModelResponse
from kern.testing import FunctionModel, ScriptedModel, no_leaks, tool_call
from tests.clock import LONG, pass_time


class Deaf:
    """An agent whose tool is deaf to a first cancellation, and whose model always calls it again."""

    def __init__(self) -> None:
        self.calls = 0
        self.late = False
        """Whether its first call outlives every deadline."""
        self.began = asyncio.Event()
        self.model = FunctionModel(lambda r: ModelResponse.of(None, tool_call("work")))

    async def work(self) -> str:
        self.calls += 1
        self.began.set()
        if self.late:
            pass_time()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(20)
        return "worked"

    def agent(self, **options: Any) -> Agent:
        return Agent(name="m", model=self.model, tools=[self.work], **options)

    def team(self, **options: Any) -> Team:
        delegation = tool_call("delegate_task_to_member", member_id="m", task="x")
        lead = FunctionModel(lambda r: ModelResponse.of(None, delegation))
        return Team([self.agent()], model=lead, **options)


@pytest.mark.parametrize("kind", ["agent", "team"])
async def test_after_cancel_run(kind: str) -> None:
    deaf = Deaf()
    runner: Any = getattr(deaf, kind)()
    async with no_leaks():
        run = asyncio.create_task(runner.arun("go", run_id="r"))
        await deaf.began.wait()
        assert runner.cancel_run("r")
        assert (await run).status is RunStatus.cancelled
    assert deaf.calls == 1


@pytest.mark.parametrize("kind", ["agent", "team"])
async def test_after_the_deadline(kind: str) -> None:
    deaf = Deaf()
    deaf.late = True
    runner: Any = getattr(deaf, kind)(timeout=LONG)
    with pytest.raises(RunDeadlineExceeded):
        await runner.arun("go")
    assert deaf.calls == 1


@pytest.mark.parametrize("kind", ["agent", "team"])
@pytest.mark.parametrize("how", ["aclose", "break"])
async def test_after_its_stream_was_left(kind: str, how: str) -> None:
    deaf = Deaf()
    runner: Any = getattr(deaf, kind)(session_id="s")
    async with no_leaks():
        stream = runner.arun("go", stream=True, stream_events=True)
        async for event in stream:
            if event.event == "ToolCallStarted" and deaf.began.is_set():
                break
            if event.event == "ToolCallStarted":
                await asyncio.wait_for(deaf.began.wait(), 5)
                break
        if how == "aclose":
            await stream.aclose()
        del stream
        stored = await runner.aget_last_run_output()
    assert stored is not None
    assert stored.status is RunStatus.cancelled
    assert deaf.calls == 1


async def test_after_its_caller_was_cut_short() -> None:
    deaf = Deaf()
    inner = deaf.agent(session_id="inner")

    async def ask() -> str:
        return str(await asyncio.shield(asyncio.create_task(inner.arun("go"))))

    agent = Agent(model=FunctionModel(lambda r: ModelResponse.of(None, tool_call("ask"))), tools=[ask])
    run = asyncio.create_task(agent.arun("go"))
    await deaf.began.wait()
    run.cancel()
    await asyncio.wait([run])
    stored = await inner.aget_last_run_output()
    assert stored is not None
    assert stored.status is RunStatus.cancelled
    assert deaf.calls == 1


async def test_a_tool_whose_task_group_fails_is_no_cancellation() -> None:
    async def fail() -> None:
        raise LookupError("no")

    async def group() -> str:
        with suppress(BaseExceptionGroup):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fail())
                await asyncio.sleep(20)
        return "went on"

    seen: list[str] = []

    async def stop(request: ModelRequest) -> str:
        assert agent.cancel_run("stopped")
        await asyncio.sleep(20)
        return "never"

    model = ScriptedModel([tool_call("group"), tool_call("group"), "done"])
    agent = Agent(model=model, tools=[group])
    output = await agent.arun("go")
    assert output.content == "done"
    seen = [str(execution.result) for execution in output.tools]
    assert seen == ["went on", "went on"]
    agent.model = ScriptedModel([tool_call("group"), stop])
    assert (await agent.arun("go", run_id="stopped")).status is RunStatus.cancelled
