"""A run that is tried again reports what all its attempts have used."""

from __future__ import annotations

import pytest

from kern import Agent, RunStatus, Team, tool
from kern.db import InMemoryDb
from kern.errors import ModelServerError
from kern.messages import Message, ToolCall
from kern.models.base import ModelRequest, ModelResponse
from kern.run import TeamRunOutput
from kern.testing import FunctionModel, tool_call
from kern.usage import Usage


class Paid:
    """A model that costs one dollar a request, and whose provider is down when it has paid for the first."""

    def __init__(self, name: str, *, fails: bool, call: ToolCall | None = None) -> None:
        self.paid = 0.0
        self.fails = fails
        self.call = call
        self.model = FunctionModel(self._play, id=name)

    def _play(self, request: ModelRequest) -> ModelResponse:
        done = request.messages[-1].role == "tool"
        if self.fails and (done or self.call is None):
            raise ModelServerError("down", status=500)
        self.paid += 1.0
        calls = [] if done or self.call is None else [self.call]
        message = Message("assistant", None if calls else "done", tool_calls=calls)
        return ModelResponse(message, Usage(requests=1, input_tokens=10, total_tokens=10, cost=1.0))


@tool
def note() -> str:
    """Note."""
    return "noted"


async def test_a_run_that_is_tried_again_counts_the_failed_attempt() -> None:
    paid = Paid("m", fails=True, call=tool_call("note"))
    agent = Agent(model=paid.model, tools=[note], session_id="s", db=InMemoryDb())
    with pytest.raises(ModelServerError):
        await agent.arun("x", run_id="r")
    paid.fails = False
    output = await agent.arun("x", run_id="r", on_duplicate="retry_failed")
    assert (output.metrics.cost, output.metrics.requests, output.metrics.input_tokens) == (3.0, 3, 30)
    assert paid.paid == 3.0
    [of_model] = output.metrics.details.values()
    assert (of_model.cost, of_model.requests) == (3.0, 3)
    assert (await agent.aget_session_metrics("s")).cost == 3.0
    stored = await agent.aget_run_output("r")
    assert stored is not None
    assert stored.metrics == output.metrics


async def test_a_batch_that_is_started_again_counts_what_it_has_paid() -> None:
    paid = Paid("m", fails=True, call=tool_call("note"))
    agent = Agent(id="a", model=paid.model, tools=[note], db=InMemoryDb())
    await agent.amap(["a", "b"], batch="b", progress=False)
    paid.fails = False
    outputs = await agent.amap(["a", "b"], batch="b", progress=False)
    assert sum(output.metrics.cost or 0.0 for output in outputs) == paid.paid == 6.0


@pytest.mark.parametrize("pauses", [False, True])
async def test_the_runs_of_members_of_a_failed_attempt_count_once(pauses: bool) -> None:
    worker = Paid("worker", fails=False)
    leader = Paid("leader", fails=True, call=tool_call("delegate_task_to_member", member_id="w", task="t"))

    @tool(requires_confirmation=True)
    def wait() -> str:
        """Wait."""
        return "waited"

    team = Team(
        [Agent(id="w", model=worker.model)],
        model=leader.model,
        tools=[wait] if pauses else [],
        db=InMemoryDb(),
        session_id="s",
    )
    with pytest.raises(ModelServerError):
        await team.arun("x", run_id="r")
    leader.fails = False
    if pauses:
        leader.call = tool_call("wait")
    output = await team.arun("x", run_id="r", on_duplicate="retry_failed")
    if pauses:
        assert output.status is RunStatus.paused
        assert output.metrics.cost == leader.paid + worker.paid == 3.0
        output.requirements[0].confirm()
        output = await team.acontinue_run(output)
    assert isinstance(output, TeamRunOutput)
    assert output.status is RunStatus.completed
    assert output.metrics.cost == leader.paid + worker.paid
    details = {name.split("/")[-1]: usage.cost for name, usage in output.metrics.details.items()}
    assert details == {"leader": leader.paid, "worker": worker.paid}
    assert len(output.member_responses) == worker.paid
    assert (await team.aget_session_metrics("s")).cost == leader.paid + worker.paid
