"""What requests cost: by a model's price, by the list of the extra `prices`, or as the provider tells it."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import socket
import threading
from typing import Any

import pytest

from kern import Agent, Team
from kern.budget import UsageBudget
from kern.errors import UsageError, UsageLimitExceeded
from kern.models import prices
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.run.output import RunOutput
from kern.testing import Answer, Fault, FunctionModel, ModelServer, tool_call
from kern.usage import Metrics, Price, Usage, UsageLimits

PRICE = Price(input=1.0, output=10.0, cache_read=0.1, cache_write=2.0)
SPENT = Usage(input_tokens=1_000_000, output_tokens=100_000, total_tokens=1_100_000)
"""2 dollars, at PRICE."""


def model(played: ModelServer, id: str = "m", **settings: Any) -> OpenAIChat:
    return OpenAIChat(id, base_url=played.base_url, api_key="any", max_retries=0, **settings)


def test_a_price_is_in_dollars_per_million_and_counts_each_token_once() -> None:
    usage = Usage(input_tokens=1000, cached_tokens=600, cache_write_tokens=100, output_tokens=50)
    assert PRICE.of(usage) == pytest.approx((300 * 1 + 600 * 0.1 + 100 * 2 + 50 * 10) / 1e6)
    assert Price(input=1, output=10).of(usage) == pytest.approx((1000 * 1 + 50 * 10) / 1e6)


async def test_a_request_a_run_a_member_a_tree_and_a_session_know_their_cost() -> None:
    def play(request: Any) -> Any:
        if "delegate_task_to_member" in request.tool_names and not request.tool_results:
            call = tool_call("delegate_task_to_member", member_id="clerk", task="Go")
            return Answer(tool_calls=[call], usage=SPENT)
        return Answer("Done.", usage=SPENT)

    async with ModelServer(play) as server:
        clerk = Agent(name="Clerk", model=model(server, price=PRICE))
        team = Team([clerk], model=model(server, price=PRICE))
        events = [event async for event in team.arun("Go", session_id="s", stream=True, stream_events=True)]
        requests = [event.usage for event in events if event.event.endswith("ModelRequestCompleted")]
        assert [usage["cost"] for usage in requests] == [2.0, 2.0, 2.0]
        output = await team.arun("Go", session_id="s")
        assert output.metrics.cost == 6.0
        assert output.member_responses[0].metrics.cost == 2.0
        assert output.metrics.details["openai/m"].cost == 6.0
        again = RunOutput.from_dict(json.loads(json.dumps(output.member_responses[0].to_dict())))
        assert again.metrics.cost == 2.0
        assert (await team.aget_session_metrics("s")).cost == 12.0


async def test_a_model_of_unknown_price_costs_nobody_knows_what_and_not_nothing() -> None:
    async with ModelServer(lambda request: Answer("ok", usage=SPENT)) as server:
        output = await Agent(model=model(server)).arun("Go")
        assert output.metrics.cost is None
        assert "cost" not in output.metrics.to_dict()


def test_a_sum_of_which_a_part_is_not_known_is_not_known() -> None:
    metrics = Metrics()
    metrics.count("a", Usage(requests=1, cost=0.5))
    metrics.count("a", Usage(requests=1, cost=0.25))
    assert metrics.cost == 0.75
    metrics.include(Metrics())
    assert metrics.cost == 0.75
    metrics.count("b", Usage(requests=1))
    metrics.count("a", Usage(requests=1, cost=0.25))
    assert metrics.cost is None
    assert metrics.details["a"].cost == 1.0
    metrics.details["a"].add(Usage(requests=1, cost=math.nan))
    assert metrics.details["a"].cost is None


def test_what_a_limit_counts_for_unknown_costs_is_summed_taken_apart_and_stored() -> None:
    cut = Usage(requests=1, counted_cost=0.5)
    for order in ([Usage(requests=1, cost=1.0), cut], [cut, Usage(requests=1, cost=1.0)]):
        total = Metrics()
        for usage in order:
            total.include(Metrics(requests=1, cost=usage.cost, counted_cost=usage.counted_cost))
        assert (total.cost, total.counted_cost) == (None, 1.5)
        assert Metrics.from_dict(json.loads(json.dumps(total.to_dict()))) == total
        total.exclude(Metrics(requests=1, counted_cost=0.5))
        assert total.limited_cost == 1.0
        total.add(Usage(requests=1))
        assert total.limited_cost is None
        total.add(cut)
        assert total.limited_cost is None
    with pytest.raises(ValueError, match="counted_cost must be a number"):
        Usage.from_dict({"requests": 1, "counted_cost": -1})


@pytest.mark.parametrize("number", [math.nan, -1, "3", True])
def test_prices_and_limits_that_are_no_numbers_are_refused(number: Any) -> None:
    for name in ("input", "output", "cache_read", "cache_write", "request"):
        with pytest.raises(UsageError, match=f"Price: {name} must be a number"):
            Price(**{"input": 1, "output": 1, name: number})
    with pytest.raises(UsageError, match="Price: web_searches must be a number"):
        Price(input=1, output=1, others={"web_searches": number})
    for name in ("requests", "tool_calls", "input_tokens", "output_tokens", "total_tokens", "cost"):
        with pytest.raises(UsageError, match=f"UsageLimits: {name} must be None or a number"):
            UsageLimits(**{name: number})
    with pytest.raises(UsageError, match="not inf"):
        Price(input=math.inf, output=1)


@pytest.mark.parametrize("cost", [math.nan, -5.0, math.inf])
def test_a_cost_that_makes_no_sense_is_not_known_to_a_budget(cost: float) -> None:
    budget = UsageBudget(UsageLimits(cost=0.001))
    budget.count(Usage(requests=1, cost=cost))
    with pytest.raises(UsageLimitExceeded, match="cannot be enforced"):
        budget.reserve_request(0.0)


@pytest.mark.parametrize("cost", ["1", True, -1, math.nan, math.inf, [1]])
def test_a_stored_cost_that_is_none_is_refused(cost: Any) -> None:
    with pytest.raises(ValueError, match="cost must be a number of US dollars"):
        Usage.from_dict({"requests": 1, "cost": cost})
    assert Usage.from_dict({"requests": 1, "cost": 0}).cost == 0.0


@pytest.mark.parametrize(
    ("made", "answered", "usage", "cost"),
    [
        (OpenAIResponses("gpt-4o"), None, Usage(input_tokens=10**6, output_tokens=10**6), 12.5),
        (OpenAIResponses("gpt-4o"), "gpt-4o-2024-08-06", Usage(input_tokens=10**6), 2.5),
        (OpenAIResponses("gpt-4o"), "no-such", Usage(input_tokens=10**6, cached_tokens=10**6), 1.25),
        (OpenAIChat("gpt-4o", server="azure"), None, Usage(input_tokens=10**6), 2.5),
        (OpenAIChat("deepseek-chat", server="deepseek"), "gpt-4o", Usage(), None),
        (OpenAIResponses("nobody-knows-me"), None, Usage(input_tokens=10**6), None),
        (OpenAIChat("llama3.2", server="ollama"), None, Usage(input_tokens=10**6), None),
    ],
)
def test_the_list_knows_what_the_models_of_providers_cost(
    made: Any, answered: str | None, usage: Usage, cost: float | None
) -> None:
    pytest.importorskip("genai_prices")
    assert prices.cost_of(made, usage, answered) == pytest.approx(cost)


def test_the_list_is_reckoned_as_its_package_does() -> None:
    listed = pytest.importorskip("genai_prices")
    long = Usage(
        input_tokens=300_000, cached_tokens=1000, cache_write_tokens=10, output_tokens=5000, requests=1
    )
    short = Usage(input_tokens=3000, output_tokens=50, requests=1)
    known = 0
    for provider, list_id in prices.LISTED.items():
        for found in prices._snapshot().providers:
            for listed_model in found.models[::7] if found.id == list_id else ():
                priced = prices._listed(provider, listed_model.id)
                for usage in (long, short) if priced is not None else ():
                    if (cost := priced(usage)) is not None:  # else it has no price for what is generated
                        counts = listed.Usage(
                            input_tokens=usage.input_tokens,
                            cache_read_tokens=usage.cached_tokens,
                            cache_write_tokens=usage.cache_write_tokens,
                            output_tokens=usage.output_tokens,
                        )
                        theirs = listed.calc_price(counts, listed_model.id, provider_id=list_id).total_price
                        assert cost == pytest.approx(float(theirs)), (list_id, listed_model.id)
                        known += 1
    assert known > 100


def test_prices_need_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("genai_prices")

    def no_socket(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("prices are looked up offline")

    monkeypatch.setattr(socket.socket, "connect", no_socket)
    prices._snapshot.cache_clear()
    prices._listed.cache_clear()
    assert prices.is_to_load(OpenAIResponses("gpt-4o"))
    prices.load()
    assert prices.cost_of(OpenAIResponses("gpt-4o"), Usage(input_tokens=10**6)) == 2.5


async def test_what_a_server_tells_of_the_cost_goes_before_every_list() -> None:
    body = {
        "choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 5, "cost": 0.25},
    }
    async with ModelServer(lambda request: Fault.status(200, body=json.dumps(body))) as server:
        told = await Agent(model=model(server, "openai/gpt-4o", server="openrouter", price=PRICE)).arun("Go")
        assert told.metrics.cost == 0.25
        other = await Agent(model=model(server, price=PRICE)).arun("Go")
        assert other.metrics.cost == PRICE.of(Usage(input_tokens=5, output_tokens=5))


async def test_a_run_that_has_used_up_its_dollars_asks_no_more() -> None:
    def look() -> str:
        """Look."""
        return "nothing yet"

    async with ModelServer(lambda request: Answer(tool_calls=[tool_call("look")], usage=SPENT)) as server:
        agent = Agent(model=model(server, price=PRICE), tools=[look])
        with pytest.raises(UsageLimitExceeded, match=r"the limit of 5.0 US dollars is reached") as caught:
            await agent.arun("Go", usage_limits=UsageLimits(cost=5.0))
        assert len(server.requests) == 3
        assert caught.value.run_output.metrics.cost == 6.0


async def test_a_limit_on_the_cost_of_a_model_that_has_no_price_is_refused_before_it_is_asked() -> None:
    async with ModelServer(["ok"]) as server:
        with pytest.raises(UsageError, match=r"the price of openai/m is unknown; .*price=Price\("):
            await Agent(model=model(server)).arun("Go", usage_limits=UsageLimits(cost=5.0))
        assert server.requests == []


async def test_requests_under_way_are_set_aside_so_that_parallel_ones_keep_the_limit() -> None:
    go = asyncio.Event()

    async def play(request: Any) -> Any:
        await go.wait()
        return Answer("ok", usage=SPENT)

    budget = UsageBudget(UsageLimits(cost=3.0), name="ann")
    async with ModelServer(play) as server:
        agent = Agent(model=model(server, price=PRICE, max_output_tokens=200_000), usage_limits=budget)
        runs = [asyncio.ensure_future(agent.arun("Go", session_id=str(number))) for number in range(6)]
        done, _ = await asyncio.wait(runs, return_when=asyncio.FIRST_EXCEPTION)
        assert all("the budget 'ann' of 3.0 US dollars" in str(run.exception()) for run in done)
        while len(server.requests) < 2:
            await asyncio.sleep(0.01)
        go.set()
        ends = await asyncio.gather(*runs, return_exceptions=True)
        assert [type(end) for end in ends].count(UsageLimitExceeded) == 4
        assert budget.used.cost == 4.0
        assert budget.used.requests == 2


async def test_a_budget_is_shared_by_runs_beside_limits_of_their_own() -> None:
    day, ann = UsageBudget(UsageLimits(requests=3)), UsageBudget(UsageLimits(requests=2))
    async with ModelServer(lambda request: "ok") as server:
        agent = Agent(model=model(server))
        await agent.arun("Go", usage_limits=[UsageLimits(requests=1), day, ann])
        await agent.arun("Go", usage_limits=[day, ann])
        with pytest.raises(UsageLimitExceeded, match="limit of 2 requests"):
            await agent.arun("Go", usage_limits=[day, ann])
        await agent.arun("Go", usage_limits=day)  # what was refused is not counted in the other
        assert (day.used.requests, ann.used.requests) == (3, 2)


def test_a_budget_is_kept_by_threads_with_loops_of_their_own() -> None:
    budget = UsageBudget(UsageLimits(requests=40))
    agent = Agent(model=FunctionModel(lambda request: "ok"), usage_limits=budget)
    refused: list[str] = []

    def work() -> None:
        for _ in range(10):
            try:
                agent.run("Go")
            except UsageLimitExceeded as error:
                refused.append(error.what)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (budget.used.requests, refused) == (40, ["requests"] * 20)


async def test_a_request_that_fails_leaves_nothing_set_aside() -> None:
    budget = UsageBudget(UsageLimits(cost=3.0))
    async with ModelServer([Fault.status(400), Answer("ok", usage=SPENT)]) as server:
        agent = Agent(model=model(server, price=PRICE, max_output_tokens=400_000), usage_limits=budget)
        with pytest.raises(Exception, match="HTTP 400"):
            await agent.arun("Go")
        assert (await agent.arun("Go")).metrics.cost == 2.0


def test_a_budget_goes_on_where_another_process_left_it() -> None:
    before = Usage.from_dict({"requests": 2, "cost": 4.5})
    budget = UsageBudget(UsageLimits(cost=4.0, requests=5), used=before)
    with pytest.raises(UsageLimitExceeded, match="US dollars"):
        budget.reserve_request(0.0)
    assert copy.deepcopy(budget) is budget
    assert budget.used == before


@pytest.mark.parametrize("wrong", [5.0, {"cost": 5}, [5.0], "5"])
async def test_what_is_no_limit_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="usage_limits takes UsageLimits"):
        await Agent(model=FunctionModel(lambda request: "ok")).arun("Go", usage_limits=wrong)
    with pytest.raises(UsageError, match="takes UsageLimits"):
        UsageBudget(wrong)
