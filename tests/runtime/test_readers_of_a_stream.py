"""Who reads a stream: one task at a time, and nobody takes a part of the answer for the whole."""

from __future__ import annotations

import asyncio

import pytest

from kern import Agent, RunStatus
from kern.errors import UsageError
from kern.run import Event
from kern.testing import ScriptedModel, tool_call


def slow_agent(gate: asyncio.Event) -> Agent:
    async def wait() -> str:
        await gate.wait()
        return "waited"

    return Agent(model=ScriptedModel([tool_call("wait"), "Done."]), tools=[wait], session_id="s")


async def test_who_reads_on_after_a_cancelled_read_is_told_that_the_run_was_cancelled() -> None:
    agent = slow_agent(asyncio.Event())
    stream = agent.arun("go", stream=True, run_id="r")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(stream), 0.2)
    for _ in range(2):
        with pytest.raises(UsageError, match=r"a read of it was cancelled.*asyncio\.wait\("):
            await anext(stream)
    stored = await agent.aget_run_output("r")
    assert stored is not None
    assert stored.status is RunStatus.cancelled


async def test_a_read_that_is_kept_in_a_task_may_be_waited_for_with_a_timeout() -> None:
    gate = asyncio.Event()
    stream = slow_agent(gate).arun("go", stream=True, stream_events=True)
    read: asyncio.Future[Event] = asyncio.ensure_future(anext(stream))
    names, pings = [], 0
    while True:
        done, _ = await asyncio.wait({read}, timeout=0.05)
        if not done:
            pings += 1
            gate.set()
            continue
        try:
            names.append(read.result().event)
        except StopAsyncIteration:
            break
        read = asyncio.ensure_future(anext(stream))
    assert names[-1] == "RunCompleted"
    assert pings > 0


async def test_a_second_reader_is_refused_while_the_first_one_waits() -> None:
    gate = asyncio.Event()
    stream = slow_agent(gate).arun("go", stream=True, stream_events=True)

    async def read() -> list[str]:
        return [event.event async for event in stream]

    first = asyncio.create_task(read())
    for _ in range(20):  # the tool waits by then, and so does the reader
        await asyncio.sleep(0.01)
    with pytest.raises(UsageError, match="being read by another task"):
        await read()
    gate.set()
    assert (await first)[-1] == "RunCompleted"


async def test_leaving_a_stream_is_no_cut_and_reading_it_again_ends_at_once() -> None:
    async with Agent(model=ScriptedModel(["Hello"])).arun("go", stream=True) as stream:
        assert [event.content async for event in stream] == ["Hello"]
    assert [event async for event in stream] == []
    assert stream.output.content == "Hello"
