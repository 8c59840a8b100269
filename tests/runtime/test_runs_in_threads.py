"""A run that a tool starts in a thread knows its caller: it takes no turn of its own, and ends with it."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from kern import Agent
from kern._sync.executor import ContextExecutor, carry_context
from kern.db import InMemoryDb
from kern.runtime.control import active_runs
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
