"""Usage that makes no sense takes nothing off a limit, whoever reports it."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from kern import Agent
from kern.errors import UsageLimitExceeded
from kern.models.base import ModelResponse
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.testing import Fault, FunctionModel, ModelServer, tool_call
from kern.usage import Metrics, Usage, UsageLimits


def look() -> str:
    """Look."""
    return "nothing yet"


@pytest.mark.parametrize("odd", [-1_000_000, math.nan, -math.inf])
async def test_negative_usage_does_not_lift_a_limit(odd: Any) -> None:
    asked = 0

    def play(request: object) -> ModelResponse:
        nonlocal asked
        asked += 1
        spent = Usage(input_tokens=odd if asked % 2 else 60, total_tokens=odd, requests=1)
        return ModelResponse.of(None, tool_call("look"), usage=spent)

    agent = Agent(model=FunctionModel(play), tools=[look])
    with pytest.raises(UsageLimitExceeded, match="input tokens") as caught:
        await agent.arun("Go on", usage_limits=UsageLimits(input_tokens=100, requests=50))
    assert asked == 4
    assert caught.value.run_output.metrics.input_tokens == 120


@pytest.mark.parametrize("make", [OpenAIChat, OpenAIResponses])
@pytest.mark.parametrize("odd", [-5_000, "-5000", None, [1], {"a": 1}, True, -1e300])
async def test_what_a_server_reports_counts_from_zero_up(make: Any, odd: Any) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    item = {"type": "function_call", "call_id": "1", "name": "look", "arguments": "{}"}
    names = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
    body = {
        "choices": [{"index": 0, "message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}],
        "output": [item],
        "status": "completed",
        "usage": {**dict.fromkeys(names, 60), "total_tokens": odd, "prompt_tokens_details": odd},
    }
    async with ModelServer(lambda request: Fault.status(200, body=json.dumps(body))) as server:
        agent = Agent(model=make("m", base_url=server.base_url, api_key="any"), tools=[look])
        with pytest.raises(UsageLimitExceeded, match="total tokens"):
            await agent.arun("Go on", usage_limits=UsageLimits(total_tokens=300, requests=50))
        assert len(server.requests) == 3


def test_a_sum_grows_only() -> None:
    metrics = Metrics(input_tokens=5)
    metrics.count("m", Usage(input_tokens=-3, output_tokens=2, requests=-1))
    assert metrics.to_dict() == {
        "input_tokens": 5,
        "output_tokens": 2,
        "details": {"m": {"output_tokens": 2}},
    }
