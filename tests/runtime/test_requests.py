"""Running and continuing are asked for in one way: whose run it is, and errors of plain races."""

from __future__ import annotations

import asyncio

import pytest

from kern import Agent, tool
from kern.db import InMemoryDb
from kern.errors import RunConflictError, SessionError, SessionOwnershipError, UsageError
from kern.models.base import ModelRequest
from kern.testing import FunctionModel, tool_call


@tool(requires_confirmation=True)
async def wipe() -> str:
    await asyncio.sleep(0.01)
    return "wiped"


def model() -> FunctionModel:
    def play(request: ModelRequest) -> object:
        return "done" if request.messages[-1].role == "tool" else tool_call("wipe")

    return FunctionModel(play)


@pytest.mark.parametrize("owner", [None, "", "alice"])
@pytest.mark.parametrize("asking", [None, "", "alice", "mallory"])
@pytest.mark.parametrize("with_output", [False, True])
async def test_a_paused_run_is_continued_by_its_owner_and_nobody_else(
    owner: str | None, asking: str | None, with_output: bool
) -> None:
    agent = Agent(model=model(), tools=[wipe], db=InMemoryDb())
    paused = await agent.arun("x", user_id=owner)
    paused.requirements[0].confirm()
    # None is whose run the output says it is; by the run's id alone it is the constructor's user, here None.
    may = asking == owner or (with_output and asking is None)
    if with_output:
        going_on = agent.acontinue_run(paused, user_id=asking)
    else:
        going_on = agent.acontinue_run(run_id=paused.run_id, requirements=paused.requirements, user_id=asking)
    if may:
        assert (await going_on).content == "done"
    else:
        with pytest.raises(SessionOwnershipError):
            await going_on


async def test_an_agent_of_a_user_continues_as_that_user_by_default() -> None:
    agent = Agent(model=model(), tools=[wipe], db=InMemoryDb(), user_id="alice")
    paused = await agent.arun("x")
    paused.requirements[0].confirm()
    with pytest.raises(SessionOwnershipError):
        await agent.acontinue_run(run_id=paused.run_id, requirements=paused.requirements, user_id="")
    output = await agent.acontinue_run(run_id=paused.run_id, requirements=paused.requirements)
    assert (output.content, output.user_id) == ("done", "alice")


async def test_who_comes_second_is_told_of_a_race_and_not_of_a_mistake() -> None:
    agent = Agent(model=model(), tools=[wipe], session_id="s")
    paused = await agent.arun("x")
    paused.requirements[0].confirm()
    one, other = await asyncio.gather(
        agent.acontinue_run(paused), agent.acontinue_run(paused), return_exceptions=True
    )
    [error] = [result for result in (one, other) if isinstance(result, BaseException)]
    assert isinstance(error, RunConflictError)
    assert isinstance(error, SessionError)
    assert not isinstance(error, UsageError)
    with pytest.raises(RunConflictError, match="is not paused: its status is COMPLETED"):
        await agent.acontinue_run(paused)


async def test_a_session_with_a_run_that_goes_on_is_not_deleted() -> None:
    started, go = asyncio.Event(), asyncio.Event()

    async def play(request: ModelRequest) -> str:
        started.set()
        await go.wait()
        return "done"

    agent = Agent(model=FunctionModel(play), session_id="s")
    run = asyncio.create_task(agent.arun("x"))
    await started.wait()
    with pytest.raises(RunConflictError, match="has a run in progress"):
        await agent.adelete_session()
    go.set()
    await run
    assert await agent.adelete_session()
