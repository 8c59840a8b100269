"""A cancellation from outside holds, whatever the function that it reaches makes of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from kern import Agent, RunOutput, RunStatus, Team
from kern.testing import FunctionModel, tool_call
from kern.testing.request import ReceivedRequest

entered: list[bool] = []
paid: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    entered.clear()
    paid.clear()


async def until_entered() -> None:
    while not entered:
        await asyncio.sleep(0.01)


async def pay() -> str:
    paid.append("paid")
    return "paid"


async def stay() -> None:
    entered.append(True)
    await asyncio.sleep(20)


async def swallows() -> str:
    with suppress(asyncio.CancelledError):
        await stay()
    return "partial output"


async def raises_another() -> str:
    try:
        await stay()
    except asyncio.CancelledError as error:
        raise RuntimeError("interrupted") from error
    return "never"


async def yields_the_rest() -> AsyncIterator[str]:
    yield "one"
    try:
        await stay()
    except asyncio.CancelledError:
        yield "the rest"


async def kills_its_process() -> str:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(20)")
    entered.append(True)
    try:
        await process.wait()
    except BaseException:
        process.kill()
        await process.wait()
        return "killed"
    return "ended"


async def hook_tells(function_call: Callable[..., Any], arguments: dict[str, Any]) -> str:
    try:
        return str(await function_call(**arguments))
    except BaseException as error:
        return f"the hook has seen {type(error).__name__}"


async def waits() -> str:
    await stay()
    return "never"


def play(first: str, **arguments: object) -> FunctionModel:
    def answer(request: ReceivedRequest) -> object:
        done = sum(message.role == "tool" for message in request.messages)
        return [tool_call(first, **arguments), tool_call("pay"), "Done."][min(done, 2)]

    return FunctionModel(answer)


def of_tool(tool: Callable[..., Any]) -> Agent:
    return Agent(model=play(tool.__name__), tools=[tool, pay], session_id="s")


async def pre_hook() -> None:
    await swallows()


async def instructions() -> str:
    return await swallows()


RUNNERS: dict[str, Callable[[], Agent | Team]] = {
    "tool": lambda: of_tool(swallows),
    "another error": lambda: of_tool(raises_another),
    "generator": lambda: of_tool(yields_the_rest),
    "process": lambda: of_tool(kills_its_process),
    "tool hook": lambda: Agent(
        model=play("waits"), tools=[waits, pay], tool_hooks=[hook_tells], session_id="s"
    ),
    "pre hook": lambda: Agent(model=play("pay"), tools=[pay], pre_hooks=[pre_hook], session_id="s"),
    "instructions": lambda: Agent(model=play("pay"), tools=[pay], instructions=instructions, session_id="s"),
    "member": lambda: Team(
        members=[Agent(id="m", model=play("swallows"), tools=[swallows, pay])],
        model=play("delegate_task_to_member", member_id="m", task="do it"),
        tools=[pay],
        session_id="s",
    ),
}


async def by_cancel(run: Callable[[], Awaitable[RunOutput]]) -> None:
    task = asyncio.ensure_future(run())
    await until_entered()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_timeout(run: Callable[[], Awaitable[RunOutput]]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit:
            task = asyncio.current_task()
            assert task is not None

            async def expire() -> None:
                await until_entered()
                limit.reschedule(asyncio.get_running_loop().time())

            watch = asyncio.create_task(expire())
            await run()
    await watch


async def by_task_group(run: Callable[[], Awaitable[RunOutput]]) -> None:
    async def fail() -> None:
        await until_entered()
        raise LookupError("a sibling fails")

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await run()


@pytest.mark.parametrize("way", [by_cancel, by_timeout, by_task_group])
@pytest.mark.parametrize("case", RUNNERS)
async def test_nothing_is_asked_or_done_after_it(
    case: str, way: Callable[[Callable[[], Awaitable[RunOutput]]], Awaitable[None]]
) -> None:
    runner = RUNNERS[case]()
    await way(lambda: runner.arun("go", run_id="r"))
    assert paid == []
    stored = await runner.aget_run_output("r")
    assert stored is not None
    assert stored.status is RunStatus.cancelled


async def test_a_task_group_that_fails_inside_of_a_tool_cancels_nothing() -> None:
    async def group_fails() -> str:
        async def child() -> None:
            raise LookupError("a child fails")

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
        except ExceptionGroup:
            return "handled"
        return "never"

    output = await of_tool(group_fails).arun("go")
    assert (output.status, output.content, paid) == (RunStatus.completed, "Done.", ["paid"])
