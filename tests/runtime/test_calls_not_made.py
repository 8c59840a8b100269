"""Calls that a limit or the end of the run has kept from being made are told as such, and as nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kern import Agent, RunContext, RunStatus
from kern.db import InMemoryDb
from kern.errors import ToolError, UsageLimitExceeded
from kern.models.base import ModelResponse
from kern.runtime.outcome import Start
from kern.testing import ScriptedModel, tool_call
from kern.usage import UsageLimits

USED_UP = "Not called: the limit of 1 tool call is reached."


class Till:
    def __init__(self) -> None:
        self.paid: list[str] = []

    def pay(self, k: str) -> str:
        """Pay."""
        self.paid.append(k)
        return f"paid {k}"

    async def apay(self, k: str) -> str:
        """Pay."""
        return self.pay(k)


def turn(*calls: Any) -> ModelResponse:
    return ModelResponse.of(None, *calls)


@pytest.mark.parametrize("name", ["pay", "apay"])
async def test_a_turn_that_would_pass_a_limit_is_not_begun(name: str) -> None:
    till = Till()
    model = ScriptedModel([turn(tool_call(name, k="1"), tool_call(name, k="2")), "next", "again"])
    limits = UsageLimits(tool_calls=1)
    agent = Agent(
        model=model,
        tools=[till.pay, till.apay],
        db=InMemoryDb(),
        session_id="s",
        add_history_to_context=True,
        usage_limits=limits,
    )
    with pytest.raises(UsageLimitExceeded) as caught:
        await agent.arun("q", run_id="r")
    assert till.paid == []
    output = caught.value.run_output
    assert output is not None
    assert [(t.result, t.tool_call_error) for t in output.tools] == [(USED_UP, True)] * 2
    await agent.arun("next")
    told = [m.content for m in model.requests[-1].messages if m.role == "tool"]
    assert told == [USED_UP] * 2
    await agent.arun("q", run_id="r", on_duplicate="retry_failed")
    texts = [m.content or "" for m in model.requests[-1].messages]
    assert texts.count(USED_UP) == 2
    assert not any("may have acted" in text for text in texts)


async def test_calls_within_the_limit_are_made_and_a_later_turn_is_not_begun() -> None:
    till = Till()
    calls = [turn(tool_call("pay", k="1"), tool_call("pay", k="2")), turn(tool_call("pay", k="3"))]
    agent = Agent(model=ScriptedModel(calls), tools=[till.pay], usage_limits=UsageLimits(tool_calls=2))
    with pytest.raises(UsageLimitExceeded) as caught:
        await agent.arun("q")
    assert sorted(till.paid) == ["1", "2"]
    assert caught.value.run_output is not None
    assert [t.tool_call_error for t in caught.value.run_output.tools] == [False, False, True]


async def test_a_call_that_waits_when_its_run_is_cancelled_is_not_made() -> None:
    began, second = asyncio.Event(), False

    async def first(run_context: RunContext) -> str:
        run_context.session_state["a"] = 1
        began.set()
        await asyncio.sleep(20)
        return "first"

    async def waits(run_context: RunContext) -> str:
        nonlocal second
        async with run_context.transaction():
            second = True
        return "second"

    def thread(run_context: RunContext) -> str:
        nonlocal second
        second = True
        run_context.session_state["a"] = 2
        return "second"

    model = ScriptedModel([turn(tool_call("first"), tool_call("waits"), tool_call("unknown"))])
    agent = Agent(model=model, tools=[first, waits, thread], db=InMemoryDb(), session_id="s")
    run = asyncio.create_task(agent.arun("q", run_id="r"))
    await began.wait()
    agent.cancel_run("r")
    output = await run
    assert output.status is RunStatus.cancelled
    results = {t.tool_name: t.result for t in output.tools}
    assert results["first"] is None  # it may have acted
    assert (results["waits"] or "").startswith("Not called") is not second


def test_a_call_begins_or_is_noted_as_not_made_never_both() -> None:
    start = Start()
    start.begin()
    start.begin()  # of a hook, and of what it is round
    assert not start.prevent()
    start = Start()
    assert start.prevent()
    with pytest.raises(ToolError, match="before this call began"):
        start.begin()
