"""A run whose model and tools never wait gives the event loop a turn all the same."""

from __future__ import annotations

import asyncio

import pytest

from kern import Agent
from kern.errors import RunDeadlineExceeded
from kern.messages import ToolCall
from kern.models.base import DeltaSink, Model, ModelRequest, ModelResponse


class Looping(Model):
    """Answers at once, with one more call, for ever."""

    id = "looping"
    provider = "test"

    def __init__(self) -> None:
        self.asked = 0

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        self.asked += 1
        return ModelResponse.of(None, ToolCall(f"call_{self.asked}", "again", "{}"))


def again() -> str:
    return "again"


async def test_a_deadline_holds_with_a_model_that_never_waits() -> None:
    agent = Agent(model=Looping(), tools=[again], max_requests=None)
    with pytest.raises(RunDeadlineExceeded):
        await agent.arun("go", timeout=0.05)


async def test_another_task_goes_on_beside_a_model_that_never_waits() -> None:
    model = Looping()
    run = asyncio.ensure_future(Agent(model=model, tools=[again], max_requests=None).arun("go"))
    while model.asked < 3:
        await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
