"""A run that a tool starts in a thread knows its caller: it takes no turn of its own, and ends with it."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kern import Agent
from kern._sync.executor import ContextExecutor, carry_context
from kern.db import InMemoryDb
from kern.errors import SessionBusyError
from kern.runtime import lease
from kern.runtime.active_runs import active_runs
from kern.testing import FunctionModel, ScriptedModel, tool_call


def agents(function: Any) -> tuple[Agent, InMemoryDb]:
    db = InMemoryDb()
    model = FunctionModel(lambda r: "done" if r.messages[-1].role == "tool" else tool_call(function.__name__))
    return Agent(model=model, tools=[function], db=db, on_busy="queue", session_id="s"), db


def scene() -> Agent:
    helper = Agent(model=FunctionModel(lambda r: "hi"), on_busy="queue", session_id="s")

    async def ask_helper() -> str:
        loop = asyncio.get_running_loop()
        return str(await loop.run_in_executor(None, lambda: helper.run("plain").content))

    agent, helper.db = agents(ask_helper)
    return agent


async def test_queue_and_a_nested_run_in_an_executor_do_not_wait_for_each_other() -> None:
    output = await asyncio.wait_for(scene().arun("go"), 10)
    assert output.tools[0].result == "hi"


def test_neither_on_the_loop_of_sync_code_nor_on_a_loop_of_one_s_own() -> None:
    assert scene().run("go").tools[0].result == "hi"
    assert asyncio.run(scene().arun("go")).tools[0].result == "hi"


async def test_a_run_in_an_executor_ends_with_its_caller() -> None:
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def stay() -> str:
        loop.call_soon_threadsafe(began.set)
        await asyncio.sleep(20)
        return ""

    inner = Agent(model=ScriptedModel([tool_call("stay")]), tools=[stay])

    async def ask() -> str:
        return str(await asyncio.get_running_loop().run_in_executor(None, lambda: inner.run("go").content))

    run = asyncio.create_task(Agent(model=ScriptedModel([tool_call("ask")]), tools=[ask]).arun("go"))
    await began.wait()
    run.cancel()
    await asyncio.wait([run])
    assert list(active_runs) == []


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.mark.parametrize("own", [False, True])
def test_an_executor_that_the_application_has_chosen_stays(own: bool) -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        if own:
            loop.set_default_executor(ThreadPoolExecutor(1))
        variable.set("set")
        carry_context(loop)
        carry_context(loop)
        return await loop.run_in_executor(None, variable.get)

    assert asyncio.run(main()) == ("unset" if own else "set")


def test_errors_and_keywords_pass_through() -> None:
    with ContextExecutor(1) as executor:
        assert executor.submit(int, "ff", base=16).result() == 255
        with pytest.raises(ValueError, match="invalid literal"):
            executor.submit(int, "x").result()


def in_a_pool(run: Any) -> Any:
    def ask_helper() -> str:
        with ThreadPoolExecutor(2) as pool:
            return str(pool.submit(run).result())

    return ask_helper


def in_a_pool_by_map(run: Any) -> Any:
    def ask_helper() -> str:
        with ThreadPoolExecutor(2) as pool:
            return str(list(pool.map(lambda _: run(), range(2))))

    return ask_helper


def in_a_thread(run: Any) -> Any:
    def ask_helper() -> str:
        said: list[str] = []
        thread = threading.Thread(target=lambda: said.append(run()))
        thread.start()
        thread.join()
        return said[0]

    return ask_helper


def in_a_pool_of_the_loop(run: Any) -> Any:
    async def ask_helper() -> str:
        pool = ThreadPoolExecutor(2)
        return str(await asyncio.get_running_loop().run_in_executor(pool, run))

    return ask_helper


def wrapped(run: Any) -> Any:
    async def ask_helper() -> str:
        pool = ThreadPoolExecutor(2)
        return str(await asyncio.wait_for(asyncio.wrap_future(pool.submit(run)), 20))

    return ask_helper


@pytest.mark.parametrize("sync", [True, False])
@pytest.mark.parametrize("how", [in_a_pool, in_a_pool_by_map, in_a_thread, in_a_pool_of_the_loop, wrapped])
async def test_one_in_a_thread_of_the_tool_s_own_is_told_that_it_waits_for_its_caller(
    how: Any, sync: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "EXCLUSIVE_POLL_SECONDS", 0.05)
    helper = Agent(model=FunctionModel(lambda r: "hi"), on_busy="queue", session_id="s")

    def run() -> str:
        try:
            if sync:
                return str(helper.run("plain").content)
            return str(asyncio.run(helper.arun("plain")).content)
        except SessionBusyError as error:
            return str(error)

    agent, helper.db = agents(how(run))
    output = await asyncio.wait_for(agent.arun("go"), 10)
    assert "one of whose tools started this run in a thread" in (output.tools[0].result or "")


async def test_who_only_waits_in_a_thread_is_not_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of other threads queue behind a run whose tool works in a pool of its own."""
    monkeypatch.setattr(lease, "EXCLUSIVE_POLL_SECONDS", 0.02)
    began, go = threading.Event(), threading.Event()

    def work() -> str:
        began.set()
        with ThreadPoolExecutor(2) as pool:
            return str(list(pool.map(lambda _: go.wait(10), range(2))))

    agent, _ = agents(work)
    first = asyncio.create_task(agent.arun("go"))
    await asyncio.to_thread(began.wait, 10)
    with ThreadPoolExecutor(3) as requests:
        others = [asyncio.wrap_future(requests.submit(lambda: agent.run("go").status)) for _ in range(3)]
        await asyncio.sleep(0.2)
        go.set()
        assert [str(status) for status in await asyncio.gather(*others)] == ["COMPLETED"] * 3
    await first
