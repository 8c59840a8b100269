"""A stream that was left, and whose tool swallows the cancellation, does not hang its session for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from kern import Agent
from kern.errors import SessionBusyError
from kern.models.base import ModelRequest, ModelResponse
from kern.runtime import lease, run_ends
from kern.runtime.active_runs import active_runs
from kern.testing import FunctionModel, tool_call


class Deaf:
    """An agent whose tool ends when it is let go, and not when it is cancelled."""

    def __init__(self, on_busy: Any) -> None:
        self.began = asyncio.Event()
        self.release = asyncio.Event()
        self.agent = Agent(model=FunctionModel(self.play), tools=[self.work], session_id="s", on_busy=on_busy)

    def play(self, request: ModelRequest) -> ModelResponse | str:
        if request.messages[-1].role == "user" and request.messages[-1].content == "work":
            return ModelResponse.of(None, tool_call("work"))
        return "done"

    async def work(self) -> str:
        self.began.set()
        while not self.release.is_set():
            with suppress(asyncio.CancelledError):
                await self.release.wait()
        return "worked"

    async def leave(self) -> None:
        async for event in self.agent.arun("work", stream=True, stream_events=True):
            if event.event == "ToolCallStarted":
                await self.began.wait()
                break


@pytest.fixture
async def deaf(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Deaf]:
    monkeypatch.setattr(run_ends, "LEFT_SECONDS", 0.3)
    monkeypatch.setattr(lease, "EXCLUSIVE_POLL_SECONDS", 0.05)
    deaf = Deaf(getattr(request, "param", "share"))
    yield deaf
    deaf.release.set()
    while list(active_runs):
        await asyncio.sleep(0.01)


async def test_runs_and_accessors_go_on_without_it_and_the_log_says_so(
    deaf: Deaf, caplog: pytest.LogCaptureFixture
) -> None:
    await deaf.leave()
    output = await deaf.agent.arun("hello")
    assert output.content == "done"
    assert caplog.text.count("swallows the cancellation") == 1
    assert await deaf.agent.aget_session_state() == {}
    assert len(await deaf.agent.aget_chat_history()) == 2


@pytest.mark.parametrize("deaf", ["queue"], indirect=True)
async def test_a_run_that_wants_the_session_to_itself_is_told_who_has_it(deaf: Deaf) -> None:
    await deaf.leave()
    [run] = active_runs
    with pytest.raises(
        SessionBusyError, match=f"is used exclusively by run '{run.request.run_id}', whose stream was left"
    ):
        await deaf.agent.arun("hello")
    deaf.release.set()
    assert (await deaf.agent.arun("hello")).content == "done"


@pytest.mark.parametrize("deaf", ["queue"], indirect=True)
async def test_one_that_waits_already_when_the_stream_is_left_is_told_too(deaf: Deaf) -> None:
    stream = deaf.agent.arun("work", stream=True, stream_events=True)
    async for event in stream:
        if event.event == "ToolCallStarted":
            await deaf.began.wait()
            break
    waiting = [asyncio.create_task(deaf.agent.arun("hello")) for _ in range(2)]
    await asyncio.sleep(0.1)
    del stream
    for result in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(result, SessionBusyError)


async def test_queued_runs_keep_their_order_and_leave_no_place_behind() -> None:
    came: list[str] = []
    began, go = asyncio.Event(), asyncio.Event()

    async def play(request: ModelRequest) -> str:
        came.append(str(request.messages[-1].content))
        began.set()
        await go.wait()
        return "ok"

    agent = Agent(model=FunctionModel(play), session_id="s", on_busy="queue")
    runs = []
    for name in ("1", "2", "3", "4", "5"):
        runs.append(asyncio.create_task(agent.arun(name)))
        await began.wait()
        await asyncio.sleep(0.01)
    runs[2].cancel()
    await asyncio.wait([runs[2]])
    go.set()
    await asyncio.gather(*runs[:2], *runs[3:])
    assert came == ["1", "2", "4", "5"]
    assert (await agent.arun("6")).content == "ok"
