"""What of an answer has a price of its own, and what an answer costs that is thrown away."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from kern import Agent
from kern.budget import UsageBudget
from kern.errors import ModelError, ModelTimeoutError, UsageLimitExceeded
from kern.messages import File, Message
from kern.models import prices
from kern.models.anthropic import AnthropicMessages
from kern.models.base import Model, ModelRequest, ToolDefinition
from kern.models.google import Gemini
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.testing import Answer, Fault, ModelServer, record, replay
from kern.usage import Metrics, Price, Usage, UsageLimits

pytest.importorskip("genai_prices")


def claude(usage: Any, *blocks: dict[str, Any], text: str = "") -> dict[str, Any]:
    content = [*blocks, {"type": "text", "text": text}]
    head = {"id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
    return {**head, "content": content, "stop_reason": "end_turn", "usage": usage}


def gemini(
    usage: Any, model: str = "gemini-2.5-flash", *, text: str = "", **candidate: Any
) -> dict[str, Any]:
    said = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", **candidate}
    return {"candidates": [said], "modelVersion": model, "usageMetadata": usage}


def chat(usage: Any, model: str = "gpt-5.2", *, text: str = "", **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "c", "model": model, "choices": [choice], "usage": usage, **more}


def responses(usage: Any, *items: dict[str, Any], text: str = "", **more: Any) -> dict[str, Any]:
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    return {
        "id": "r",
        "object": "response",
        "status": "completed",
        "model": "gpt-5.2",
        "output": [*items, said],
        "usage": usage,
        **more,
    }


def kinds(**tokens: int) -> list[dict[str, Any]]:
    return [{"modality": kind.upper(), "tokenCount": number} for kind, number in tokens.items()]


def asked(kind: str, url: str, **settings: Any) -> Model:
    made: dict[str, Any] = {
        "claude": (AnthropicMessages, "claude-sonnet-4-5"),
        "gemini": (Gemini, "gemini-2.5-flash"),
        "gemini3": (Gemini, "gemini-3-pro-preview"),
        "chat": (OpenAIChat, "gpt-5.2"),
        "search": (OpenAIChat, "gpt-4o-search-preview"),
        "xai": (OpenAIChat, "grok-4"),
        "responses": (OpenAIResponses, "gpt-5.2"),
    }
    kind_of_model, model_id = made[kind]
    if kind == "xai":
        settings["server"] = "xai"
    model: Model = kind_of_model(model_id, base_url=url, api_key="any", max_retries=0, **settings)
    return model


M = 1_000_000
QUERIES: dict[str, Any] = {"groundingMetadata": {"webSearchQueries": ["a", "b", "c"]}}
SEARCHED = {
    "type": "web_search_call",
    "id": "ws",
    "status": "completed",
    "action": {"type": "search", "query": "a"},
}
OPENED = {
    "type": "web_search_call",
    "id": "wo",
    "status": "completed",
    "action": {"type": "open_page", "url": "u"},
}
LOOKED = {"type": "file_search_call", "id": "fs", "status": "completed", "queries": ["a"]}
RAN = {"type": "code_interpreter_call", "id": "ci", "status": "completed", "code": "1"}
CODE = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "code_execution", "input": {"code": "1"}}
RESULT = {"type": "code_execution_tool_result", "tool_use_id": "srvtoolu_1", "content": {"type": "x"}}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_2", "name": "web_search", "input": {"query": "1"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_2", "content": []}
ONE_HOUR = {
    "input_tokens": 0,
    "cache_creation_input_tokens": 100_000,
    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 100_000},
}


@pytest.mark.parametrize(
    ("kind", "body", "cost"),
    [
        # Anthropic
        ("claude", claude(ONE_HOUR), 0.6),
        ("claude", claude({**ONE_HOUR, "cache_creation": {"ephemeral_5m_input_tokens": 100_000}}), 0.375),
        ("claude", claude({"input_tokens": 1000, "server_tool_use": {"web_search_requests": 10}}), 0.103),
        ("claude", claude({"input_tokens": M // 10, "service_tier": "standard", "speed": None}), 0.3),
        ("claude", claude({"input_tokens": M // 10, "service_tier": "batch"}), 0.15),
        ("claude", claude({"input_tokens": M // 10, "service_tier": "priority"}), None),
        ("claude", claude({"input_tokens": M // 10, "inference_geo": "us"}), 0.33),
        ("claude", claude({"input_tokens": M // 10, "inference_geo": "not_available"}), 0.3),
        ("claude", claude({"input_tokens": 1000}, CODE, RESULT), None),
        ("claude", claude({"input_tokens": M // 10}, SEARCH, CODE, RESULT, FOUND), 0.3),
        # Gemini: text $0.30, sound $1, cached $0.03 and $0.10
        ("gemini", gemini({"promptTokenCount": M, "promptTokensDetails": kinds(text=M)}), 0.3),
        ("gemini", gemini({"promptTokenCount": M, "promptTokensDetails": kinds(audio=M)}), 1.0),
        ("gemini", gemini({"promptTokenCount": M, "promptTokensDetails": kinds(image=M)}), 0.3),
        (
            "gemini",
            gemini(
                {
                    "promptTokenCount": M,
                    "cachedContentTokenCount": M // 2,
                    "promptTokensDetails": kinds(audio=M),
                    "cacheTokensDetails": kinds(audio=M // 2),
                }
            ),
            0.55,
        ),
        ("gemini", gemini({"promptTokenCount": M}, **QUERIES), 0.335),
        ("gemini", gemini({"promptTokenCount": M}, groundingMetadata={"webSearchQueries": 5.5}), 0.3),
        ("gemini3", gemini({"promptTokenCount": 50_000}, "gemini-3-pro-preview", **QUERIES), 0.142),
        ("gemini3", gemini({"promptTokenCount": 100_000}, "gemini-3-pro-preview"), 0.2),
        ("gemini3", gemini({"promptTokenCount": 300_000}, "gemini-3-pro-preview"), 1.2),
        ("gemini", gemini({"promptTokenCount": M, "serviceTier": "standard"}), 0.3),
        ("gemini", gemini({"promptTokenCount": M, "trafficType": "ON_DEMAND"}), 0.3),
        ("gemini", gemini({"promptTokenCount": M, "trafficType": "PROVISIONED_THROUGHPUT"}), None),
        ("gemini", gemini({"candidatesTokenCount": M, "candidatesTokensDetails": kinds(audio=M)}), None),
        # OpenAI
        ("chat", chat({"prompt_tokens": M}, service_tier="default"), 1.75),
        ("chat", chat({"prompt_tokens": M}, service_tier="flex"), 0.875),
        ("chat", chat({"prompt_tokens": M}, service_tier="priority"), 3.5),
        ("chat", chat({"prompt_tokens": M}, service_tier="scale"), None),
        ("chat", chat({"prompt_tokens": M, "prompt_tokens_details": {"audio_tokens": 10}}), None),
        ("search", chat({"prompt_tokens": M}, "gpt-4o-search-preview"), None),
        ("responses", responses({"input_tokens": M}, service_tier="flex"), 0.875),
        ("responses", responses({"input_tokens": M}, SEARCHED, OPENED, SEARCHED | {"id": "2"}), 1.77),
        ("responses", responses({"input_tokens": M}, LOOKED), 1.7525),
        ("responses", responses({"input_tokens": M}, RAN), None),
        # What a server tells
        ("xai", chat({"prompt_tokens": M, "cost_in_usd_ticks": 1_330_500}, "grok-4"), 0.00013305),
        ("xai", chat({"prompt_tokens": M, "num_sources_used": 3}, "grok-4"), None),
    ],
)
async def test_what_has_a_price_of_its_own_is_paid_for(kind: str, body: Any, cost: float | None) -> None:
    async with ModelServer([Fault.status(200, body=json.dumps(body))]) as server:
        output = await Agent(model=asked(kind, server.base_url)).arun("Hi")
    assert output.metrics.cost == (None if cost is None else pytest.approx(cost))


def test_every_kind_of_tokens_costs_what_the_price_given_says_or_is_unknown() -> None:
    usage = Usage(
        input_tokens=M,
        cache_write_tokens=M // 2,
        requests=1,
        billed={"cache_write_1h_tokens": M // 2, "web_searches": 3},
    )
    price = Price(input=3, output=15, cache_write=3.75)
    assert price.of(usage) is None
    known = Price(
        input=3, output=15, cache_write=3.75, others={"cache_write_1h_tokens": 6, "web_searches": 0.01}
    )
    assert known.of(usage) == pytest.approx(1.5 + 3.0 + 0.03)


def test_what_is_billed_is_summed_taken_apart_and_stored() -> None:
    metrics = Metrics()
    for _ in range(2):
        metrics.count("m", Usage(requests=1, cost=0.1, billed={"web_searches": 2}, terms={"speed": "fast"}))
    assert (metrics.billed, metrics.terms) == ({"web_searches": 4}, None)
    again = Metrics.from_dict(json.loads(json.dumps(metrics.to_dict())))
    assert again.billed == again.details["m"].billed == {"web_searches": 4}
    metrics.exclude(Metrics(requests=1, cost=0.1, billed={"web_searches": 4}))
    assert metrics.billed is None
    one = Usage.from_dict({"requests": 1, "terms": {"speed": "fast"}})
    assert one.to_dict() == {"requests": 1, "terms": {"speed": "fast"}}


@pytest.mark.parametrize(
    "data", [{"billed": {"a": -1}}, {"billed": {"a": "1"}}, {"billed": [1]}, {"terms": {"a": 1}}]
)
def test_stored_counts_that_are_none_are_refused(data: Any) -> None:
    with pytest.raises(ValueError, match="usage: "):
        Usage.from_dict({"requests": 1, **data})


MALFORMED = json.dumps(
    {
        "candidates": [{"content": {}, "finishReason": "MALFORMED_FUNCTION_CALL"}],
        "usageMetadata": {"promptTokenCount": 100_000},
    }
)
GOOD = json.dumps(gemini({"promptTokenCount": 100_000}))


async def test_answers_that_are_thrown_away_are_counted_and_paid_for() -> None:
    replies = [
        Fault.status(200, body=MALFORMED),
        Fault.status(200, body=MALFORMED),
        Fault.status(200, body=GOOD),
    ]
    budget = UsageBudget(UsageLimits(cost=5.0))
    async with ModelServer(replies) as server:
        model = Gemini("gemini-2.5-flash", base_url=server.base_url, api_key="any", max_retries=2)
        output = await Agent(model=model, usage_limits=budget).arun("Hi")
    assert (output.metrics.requests, output.metrics.input_tokens) == (3, 300_000)
    assert output.metrics.cost == pytest.approx(0.09)
    assert budget.used.cost == pytest.approx(0.09)


@pytest.mark.parametrize(
    ("limits", "sent"),
    [(UsageLimits(cost=0.05), 2), (UsageLimits(requests=2), 2), (UsageLimits(total_tokens=250_000), 3)],
    ids=["cost", "requests", "tokens"],
)
async def test_a_limit_holds_for_the_retries_of_answers_that_were_billed(
    limits: UsageLimits, sent: int
) -> None:
    budget = UsageBudget(limits)
    async with ModelServer([Fault.status(200, body=MALFORMED)] * 6) as server:
        model = Gemini("gemini-2.5-flash", base_url=server.base_url, api_key="any", max_retries=5)
        with pytest.raises(UsageLimitExceeded):
            await Agent(model=model, usage_limits=budget).arun("Hi")
        assert len(server.requests) == sent
    assert budget.used.requests == sent
    assert budget._set_aside == pytest.approx(0.0)


async def test_a_request_that_fails_in_the_end_has_paid_for_its_answers() -> None:
    budget = UsageBudget(UsageLimits(cost=5.0))
    async with ModelServer([Fault.status(200, body=MALFORMED)] * 3) as server:
        model = Gemini("gemini-2.5-flash", base_url=server.base_url, api_key="any", max_retries=2)
        with pytest.raises(ModelError):
            await Agent(model=model, usage_limits=budget).arun("Hi")
    assert (budget.used.requests, budget.used.input_tokens) == (3, 300_000)
    assert budget.used.cost == pytest.approx(0.09)


async def test_requests_without_an_answer_are_in_what_a_budget_has_used() -> None:
    budget = UsageBudget(UsageLimits(requests=3, cost=1.0))
    async with ModelServer(lambda request: Fault.status(503)) as server:
        agent = Agent(model=asked("responses", server.base_url), usage_limits=budget)
        for _ in range(3):
            with pytest.raises(ModelError):
                await agent.arun("Hi")
        assert (budget.used.requests, budget.used.cost) == (3, 0.0)
        stored = UsageBudget(budget.limits, used=budget.used)
        with pytest.raises(UsageLimitExceeded, match="limit of 3 requests"):
            await agent.arun("Hi", usage_limits=stored)


async def test_a_replay_counts_the_answers_that_were_thrown_away(tmp_path: Path) -> None:
    replies = [Fault.status(200, body=MALFORMED), Fault.status(200, body=GOOD)]
    async with ModelServer(replies) as server:
        model = Gemini("gemini-2.5-flash", base_url=server.base_url, api_key="any", max_retries=1)
        agent = Agent(model=model)
        first = await record(agent, "Hi", tmp_path / "run.json")
        again = await replay(agent, tmp_path / "run.json")
        assert len(server.requests) == 2
    assert again.metrics.input_tokens == first.metrics.input_tokens == 200_000
    assert again.metrics.cost == first.metrics.cost == pytest.approx(0.06)


async def test_the_answer_of_a_model_that_is_given_up_counts_beside_that_of_its_fallback() -> None:
    async with ModelServer([Fault.status(200, body=MALFORMED), Fault.status(200, body=GOOD)]) as server:
        first = Gemini("gemini-2.5-flash", base_url=server.base_url, api_key="any", max_retries=0)
        second = Gemini("gemini-2.5-pro", base_url=server.base_url, api_key="any", max_retries=0)
        output = await Agent(model=first, fallback_models=[second]).arun("Hi")
    assert {name: usage.input_tokens for name, usage in output.metrics.details.items()} == {
        "google/gemini-2.5-flash": 100_000,
        "google/gemini-2.5-pro": 100_000,
    }


SSE = {"content-type": "text/event-stream"}
BEGUN = {
    "claude": "event: message_start\ndata: "
    + json.dumps({"type": "message_start", "message": claude({"input_tokens": 100_000}) | {"content": []}})
    + '\n\nevent: content_block_start\ndata: {"type":"content_block_start","index":0,'
    '"content_block":{"type":"text","text":"Well"}}\n\n',
    "chat": 'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Well"},"finish_reason":null}]}\n\n',
    "responses": 'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
    '"output_index":0,"delta":"Well"}\n\n',
    "gemini": 'data: {"candidates":[{"content":{"parts":[{"text":"Well"}]}}],"usageMetadata":'
    '{"promptTokenCount":100000,"candidatesTokenCount":1}}\n\n',
}


@pytest.mark.parametrize("kind", BEGUN)
async def test_an_answer_that_breaks_off_before_it_tells_all_costs_nobody_knows_what(kind: str) -> None:
    broken = Fault.status(200, body=BEGUN[kind], headers=SSE)
    budget = UsageBudget(UsageLimits(requests=9))
    async with ModelServer([broken]) as server:
        agent = Agent(model=asked(kind, server.base_url), usage_limits=budget)
        with pytest.raises(ModelError):
            async for _ in agent.arun("Hi", stream=True):
                pass
    assert budget.used.cost is None
    assert budget.used.billed == {"answers_cut_off": 1}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_is_cancelled_after_it_was_sent_counts_as_what_was_set_aside(
    stream: bool,
) -> None:
    arrived = asyncio.Event()

    async def play(request: Any) -> Any:
        arrived.set()
        return Answer("late", fault=Fault.stall(after=0))

    async def ask(agent: Agent[Any]) -> None:
        if not stream:
            await agent.arun("Hi")
            return
        async with agent.arun("Hi", stream=True) as events:
            async for _ in events:
                pass

    budget = UsageBudget(UsageLimits(cost=1.5))
    async with ModelServer(play) as server:
        price = Price(input=1, output=10)
        asked_model = asked("chat", server.base_url, price=price, max_output_tokens=100_000)
        agent = Agent(model=asked_model, usage_limits=budget)
        for _ in range(2):
            arrived.clear()
            run = asyncio.ensure_future(ask(agent))
            await arrived.wait()
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
        assert (budget.used.requests, budget.used.billed) == (2, {"answers_cut_off": 2})
        with pytest.raises(UsageLimitExceeded, match="is reached"):
            await agent.arun("Hi")


@pytest.mark.parametrize(("limit", "sent"), [({"timeout": 0.2}, 2), ({"total_timeout": 0.5}, 1)])
async def test_a_request_whose_answer_does_not_come_in_time_counts_as_what_was_set_aside(
    limit: dict[str, Any], sent: int
) -> None:
    budget = UsageBudget(UsageLimits(cost=3.0))
    async with ModelServer(lambda request: Answer("late", fault=Fault.stall(after=0))) as server:
        price = Price(input=1, output=10)
        asked_model = OpenAIChat(
            "m",
            base_url=server.base_url,
            api_key="any",
            price=price,
            max_output_tokens=100_000,
            max_retries=1,
            **limit,
        )
        with pytest.raises(ModelTimeoutError):
            await Agent(model=asked_model, usage_limits=budget).arun("Hi")
        assert len(server.requests) == sent
    assert (budget.used.requests, budget.used.cost) == (sent, None)
    assert budget.used.counted_cost == pytest.approx(1.0 * sent, abs=0.01)


async def test_an_answer_that_is_cancelled_is_paid_for_nobody_knows_how_much() -> None:
    budget = UsageBudget(UsageLimits(requests=9))
    async with ModelServer([Answer("one two three", fault=Fault.stall(after=1))]) as server:
        agent = Agent(model=asked("chat", server.base_url), usage_limits=budget)
        async with agent.arun("Hi", stream=True) as stream:
            async for _ in stream:
                break
    assert budget.used.billed == {"answers_cut_off": 1}
    assert budget.used.cost is None


async def test_what_was_set_aside_for_a_broken_answer_stays_spent() -> None:
    broken = Fault.status(200, body=BEGUN["chat"], headers=SSE)
    budget = UsageBudget(UsageLimits(cost=1.5))
    async with ModelServer(
        [broken, Fault.status(200, body=json.dumps(chat({"prompt_tokens": 5})))]
    ) as server:
        price = Price(input=1, output=10)
        agent = Agent(
            model=asked("chat", server.base_url, price=price, max_output_tokens=200_000), usage_limits=budget
        )
        with pytest.raises(ModelError):
            async for _ in agent.arun("Hi", stream=True):
                pass
        with pytest.raises(UsageLimitExceeded, match="is reached"):  # two dollars are spent
            await agent.arun("Hi")
        assert len(server.requests) == 1


UNTOLD: list[Any] = [None, {}, "many", [], {"input_tokens": "7"}]
MADE = {"claude": claude, "gemini": gemini, "chat": chat, "responses": responses}
SENT = {"claude": "input_tokens", "gemini": "promptTokenCount", "chat": "prompt_tokens"}


@pytest.mark.parametrize("usage", UNTOLD)
@pytest.mark.parametrize("kind", MADE)
async def test_an_answer_that_tells_no_usage_counts_as_what_was_set_aside(kind: str, usage: Any) -> None:
    body = json.dumps(MADE[kind](usage, text="ok"))
    budget = UsageBudget(UsageLimits(cost=4.0))
    price = Price(input=1, output=10)
    async with ModelServer(lambda request: Fault.status(200, body=body)) as server:
        agent = Agent(
            model=asked(kind, server.base_url, price=price, max_output_tokens=200_000), usage_limits=budget
        )
        output = await agent.arun("Hi")
        assert output.metrics.cost is None
        assert output.metrics.counted_cost == pytest.approx(2.0, abs=0.01)
        await agent.arun("Hi")
        with pytest.raises(UsageLimitExceeded, match=r"the limit of 4\.0 US dollars is reached"):
            await agent.arun("Hi")
        assert len(server.requests) == 2


@pytest.mark.parametrize("kind", MADE)
async def test_an_answer_of_which_only_the_input_is_told_costs_nobody_knows_what(kind: str) -> None:
    body = json.dumps(MADE[kind]({SENT.get(kind, "input_tokens"): 5}, text="ok"))
    async with ModelServer([Fault.status(200, body=body)]) as server:
        output = await Agent(model=asked(kind, server.base_url)).arun("Hi")
    assert (output.metrics.input_tokens, output.metrics.cost) == (5, None)


async def test_a_stream_without_usage_is_free_only_where_the_price_is_zero() -> None:
    body = BEGUN["chat"] + 'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    costs: list[float | None] = []
    async with ModelServer(lambda request: Fault.status(200, body=body, headers=SSE)) as server:
        for price in (Price(input=0, output=0), Price(input=0, output=1)):
            stream = Agent(model=asked("chat", server.base_url, price=price)).arun("Hi", stream=True)
            async with stream:
                async for _ in stream:
                    pass
            costs.append(stream.output.metrics.cost)
    assert costs == [0.0, None]


async def test_a_budget_goes_on_in_another_process_after_an_answer_broke_off() -> None:
    broken = Fault.status(200, body=BEGUN["chat"], headers=SSE)
    paid = Fault.status(200, body=json.dumps(chat({"prompt_tokens": 3 * M})))
    async with ModelServer([paid, broken, paid, paid, paid]) as server:
        asked_model = asked(
            "chat", server.base_url, price=Price(input=1, output=10), max_output_tokens=100_000
        )
        budget = UsageBudget(UsageLimits(cost=10.0))
        agent = Agent(model=asked_model)
        await agent.arun("Hi", usage_limits=budget)
        with pytest.raises(ModelError):
            async for _ in agent.arun("Hi", stream=True, usage_limits=budget):
                pass
        assert (budget.used.cost, budget.used.counted_cost) == (None, pytest.approx(4.0, abs=0.01))
        stored = json.loads(json.dumps(budget.used.to_dict()))
        again = UsageBudget(budget.limits, used=Usage.from_dict(stored))
        await agent.arun("Hi", usage_limits=again)
        await agent.arun("Hi", usage_limits=again)
        with pytest.raises(UsageLimitExceeded, match=r"the limit of 10\.0 US dollars is reached"):
            await agent.arun("Hi", usage_limits=again)
        assert again.used.counted_cost == pytest.approx(10.0, abs=0.01)


async def test_a_recorded_answer_that_was_thrown_away_counts_as_what_was_set_aside(tmp_path: Path) -> None:
    untold = json.dumps({"candidates": [{"content": {"parts": [{"text": "x"}]}}]})
    replies = [Fault.status(200, body=untold), Fault.status(200, body=GOOD)]
    async with ModelServer(replies) as server:
        model = Gemini("gemini-2.5-flash", base_url=server.base_url, api_key="any", max_retries=1)
        agent = Agent(model=model, usage_limits=UsageLimits(cost=5.0))
        first = await record(agent, "Hi", tmp_path / "run.json")
        again = await replay(agent, tmp_path / "run.json")
    assert first.metrics.billed == again.metrics.billed == {"answers_cut_off": 1}
    assert first.metrics.counted_cost == again.metrics.counted_cost == pytest.approx(0.03, abs=0.001)


async def test_no_limit_on_the_cost_is_kept_once_a_cost_is_not_known() -> None:
    body = json.dumps(responses({"input_tokens": 5}, RAN))
    async with ModelServer([Fault.status(200, body=body)] * 2) as server:
        budget = UsageBudget(UsageLimits(cost=5.0), name="ann")
        agent = Agent(model=asked("responses", server.base_url), usage_limits=budget)
        await agent.arun("Hi")
        with pytest.raises(UsageLimitExceeded, match=r"'ann' of 5\.0 US dollars cannot be enforced any more"):
            await agent.arun("Hi")
        assert len(server.requests) == 1
        stored = UsageBudget(UsageLimits(cost=5.0), used=budget.used)
        with pytest.raises(UsageLimitExceeded, match="cannot be enforced"):
            await agent.arun("Hi", usage_limits=stored)


def test_definitions_of_tools_and_documents_elsewhere_are_set_aside() -> None:
    model = OpenAIChat("m", price=Price(input=1_000_000, output=0))  # a dollar a token
    bare = prices.expected_cost(model, ModelRequest([Message("user", "Hi")]))
    tool = ToolDefinition("look", "x" * 400, {"type": "object", "properties": {"y": {"type": "string"}}})
    assert prices.expected_cost(model, ModelRequest([Message("user", "Hi")], tools=[tool])) - bare > 100
    elsewhere = Message("user", "Hi", files=[File(url="https://example.com/a.pdf")])
    assert prices.expected_cost(model, ModelRequest([elsewhere])) - bare == 20_000
