"""A stream that is opened raises what refuses its run, before the model is asked and before any event."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kern import Agent, Team
from kern.db.in_memory import InMemoryDb
from kern.errors import RunConflictError, SessionBusyError, SessionOwnershipError
from kern.models.base import ModelRequest
from kern.testing import FunctionModel, ScriptedModel, no_leaks


def runner(kind: str, **options: Any) -> Any:
    model = ScriptedModel(["Hello there.", "Again."])
    make = Agent if kind == "agent" else lambda **options: Team([], **options)
    return make(model=model, db=InMemoryDb(), session_id="s", **options)


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("kind", ["agent", "team"])
async def test_another_user_s_session_is_refused_before_the_model_is_asked(
    kind: str, everything: bool
) -> None:
    one = runner(kind)
    await one.arun("Hi", user_id="ann")
    async with no_leaks():
        stream = one.arun("Hi", stream=True, stream_events=everything, user_id="bob")
        with pytest.raises(SessionOwnershipError):
            await stream.open()
        assert [event async for event in stream] == []
    assert len(one.model.requests) == 1


async def test_a_run_id_that_is_taken_is_refused() -> None:
    one = runner("agent")
    await one.arun("Hi", run_id="r")
    with pytest.raises(RunConflictError):
        await one.arun("Hi", stream=True, run_id="r").open()


async def test_a_busy_session_is_refused() -> None:
    going, go = asyncio.Event(), asyncio.Event()

    async def slow(request: ModelRequest) -> str:
        going.set()
        await go.wait()
        return "done"

    agent = Agent(model=FunctionModel(slow), db=InMemoryDb(), session_id="s", on_busy="reject")
    first = agent.arun("Hi", stream=True)
    await first.open()
    await going.wait()
    with pytest.raises(SessionBusyError):
        await agent.arun("Hi", stream=True).open()
    go.set()
    assert "".join([event.content async for event in first]) == "done"


@pytest.mark.parametrize("everything", [False, True])
async def test_an_open_stream_yields_the_same_events_as_one_that_starts_by_itself(everything: bool) -> None:
    kinds = []
    for opened in (False, True):
        stream = runner("agent").arun("Hi", stream=True, stream_events=everything)
        if opened:
            assert await stream.open() is stream
            assert await stream.open() is stream, "opened once"
        kinds.append([event.event async for event in stream])
    assert kinds[0] == kinds[1]


async def test_an_open_stream_that_is_closed_unread_ends_its_run() -> None:
    agent = runner("agent")
    async with no_leaks():
        stream = agent.arun("Hi", stream=True)
        await stream.open()
        await stream.aclose()
    last = await agent.aget_last_run_output()
    assert last is not None
    assert last.status in ("CANCELLED", "COMPLETED")


async def test_a_cancelled_opening_leaves_nothing() -> None:
    agent = runner("agent")
    async with no_leaks():
        opening = asyncio.create_task(agent.arun("Hi", stream=True).open())
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
