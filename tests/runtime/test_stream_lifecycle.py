"""A run's stream, from the first event asked for to whatever end its consumer makes of it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kern.agent import Agent
from kern.db.in_memory import InMemoryDb
from kern.errors import UsageError
from kern.models.base import ModelRequest, ModelResponse
from kern.run import RunContext
from kern.runtime.session import live_sessions
from kern.testing import FunctionModel, no_leaks
from tests import processes
from tests.clock import LONG, pass_time
from tests.played import agent_with, turns, until


class Scene:
    """An agent whose one tool waits in the middle, with the state in its hands."""

    def __init__(self) -> None:
        self.db = InMemoryDb()
        self.inside = asyncio.Event()
        self.go_on = asyncio.Event()

        async def work(run_context: RunContext) -> None:
            run_context.session_state["half"] = True
            self.inside.set()
            await self.go_on.wait()

        self.agent = agent_with(work, db=self.db, session_id="one")

    def stream(self) -> Any:
        return self.agent.arun("go", stream=True, stream_events=True)

    async def status(self) -> str | None:
        rows = await self.db.load_runs("one")
        return rows[-1].status if rows else None


def tasks_of_ours() -> list[asyncio.Task[Any]]:
    """All tasks but those of the test runner."""
    return [t for t in asyncio.all_tasks() if not t.get_coro().__qualname__.startswith("TestRunner")]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    yield Scene()
    deadline = asyncio.get_running_loop().time() + 2
    while (left := tasks_of_ours()) or len(live_sessions):
        assert asyncio.get_running_loop().time() < deadline, left
        await asyncio.sleep(0.001)


async def until_tool_call(stream: Any) -> None:
    async for event in stream:
        if event.kind == "ToolCallStarted":
            return


# The start.


async def test_the_run_starts_with_the_first_event_that_is_asked_for(scene: Scene) -> None:
    before = asyncio.all_tasks()
    stream = scene.stream()
    await turns()
    assert asyncio.all_tasks() == before
    assert not scene.inside.is_set()
    assert (await anext(stream)).kind == "RunStarted"
    await stream.aclose()
    assert await scene.status() == "CANCELLED"


async def test_a_stream_that_nobody_iterates_leaves_nothing(scene: Scene) -> None:
    scene.stream()
    await scene.stream().aclose()
    async with scene.stream():
        pass
    gc.collect()
    await turns()
    assert await scene.status() is None
    assert len(live_sessions) == 0


async def test_a_closed_stream_has_no_more_events(scene: Scene) -> None:
    stream = scene.stream()
    await anext(stream)
    await stream.aclose()
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert [event async for event in stream] == []


async def test_a_stream_that_is_read_to_its_end_ends_there(scene: Scene) -> None:
    scene.go_on.set()
    stream = scene.stream()
    kinds = [event.kind async for event in stream]
    assert kinds[0] == "RunStarted"
    assert kinds[-1] == "RunCompleted"
    assert kinds.count("RunCompleted") == 1
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert await scene.status() == "COMPLETED"


# Ends that wait.


async def test_aclose_returns_when_the_end_is_committed(scene: Scene) -> None:
    stream = scene.stream()
    await until_tool_call(stream)
    await scene.inside.wait()
    await stream.aclose()
    assert await scene.status() == "CANCELLED"
    assert await scene.agent.aget_session_state() == {}


@pytest.mark.parametrize("how", ["break", "error", "return"])
async def test_a_block_is_left_when_the_end_is_committed(scene: Scene, how: str) -> None:
    async def consume() -> None:
        async with scene.stream() as stream:
            async for _ in stream:
                if how == "break":
                    break
                if how == "error":
                    raise KeyError
                return

    if how == "error":
        with pytest.raises(KeyError):
            await consume()
    else:
        await consume()
    assert await scene.status() == "CANCELLED"


async def test_the_output_of_a_stream_that_was_left_says_where_the_stored_run_is(scene: Scene) -> None:
    stream = scene.stream()
    with pytest.raises(UsageError, match="has not ended: read the `output` of its stream after the loop"):
        _ = stream.output
    async with stream:
        async for _ in stream:
            break
    with pytest.raises(UsageError, match=r"cancelled together with its stream.* get_run_output\(run_id\)"):
        _ = stream.output


async def test_a_cancellation_inside_anext_is_raised_when_the_end_is_committed(scene: Scene) -> None:
    async def consume() -> None:
        async for _ in scene.stream():
            pass

    task = asyncio.create_task(consume())
    await scene.inside.wait()
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await scene.status() == "CANCELLED"


async def test_a_deadline_round_the_loop_passes_when_the_end_is_committed(scene: Scene) -> None:
    async def late() -> None:
        await scene.inside.wait()
        pass_time()

    passing = asyncio.create_task(late())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(LONG):
            async for _ in scene.stream():
                pass
    await passing
    assert await scene.status() == "CANCELLED"


async def test_a_consumer_that_is_cancelled_again_while_it_waits_still_waits(scene: Scene) -> None:
    slow = asyncio.Event()
    commit = scene.db.commit

    async def slow_commit(*arguments: Any) -> Any:
        await slow.wait()
        return await commit(*arguments)

    scene.db.commit = slow_commit  # type: ignore[method-assign, assignment]

    async def consume() -> None:
        async for _ in scene.stream():
            pass

    task = asyncio.create_task(consume())
    await scene.inside.wait()
    for _ in range(3):
        task.cancel()
        await turns()
        assert not task.done()
    slow.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await scene.status() == "CANCELLED"


# Ends that have no place to wait: whoever comes next does.


async def walk_away(scene: Scene) -> None:
    async for event in scene.stream():
        if event.kind == "ToolCallStarted":
            await scene.inside.wait()
            break


async def test_after_a_break_the_next_accessor_finds_the_end_committed(scene: Scene) -> None:
    await walk_away(scene)
    assert await scene.agent.aget_session_state() == {}
    assert await scene.status() == "CANCELLED"


async def test_after_a_break_the_next_run_finds_the_end_committed(scene: Scene) -> None:
    statuses: list[str | None] = []
    await walk_away(scene)

    async def look() -> None:
        statuses.append(await scene.status())

    await agent_with(look, db=scene.db, session_id="one").arun("go")
    assert statuses == ["CANCELLED"]


async def test_after_a_break_an_accessor_in_another_thread_finds_the_end_committed(scene: Scene) -> None:
    await walk_away(scene)
    assert await asyncio.to_thread(scene.agent.get_session_state) == {}
    assert await scene.status() == "CANCELLED"


async def test_an_error_in_the_body_cancels_the_run(scene: Scene) -> None:
    async def consume() -> None:
        async for event in scene.stream():
            if event.kind == "ToolCallStarted":
                raise KeyError

    with pytest.raises(KeyError):
        await consume()
    await scene.agent.aget_session_state()
    assert await scene.status() == "CANCELLED"


async def test_a_cancellation_in_the_body_cancels_the_run(scene: Scene) -> None:
    async def consume() -> None:
        async for event in scene.stream():
            if event.kind == "ToolCallStarted":
                await asyncio.Event().wait()

    task = asyncio.create_task(consume())
    await scene.inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await scene.agent.aget_session_state()
    assert await scene.status() == "CANCELLED"


async def test_a_stream_that_only_a_cycle_keeps_is_cancelled_by_the_garbage_collector(scene: Scene) -> None:
    class Holder:
        pass

    holder = Holder()
    holder.myself = holder  # type: ignore[attr-defined]
    holder.stream = scene.stream()  # type: ignore[attr-defined]
    await until_tool_call(holder.stream)  # type: ignore[attr-defined]
    await scene.inside.wait()
    del holder
    gc.collect()
    assert await scene.agent.aget_session_state() == {}
    assert await scene.status() == "CANCELLED"


async def test_a_stream_that_is_collected_in_another_thread_is_cancelled_on_its_loop(scene: Scene) -> None:
    held = [scene.stream()]
    await until_tool_call(held[0])
    await scene.inside.wait()
    await asyncio.to_thread(held.clear)
    assert await scene.agent.aget_session_state() == {}
    assert await scene.status() == "CANCELLED"


def test_a_stream_that_is_left_on_a_loop_that_stands_still_keeps_nobody_waiting() -> None:
    """Its end comes when the loop runs again; on this thread, which asks for the state first."""

    async def start() -> tuple[Agent, InMemoryDb]:
        scene = Scene()
        await until_tool_call(scene.stream())  # and the stream is gone
        return scene.agent, scene.db

    async def rest() -> None:
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})

    with asyncio.Runner() as runner:
        agent, db = runner.run(start())
        assert agent.get_session_state() == {}
        runner.run(rest())
        (row,) = asyncio.run(db.load_runs("one"))
        assert row.status == "CANCELLED"
    assert len(live_sessions) == 0


def test_a_stream_that_is_left_on_a_loop_that_is_closed_keeps_nobody_waiting() -> None:
    told = processes.run(
        """
        import asyncio, os
        from tests.played import agent_with

        async def work(run_context):
            await asyncio.Event().wait()

        agent = agent_with(work, session_id="one")
        loop = asyncio.new_event_loop()
        stream = agent.arun("go", stream=True, stream_events=True)
        while loop.run_until_complete(anext(stream)).kind != "ToolCallStarted":
            pass
        del stream
        loop.close()
        print(agent.get_session_state(), flush=True)
        os._exit(0)  # asyncio would complain of the task that it has lost
        """
    )
    assert told == "{}\n"


async def test_a_stream_that_is_kept_after_a_break_goes_on(scene: Scene) -> None:
    stream = scene.stream()
    async for event in stream:
        if event.kind == "ToolCallStarted":
            break
    scene.go_on.set()
    kinds = [event.kind async for event in stream]
    assert kinds[-1] == "RunCompleted"
    assert await scene.agent.aget_session_state() == {"half": True}


# The end of the program.


@pytest.mark.parametrize("kept", [True, False])
async def test_the_end_of_asyncio_run_commits_what_was_left(kept: bool) -> None:
    db = InMemoryDb()
    streams: list[Any] = []

    async def program() -> None:
        scene = Scene()
        agent = agent_with(*scene.agent.tools or (), db=db, session_id="one")
        stream = agent.arun("go", stream=True, stream_events=True)
        if kept:
            streams.append(stream)
        await until_tool_call(stream)
        await scene.inside.wait()

    await asyncio.to_thread(lambda: asyncio.run(program()))
    (row,) = await db.load_runs("one")
    assert row.status == "CANCELLED"
    assert len(live_sessions) == 0
    streams.clear()  # its loop is closed, and it does not mind


# A slow consumer.


async def test_a_run_waits_for_a_slow_consumer_and_not_for_ever() -> None:
    words = 2000

    def talk(request: ModelRequest) -> ModelResponse:
        return ModelResponse.of(" ".join(["word"] * words))

    agent = Agent(model=FunctionModel(talk), session_id="one")
    async with no_leaks():
        stream = agent.arun("go", stream=True)
        await anext(stream)
        for _ in range(5000):
            await asyncio.sleep(0)
        assert 200 < len(stream._buffer.items) < 400
        pieces = [event.content async for event in stream]
        assert len(pieces) == words - 1

        stream = agent.arun("go", stream=True)
        await anext(stream)
        await turns(1000)
        await stream.aclose()  # while the run waits for its consumer


async def test_a_call_that_has_the_state_never_waits_for_the_consumer() -> None:
    async def talkative(run_context: RunContext) -> None:
        for number in range(400):
            async with run_context.transaction() as state:
                state["n"] = number

    agent = agent_with(talkative, session_id="one")
    stream = agent.arun("go", stream=True, stream_events=True)
    await anext(stream)
    (session,) = live_sessions._sessions.values()
    await until(lambda: session.state.revision == 400)
    kinds = [event.kind async for event in stream]
    assert kinds.count("SessionStateChanged") == 400


# As a web framework uses it.


async def test_a_response_whose_client_goes_away_while_it_is_sent_cancels_the_run(scene: Scene) -> None:
    """The framework drops the generator where it stands; the loop's hooks close it."""

    async def lines() -> AsyncIterator[str]:
        async for event in scene.stream():
            yield f"data: {event.to_json()}\n\n"

    sent: list[str] = []
    blocked = asyncio.Event()

    async def respond() -> None:
        async for line in lines():
            sent.append(line)
            if "ToolCallStarted" in line:
                blocked.set()
                await asyncio.Event().wait()  # a socket that takes no more

    request = asyncio.create_task(respond())
    await blocked.wait()
    await scene.inside.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    del request
    await turns()
    assert await scene.agent.aget_session_state() == {}
    assert await scene.status() == "CANCELLED"
    assert sent[0].startswith("data: {")


async def test_a_response_whose_client_goes_away_between_events_cancels_the_run(scene: Scene) -> None:
    async def lines() -> AsyncIterator[str]:
        async for event in scene.stream():
            yield event.to_json()

    async def respond() -> None:
        async for _ in lines():
            pass

    request = asyncio.create_task(respond())
    await scene.inside.wait()
    await turns()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert await scene.status() == "CANCELLED"
