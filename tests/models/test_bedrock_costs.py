"""What answers of Bedrock's cost, and where the citations of a block without text belong."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("botocore", reason="the extra bedrock is not installed")

from kern import Agent
from kern.budget import UsageBudget
from kern.messages import Citation, Message, TextPart
from kern.models.base import ModelRequest
from kern.models.bedrock import BedrockConverse
from kern.models.prices import cost_of
from kern.usage import Price, Usage, UsageLimits
from tests.models.bedrock_wire import FRAMES, KEYS, frame
from tests.models.replay import ReplayServer, Reply, Sink
from tests.models.test_bedrock_agents import NOVA, USAGE, delta, model, said, told

GUARDRAIL = {"guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1", "trace": "enabled"}}
UNITS = {
    "topicPolicyUnits": 1,
    "contentPolicyUnits": 2,
    "wordPolicyUnits": 7,
    "sensitiveInformationPolicyUnits": 1,
    "sensitiveInformationPolicyFreeUnits": 9,
    "contextualGroundingPolicyUnits": 0,
}
"""https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_GuardrailUsage.html; words are free."""
CHECKED = {"invocationMetrics": {"guardrailProcessingLatency": 212, "usage": UNITS}}
TRACE = {"guardrail": {"inputAssessment": {"g": CHECKED}, "outputAssessments": {"g": [CHECKED]}}}


def traced(trace: Any) -> Reply:
    body = {"output": {"message": {"role": "assistant", "content": [{"text": "ok"}]}}, "usage": USAGE}
    body |= {"stopReason": "end_turn"} | ({} if trace is None else {"trace": trace})
    return Reply([json.dumps(body).encode()], content_type="application/json")


@pytest.mark.parametrize(
    ("trace", "billed"),
    [
        (TRACE, {"guardrail_units": 8}),
        (None, {"guardrail_checks": 1}),
        ({"guardrail": {}}, None),
        ({"guardrail": {"inputAssessment": {"g": "x"}, "outputAssessments": [1]}}, None),
    ],
    ids=["told", "not told", "nothing checked", "damaged"],
)
async def test_a_guardrail_makes_the_cost_unknown_unless_it_checked_nothing(
    server: ReplayServer, trace: Any, billed: dict[str, int] | None
) -> None:
    pytest.importorskip("genai_prices", reason="the extra prices is not installed")
    server.replies = [traced(trace)]
    output = await Agent(model=model(server, NOVA, extra_body=GUARDRAIL)).arun("Hi")
    assert output.metrics.billed == billed
    assert (output.metrics.cost is None) == bool(billed)


async def test_a_streamed_answer_tells_of_its_guardrail_at_its_end(server: ReplayServer) -> None:
    end = frame("messageStop", stopReason="end_turn") + frame("metadata", usage=USAGE, trace=TRACE)
    server.replies = [
        Reply([frame("messageStart", role="assistant"), delta(0, text="ok"), end], content_type=FRAMES)
    ]
    agent = Agent(model=model(server, NOVA, extra_body=GUARDRAIL))
    async with agent.arun("Hi", stream=True) as events:
        async for _ in events:
            pass
    output = events.output
    assert output is not None
    assert output.metrics.billed == {"guardrail_units": 8}


async def test_who_knows_the_price_of_a_guardrail_has_the_cost(server: ReplayServer) -> None:
    server.replies = [traced(TRACE)]
    price = Price(input=0.0, output=0.0, others={"guardrail_units": 0.00015})
    output = await Agent(model=model(server, NOVA, extra_body=GUARDRAIL, price=price)).arun("Hi")
    assert output.metrics.cost == pytest.approx(8 * 0.00015)


async def test_a_budget_holds_what_was_set_aside_for_a_guarded_request(server: ReplayServer) -> None:
    server.replies = [traced(TRACE)]
    budget = UsageBudget(UsageLimits(cost=1.0), name="day")
    price = Price(input=1.0, output=1.0)
    guarded = model(server, NOVA, extra_body=GUARDRAIL, price=price, max_output_tokens=1000)
    agent = Agent(model=guarded, usage_limits=budget)
    await agent.arun("Hi")
    await agent.arun("Hi")  # the limit can still be kept
    assert budget.used.cost is None
    assert budget.used.counted_cost is not None
    assert 2 * 1000 / 1e6 <= budget.used.counted_cost < 0.01


@pytest.mark.parametrize("place", ["us-east-1", "eu-west-1"])
def test_a_model_by_its_full_name_has_the_price_of_its_id(place: str) -> None:
    pytest.importorskip("genai_prices", reason="the extra prices is not installed")
    usage = Usage(input_tokens=1000, output_tokens=1000, requests=1)
    id = "anthropic.claude-sonnet-4-5-20250929-v1:0"
    full = BedrockConverse(f"arn:aws:bedrock:{place}::foundation-model/{id}", **KEYS)
    assert cost_of(full, usage) == cost_of(BedrockConverse(id, **KEYS), usage) is not None
    own = BedrockConverse(f"arn:aws:bedrock:{place}:123:application-inference-profile/a1", **KEYS)
    assert cost_of(own, usage) is None


class CitingSink(Sink):
    def __init__(self) -> None:
        super().__init__()
        self.cited: list[Citation] = []

    def citation(self, citation: Citation) -> None:
        self.cited.append(citation)


def page(name: str) -> dict[str, Any]:
    return {"location": {"web": {"url": f"https://{name}.example", "domain": f"{name}.example"}}}


def stop(index: int) -> bytes:
    return frame("contentBlockStop", contentBlockIndex=index)


@pytest.mark.parametrize("streamed", [True, False])
async def test_citations_in_a_block_without_text_are_of_the_text_beside_it(
    server: ReplayServer, streamed: bool
) -> None:
    """Of the text before it; and if there is none, of the first one."""
    alone = {"citationsContent": {"content": [], "citations": [page("a")]}}
    after = {"citationsContent": {"content": [], "citations": [page("b"), page("c")]}}
    server.replies = [
        told(
            *(delta(0, citation=page("a")), stop(0), delta(1, text="First."), stop(1)),
            *(
                delta(2, text=" Second"),
                stop(2),
                delta(3, citation=page("b")),
                delta(3, citation=page("c")),
                stop(3),
            ),
        )
        if streamed
        else said(alone, {"text": "First."}, {"text": " Second"}, after)
    ]
    sink = CitingSink()
    answer = await model(server).respond(ModelRequest([Message("user", "?")], stream=streamed), sink)
    first, second = answer.message.parts
    assert isinstance(first, TextPart)
    assert isinstance(second, TextPart)
    cited = [
        [(citation.url, citation.start, citation.end) for citation in part.citations]
        for part in (first, second)
    ]
    assert cited == [
        [("https://a.example", 0, 6)],
        [("https://b.example", 0, 7), ("https://c.example", 0, 7)],
    ]
    made = [*first.citations, *second.citations]
    if streamed:
        assert sink.cited == made
        assert [citation.part for citation in sink.cited] == [0, 1, 1] == [citation.part for citation in made]
