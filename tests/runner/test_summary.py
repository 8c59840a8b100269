"""A summary that cannot be written does not turn a finished answer into an error."""

from __future__ import annotations

import asyncio
import logging

import pytest

from kern import Agent
from kern.errors import ModelServerError
from kern.models.base import ModelRequest, ModelResponse
from kern.run import RunStatus
from kern.testing import FunctionModel, ScriptedModel
from kern.usage import UsageLimits
from tests.clock import LONG, pass_time


async def hang(request: ModelRequest) -> ModelResponse:
    pass_time()
    await asyncio.Event().wait()
    return ModelResponse.of("never")


def broken(request: ModelRequest) -> ModelResponse:
    raise ModelServerError("upstream", status=500)


@pytest.mark.parametrize("how", ["model error", "empty script", "usage limit", "out of time"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failing_summary_is_logged_and_the_run_is_completed(
    how: str, stream: bool, caplog: pytest.LogCaptureFixture
) -> None:
    writers = {"model error": FunctionModel(broken), "empty script": ScriptedModel([])}
    agent = Agent(
        model=ScriptedModel(["the answer", "more"]),
        session_id="s",
        enable_session_summaries=True,
        session_summary_model=writers.get(how) or FunctionModel(hang),
        usage_limits=UsageLimits(requests=1) if how == "usage limit" else None,
        timeout=LONG if how == "out of time" else None,
    )
    with caplog.at_level(logging.WARNING, logger="kern"):
        if stream:
            async with agent.arun("q", stream=True, stream_events=True, yield_run_output=True) as events:
                items = [item async for item in events]
            output = items[-1]
            assert items[-2].event == "RunCompleted"
        else:
            output = await agent.arun("q")
    assert (output.status, output.content) == (RunStatus.completed, "the answer")
    assert any("summary was not updated" in record.getMessage() for record in caplog.records)
    stored = await agent.aget_last_run_output()
    assert stored is not None
    assert stored.status is RunStatus.completed


async def test_a_run_that_is_cancelled_while_its_summary_is_written_is_cancelled() -> None:
    writing = asyncio.Event()

    async def write(request: ModelRequest) -> ModelResponse:
        writing.set()
        return await hang(request)

    agent = Agent(
        model=ScriptedModel(["the answer"]),
        session_id="s",
        enable_session_summaries=True,
        session_summary_model=FunctionModel(write),
    )
    run = asyncio.ensure_future(agent.arun("q", run_id="r"))
    await writing.wait()
    await agent.acancel_run("r")
    output = await run
    assert (output.status, output.content) == (RunStatus.cancelled, "the answer")
