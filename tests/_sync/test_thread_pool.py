"""Threads for sync functions: those that never return hold nobody up, until there are very many of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

import kern
from kern import Agent, RunContext, UsageError
from kern._sync import threads as module
from kern._sync.threads import ThreadPool, thread_place_released, threads
from kern.errors import ToolError
from kern.testing import FunctionModel, tool_call


@pytest.fixture
def end() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STUCK_SECONDS", 0.1)
    monkeypatch.setattr(module, "HOPELESS_SECONDS", 0.5)


async def started(pool: ThreadPool, event: threading.Event, count: int) -> list[asyncio.Task[bool]]:
    tasks = [asyncio.create_task(pool.run(event.wait)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_what_is_stuck_is_replaced_while_others_wait(end: threading.Event) -> None:
    pool = ThreadPool(places=2, most=8)
    stuck = await started(pool, end, 5)
    assert await pool.run(lambda: "quick") == "quick"
    end.set()
    assert await asyncio.gather(*stuck) == [True] * 5


async def test_at_the_bound_those_who_wait_get_an_error_and_later_ones_work_again(
    end: threading.Event,
) -> None:
    pool = ThreadPool(places=2, most=4)
    stuck = await started(pool, end, 4)
    with pytest.raises(
        ToolError, match=r"all 4 running ones are blocked, and at most 4 are allowed.*kern\.limit_threads"
    ):
        await pool.run(lambda: "quick")
    end.set()
    await asyncio.gather(*stuck)
    assert await pool.run(lambda: "quick") == "quick"


async def test_threads_that_nobody_awaits_any_more_count(end: threading.Event) -> None:
    pool = ThreadPool(places=2, most=4)
    for _ in range(4):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.run(end.wait), 0.01)
    with pytest.raises(ToolError, match="no thread is free"):
        await pool.run(lambda: "quick")
    end.set()
    while pool._working:
        await asyncio.sleep(0.01)
    assert await pool.run(lambda: "quick") == "quick"


async def test_many_that_end_are_no_stuck_ones(end: threading.Event) -> None:
    pool = ThreadPool(places=2, most=4)
    most = 0
    mutex = threading.Lock()
    running: set[int] = set()

    def work() -> None:
        nonlocal most
        with mutex:
            running.add(threading.get_ident())
            most = max(most, len(running))
        end.wait(0.01)
        with mutex:
            running.discard(threading.get_ident())

    await asyncio.gather(*(pool.run(work) for _ in range(100)))
    assert most <= 2


async def test_one_that_waits_for_something_is_not_at_work(end: threading.Event) -> None:
    pool = ThreadPool(places=2, most=4)

    def waits() -> bool:
        with thread_place_released():
            return end.wait()

    waiting = [asyncio.create_task(pool.run(waits)) for _ in range(20)]
    await asyncio.sleep(0.2)
    assert await pool.run(lambda: "quick") == "quick"
    end.set()
    assert await asyncio.gather(*waiting) == [True] * 20


async def test_who_comes_back_from_a_wait_goes_on_without_a_place_at_the_bound(end: threading.Event) -> None:
    pool = ThreadPool(places=2, most=3)
    back, may_come = threading.Event(), threading.Event()

    def waits() -> str:
        with thread_place_released():
            may_come.wait()
        back.set()
        return "back"

    waiting = asyncio.create_task(pool.run(waits))
    await asyncio.sleep(0.05)
    stuck = await started(pool, end, 3)
    await asyncio.sleep(0.5)
    may_come.set()
    assert await waiting == "back"
    end.set()
    await asyncio.gather(*stuck)


async def test_a_cancelled_wait_leaves_nothing(end: threading.Event) -> None:
    pool = ThreadPool(places=1, most=1)
    stuck = await started(pool, end, 1)
    await asyncio.sleep(0)
    waiting = asyncio.create_task(pool.run(lambda: "never"))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (pool._waiting, pool._places.waiting) == ({}, 0)
    end.set()
    await asyncio.gather(*stuck)


@pytest.mark.parametrize("in_place", [False, True])
async def test_where_the_system_gives_no_thread_it_is_said_or_done_at_once(
    in_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ThreadPool(in_place=in_place)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    if in_place:
        assert await pool.run(threading.get_ident) == threading.get_ident()
    else:
        with pytest.raises(
            ToolError, match="the operating system could not start a thread for a sync function: can't start"
        ):
            await pool.run(lambda: "x")
    while pool._working:
        await asyncio.sleep(0.01)


def test_the_bound_can_be_set() -> None:
    assert threads.most == 1024
    kern.limit_threads(2000)
    assert threads.most == 2000
    kern.limit_threads(1024)
    with pytest.raises(UsageError, match="a whole number, 128 or more, not 3"):
        kern.limit_threads(3)


async def test_stuck_tools_hold_up_nothing_of_the_process(
    end: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forever() -> str:
        end.wait()
        return "x"

    def quick() -> str:
        return "quick"

    async def touch(run_context: RunContext) -> str:
        run_context.session_state["a"] = 1
        return "ok"

    def agent(tool: object, **options: object) -> Agent:
        name = tool.__name__  # type: ignore[attr-defined]
        model = FunctionModel(lambda r: "done" if r.messages[-1].role == "tool" else tool_call(name))
        return Agent(model=model, tools=[tool], **options)

    stuck = [asyncio.create_task(agent(forever).arun("x")) for _ in range(200)]
    while len(threads._working) < 128:
        await asyncio.sleep(0.01)
    large = agent(touch, session_state={"text": "x" * 200_000}, session_id="large")
    assert (await agent(quick).arun("x")).tools[0].result == "quick"
    assert (await large.arun("x")).content == "done"
    assert len(await large.asession_state_history()) == 1
    await agent(quick).aprint_response("x")
    end.set()
    await asyncio.gather(*stuck)
