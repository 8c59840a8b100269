"""A lone call of a function that cannot be suspended has no own task; nothing else may be different."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from kern import Agent, RunContext, RunStatus
from kern.models.base import ModelResponse
from kern.runtime.return_values import runs_through
from kern.testing import FunctionModel, tool_call

SEEN: ContextVar[str] = ContextVar("seen", default="nothing")


async def straight(n: int = 1) -> int:
    return sum(number for number in range(n))


async def waits() -> None:
    await asyncio.sleep(0)


async def iterates() -> None:
    async for _ in yields():
        pass


async def enters() -> None:
    async with asyncio.Lock():
        pass


async def yields() -> AsyncIterator[int]:
    yield 1


def plain() -> None:
    pass


class Kit:
    async def straight(self) -> str:
        return "kit"

    async def __call__(self) -> str:
        return "kit"


@pytest.mark.parametrize("function", [straight, Kit().straight])
def test_an_async_function_that_never_waits_runs_through(function: Callable[..., Any]) -> None:
    assert runs_through(function)


@pytest.mark.parametrize(
    "function", [waits, iterates, enters, yields, plain, Kit(), functools.partial(straight, 2), len]
)
def test_any_other_function_may_be_suspended_or_is_not_known(function: Callable[..., Any]) -> None:
    assert not runs_through(function)


def calling(name: str, *tools: Any, **options: Any) -> Agent:
    model = FunctionModel(
        lambda request: (
            request.messages[-1].content or "done" if request.messages[-1].role == "tool" else tool_call(name)
        )
    )
    return Agent(model=model, tools=list(tools), **options)


async def test_what_a_function_sets_in_its_context_stays_there() -> None:
    async def set_it() -> str:
        SEEN.set("by the tool")
        return SEEN.get()

    output = await calling("set_it", set_it).arun("go")
    assert output.content == "by the tool"
    assert SEEN.get() == "nothing"


async def test_its_state_and_its_errors_are_those_of_any_call() -> None:
    async def count(run_context: RunContext) -> str:
        run_context.session_state["n"] = run_context.session_state.get("n", 0) + 1
        if run_context.session_state["n"] == 2:
            raise LookupError("no second")
        return "counted"

    agent = calling("count", count, session_id="s", session_state={})
    assert (await agent.arun("go")).session_state == {"n": 1}
    failed = await agent.arun("go")
    assert "no second" in str(failed.content)
    assert failed.session_state == {"n": 1}


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_cancellation_that_it_raises_itself_is_a_result_for_the_model(*, is_async: bool) -> None:
    async def give_in() -> str:
        raise asyncio.CancelledError

    def give_in_in_a_thread() -> str:
        raise asyncio.CancelledError

    function: Callable[..., Any] = give_in if is_async else give_in_in_a_thread
    output = await calling(function.__name__, function).arun("go")
    assert output.status is RunStatus.completed
    assert output.content == f"{function.__name__} was cancelled."


async def test_a_coroutine_that_a_sync_function_returns_cannot_swallow_a_cancellation() -> None:
    began, calls = asyncio.Event(), []

    async def deaf() -> str:
        began.set()
        try:
            await asyncio.sleep(20)
        except asyncio.CancelledError:
            calls.append("swallowed")
        return "worked"

    def work() -> Any:
        return deaf()

    model = FunctionModel(lambda request: ModelResponse.of(None, tool_call("work")))
    run = asyncio.create_task(Agent(model=model, tools=[work]).arun("go"))
    await began.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert calls == ["swallowed"]


async def test_a_cancelled_run_does_not_wait_for_the_thread_of_its_function() -> None:
    began = asyncio.Event()
    loop = asyncio.get_running_loop()
    release = asyncio.Event()

    def block() -> str:
        loop.call_soon_threadsafe(began.set)
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(20)
        return "late"

    run = asyncio.create_task(calling("block", block).arun("go"))
    await began.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert not release.is_set()
    release.set()
