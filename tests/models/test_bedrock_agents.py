"""Agents with a model of Bedrock's: tools, streams, structured answers, other models before and after it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

pytest.importorskip("botocore", reason="the extra bedrock is not installed")

from kern import Agent
from kern.db.sqlite import SqliteDb
from kern.messages import Citation, Message, ProviderCall
from kern.models.base import ModelRequest, ResponseFormat
from kern.models.bedrock import BedrockConverse
from kern.models.openai import OpenAIChat
from kern.models.prices import cost_of
from kern.testing import Answer, Fault, ModelServer, ReceivedRequest, tool_call
from tests.models.bedrock_wire import FRAMES, KEYS, frame, judge
from tests.models.replay import ReplayServer, Reply, Sink

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "amazon.nova-pro-v1:0"
USAGE = {
    "inputTokens": 10,
    "outputTokens": 5,
    "totalTokens": 115,
    "cacheReadInputTokens": 70,
    "cacheWriteInputTokens": 30,
}


def said(*content: dict[str, Any], word: str = "end_turn") -> Reply:
    body = {"output": {"message": {"role": "assistant", "content": list(content)}}, "stopReason": word}
    return Reply([json.dumps({**body, "usage": USAGE}).encode()], content_type="application/json")


def told(*events: bytes, word: str = "end_turn") -> Reply:
    begin = frame("messageStart", role="assistant")
    end = frame("messageStop", stopReason=word) + frame("metadata", usage=USAGE)
    return Reply([begin, *events, end], content_type=FRAMES)


def delta(index: int, **piece: Any) -> bytes:
    return frame("contentBlockDelta", contentBlockIndex=index, delta=piece)


def use(id: str, place: str) -> dict[str, Any]:
    return {"toolUse": {"toolUseId": id, "name": "look", "input": {"place": place}}}


def model(server: ReplayServer, id: str = CLAUDE, **settings: Any) -> BedrockConverse:
    return BedrockConverse(id, base_url=server.url.removesuffix("/v1"), max_retries=0, **{**KEYS, **settings})


def look(place: str) -> str:
    """Look."""
    return json.dumps({"at": place}) if place == "home" else f"nothing at {place}"


THOUGHT = {"reasoningContent": {"reasoningText": {"text": "Secret thoughts.", "signature": "SIGNED"}}}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_calls_tools_in_parallel_and_answers(server: ReplayServer, stream: bool) -> None:
    calls = said(THOUGHT, {"text": "I look."}, use("t1", "home"), use("t2", "work"), word="tool_use")
    if stream:
        calls = told(
            delta(0, reasoningContent={"text": "Secret "}),
            delta(0, reasoningContent={"text": "thoughts."}),
            delta(0, reasoningContent={"signature": "SIGNED"}),
            delta(1, text="I look."),
            *(
                frame(
                    "contentBlockStart",
                    contentBlockIndex=at,
                    start={"toolUse": {"toolUseId": f"t{at - 1}", "name": "look"}},
                )
                + delta(at, toolUse={"input": '{"place":'})
                + delta(at, toolUse={"input": f'"{place}"}}'})
                for at, place in ((2, "home"), (3, "work"))
            ),
            word="tool_use",
        )
    server.replies = [calls, told(delta(0, text="Nothing.")) if stream else said({"text": "Nothing."})]
    agent = Agent(model=model(server, additional_fields={"thinking": {"type": "adaptive"}}), tools=[look])
    if stream:
        async with agent.arun("Look", stream=True) as events:
            text = "".join([event.content async for event in events])
        assert text.endswith("Nothing.")
    else:
        output = await agent.arun("Look")
        assert output.content.endswith("Nothing.")
        assert (output.metrics.input_tokens, output.metrics.output_tokens) == (220, 10)
        assert (output.metrics.cached_tokens, output.metrics.cache_write_tokens) == (140, 60)
    first, second = (asked.body for asked in server.asked)
    judge(first)
    judge(second)
    assert second["messages"][1]["content"] == [
        THOUGHT,
        {"text": "I look."},
        use("t1", "home"),
        use("t2", "work"),
    ]
    results = [block["toolResult"] for block in second["messages"][2]["content"]]
    assert [(result["toolUseId"], result["content"]) for result in results] == [
        ("t1", [{"json": {"at": "home"}}]),
        ("t2", [{"text": "nothing at work"}]),
    ]


class Person(BaseModel):
    """A person."""

    name: str
    age: int


ANN = {"name": "Ann", "age": 7}


async def test_a_structured_answer_is_had_by_schema_or_by_a_tool(server: ReplayServer) -> None:
    server.replies = [said({"text": json.dumps(ANN)})]
    output = await Agent(model=model(server), output_schema=Person).arun("Who?")
    assert output.content == Person(**ANN)
    asked = server.asked[-1].body
    judge(asked)
    schema = json.loads(asked["outputConfig"]["textFormat"]["structure"]["jsonSchema"]["schema"])
    assert sorted(schema["properties"]) == ["age", "name"]

    call = {"toolUse": {"toolUseId": "t1", "name": "final_answer", "input": ANN}}
    server.replies = [said(call, word="tool_use")]
    nova = Agent(model=model(server, NOVA), output_schema=Person)
    assert (await nova.arun("Who?")).content == Person(**ANN)
    asked = server.asked[-1].body
    judge(asked)
    assert [tool["toolSpec"]["name"] for tool in asked["toolConfig"]["tools"]] == ["final_answer"]


async def test_what_streams_is_told_as_it_comes(server: ReplayServer) -> None:
    class Parts(Sink):
        def tool_arguments(self, call_id: str, name: str, delta: str) -> None:
            self.pieces.append((f"{call_id} {name}", delta))

        def provider_call(self, call: ProviderCall) -> None:
            self.pieces.append((call.name, call.status))

        def citation(self, citation: Citation) -> None:
            self.pieces.append(("citation", citation.url or ""))

    server.replies = [
        told(
            frame(
                "contentBlockStart",
                contentBlockIndex=0,
                start={"toolUse": {"toolUseId": "s1", "name": "nova_grounding", "type": "server_tool_use"}},
            ),
            delta(0, toolUse={"input": '{"query":"x"}'}),
            frame("contentBlockStop", contentBlockIndex=0),
            frame(
                "contentBlockStart",
                contentBlockIndex=1,
                start={
                    "toolResult": {"toolUseId": "s1", "type": "nova_grounding_result", "status": "success"}
                },
            ),
            delta(1, toolResult=[{"text": "[HIDDEN]"}]),
            frame("contentBlockStop", contentBlockIndex=1),
            delta(2, text="It is so."),
            delta(2, citation={"location": {"web": {"url": "https://a.example", "domain": "a.example"}}}),
            frame("contentBlockStop", contentBlockIndex=2),
            frame(
                "contentBlockStart",
                contentBlockIndex=3,
                start={"toolUse": {"toolUseId": "t1", "name": "look"}},
            ),
            delta(3, toolUse={"input": '{"pl'}),
            delta(3, toolUse={"input": 'ace": "x"}'}),
            frame("contentBlockStop", contentBlockIndex=3),
            delta(4, reasoningContent={"redactedContent": "UkVE"}),
            delta(4, reasoningContent={"redactedContent": "QUNU"}),
            frame("contentBlockStart", contentBlockIndex=5, start={"image": {"format": "png"}}),
            delta(5, image={"source": {"bytes": "iVBORw0KGgo="}}),
            word="tool_use",
        )
    ]
    sink = Parts()
    request = ModelRequest([Message("user", "Hi")], stream=True)
    answer = await model(server, NOVA).respond(request, sink)
    assert sink.pieces == [
        ("nova_grounding", "running"),
        ("nova_grounding", "completed"),
        ("content", "It is so."),
        ("citation", "https://a.example"),
        ("t1 look", '{"pl'),
        ("t1 look", 'ace": "x"}'),
    ]
    call, text, asked, hidden, picture = answer.message.parts
    assert (call.name, call.arguments, call.result) == (
        "nova_grounding",
        '{"query":"x"}',
        [{"text": "[HIDDEN]"}],
    )
    assert [citation.url for citation in text.citations] == ["https://a.example"]
    assert (asked.id, asked.arguments) == ("t1", '{"place": "x"}')
    assert hidden.redacted == "UkVEQUNU"
    assert picture.content == b"\x89PNG\r\n\x1a\n"
    assert (answer.usage.input_tokens, answer.usage.cached_tokens) == (110, 70)


async def test_a_text_and_a_call_may_have_one_index(server: ReplayServer, sink: Sink) -> None:
    start = {"toolUse": {"toolUseId": "t1", "name": "look"}}
    server.replies = [
        told(
            delta(0, reasoningContent={"text": "Hm."}),
            delta(0, text="I "),
            frame("contentBlockStart", contentBlockIndex=0, start=start),
            delta(0, toolUse={"input": '{"place":'}),
            delta(0, text="look."),
            delta(0, toolUse={"input": '"x"}'}),
            frame("contentBlockStop", contentBlockIndex=0),
            word="tool_use",
        )
    ]
    request = ModelRequest([Message("user", "Hi")], stream=True)
    message = (await model(server).respond(request, sink)).message
    (call,) = message.tool_calls
    assert (message.reasoning_content, message.content, call.arguments) == ("Hm.", "I look.", '{"place":"x"}')


async def test_arguments_that_are_no_json_are_what_the_model_wrote(server: ReplayServer, sink: Sink) -> None:
    use_ = {"toolUse": {"toolUseId": "t1", "name": "look", "input": '{"place": '}}
    server.replies = [said(use_, word="tool_use")]
    message = (await model(server).respond(ModelRequest([Message("user", "Hi")]), sink)).message
    assert message.tool_calls[0].arguments == '{"place": '


async def test_a_router_tells_which_model_has_answered(server: ReplayServer, sink: Sink) -> None:
    reply = said({"text": "ok"})
    body = json.loads(reply.body[0])
    body["trace"] = {"promptRouter": {"invokedModelId": "arn:aws:bedrock:us-east-1::foundation-model/x.y"}}
    server.replies = [Reply([json.dumps(body).encode()], content_type="application/json")]
    answer = await model(server).respond(ModelRequest([Message("user", "Hi")]), sink)
    assert answer.model == "arn:aws:bedrock:us-east-1::foundation-model/x.y"


async def test_the_model_behind_an_arn_is_the_one_that_has_a_price(server: ReplayServer, sink: Sink) -> None:
    pytest.importorskip("genai_prices", reason="the extra prices is not installed")
    server.replies = [said({"text": "ok"})]
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"
    asked = model(server, arn, base_model="us.anthropic.claude-3-7-sonnet-20250219-v1:0")
    answer = await asked.respond(ModelRequest([Message("user", "Hi")]), sink)
    expected = (10 * 3 + 70 * 0.3 + 30 * 3.75 + 5 * 15) / 1_000_000
    assert cost_of(asked, answer.usage, answer.model) == pytest.approx(expected)
    assert cost_of(model(server, arn), answer.usage) is None


def other(played: ModelServer) -> OpenAIChat:
    return OpenAIChat("gpt-x", base_url=played.base_url, api_key="any", max_retries=0)


async def test_another_model_goes_on_where_bedrock_fails(server: ReplayServer) -> None:
    calls = said(THOUGHT, {"text": "I look."}, use("tooluse_1", "work"), word="tool_use")
    server.replies = [calls, Reply([b'{"message": "No."}'], 503, content_type="application/json")]
    async with ModelServer(lambda request: "Nothing there.") as played:
        agent = Agent(model=model(server), fallback_models=[other(played)], tools=[look])
        output = await agent.arun("Look")
        assert (output.content.endswith("Nothing there."), output.model) == (True, "gpt-x")
        heard = played.requests[-1]
        assert [message.content for message in heard.tool_results] == ["nothing at work"]
        for secret in ("Secret thoughts.", "SIGNED", "tooluse_1"):
            assert secret not in json.dumps(heard.body)


async def test_bedrock_goes_on_where_another_model_fails(server: ReplayServer) -> None:
    def play(request: ReceivedRequest) -> Any:
        if request.tool_results:
            return Fault.status(503)
        return Answer("I look.", tool_calls=[tool_call("look", place="work")], reasoning="Secret thoughts.")

    server.replies = [said({"text": "Nothing there."})]
    async with ModelServer(play) as played:
        settings = {"additional_fields": {"thinking": {"type": "enabled", "budget_tokens": 1024}}}
        agent = Agent(model=other(played), fallback_models=[model(server, **settings)], tools=[look])
        output = await agent.arun("Look")
        assert (output.content.endswith("Nothing there."), output.model) == (True, CLAUDE)
    (asked,) = server.asked
    judge(asked.body)
    text = json.dumps(asked.body)
    assert "Secret thoughts." not in text
    assert "thinking" not in text  # the turn has begun without
    assert "nothing at work" in text


async def test_a_conversation_is_kept_and_goes_on(server: ReplayServer, tmp_path: Any) -> None:
    calls = said(THOUGHT, use("t1", "home"), word="tool_use")
    server.replies = [calls, said({"text": "It is there."}), said({"text": "Yes."})]
    agent = Agent(
        model=model(server),
        tools=[look],
        db=SqliteDb(db_file=str(tmp_path / "kern.db")),
        add_history_to_context=True,
    )
    await agent.arun("Look", session_id="s")
    assert (await agent.arun("Sure?", session_id="s")).content == "Yes."
    last = server.asked[-1].body
    judge(last)
    assert [turn["role"] for turn in last["messages"]] == ["user", "assistant", "user", "assistant", "user"]
    assert last["messages"][1]["content"][0] == THOUGHT


REFUSED = "The model returned the following errors: "


async def test_schemas_that_the_service_cannot_enforce_are_asked_for_in_words(
    server: ReplayServer, sink: Sink
) -> None:
    no = json.dumps({"message": f"{REFUSED}The compiled grammar is too large"}).encode()
    server.replies = [Reply([no], 400, content_type="application/json"), said({"text": json.dumps(ANN)})]
    asked = model(server)
    form = ResponseFormat("person", {"type": "object", "properties": {"name": {"type": "string"}}})
    request = ModelRequest([Message("user", "Who?")], response_format=form)
    for _ in range(2):
        assert (await asked.respond(request, sink)).message.content == json.dumps(ANN)
    bodies = [reply.body for reply in server.asked]
    assert ["outputConfig" in body for body in bodies] == [True, False, False]
    assert "JSON schema" in bodies[1]["system"][-1]["text"]


async def test_reasoning_whose_signature_does_not_hold_is_left_out(server: ReplayServer, sink: Sink) -> None:
    no = json.dumps(
        {"message": f"{REFUSED}messages.1.content.0: Invalid signature in thinking block"}
    ).encode()
    server.replies = [said(THOUGHT, {"text": "Hm."}), Reply([no], 400, content_type="application/json")]
    asked = model(server)
    first = (await asked.respond(ModelRequest([Message("user", "Hi")]), sink)).message
    server.replies.append(said({"text": "ok"}))
    messages = [Message("user", "Hi"), first, Message("user", "And?")]
    assert (await asked.respond(ModelRequest(messages), sink)).message.content == "ok"
    assert ["SIGNED" in json.dumps(reply.body) for reply in server.asked] == [False, True, False]


async def test_what_has_a_price_of_its_own_is_counted(server: ReplayServer, sink: Sink) -> None:
    search = {"toolUseId": "s1", "name": "nova_grounding", "input": {}, "type": "server_tool_use"}
    found = {"toolUseId": "s1", "content": [{"text": "[HIDDEN]"}], "type": "nova_grounding_result"}
    content = [{"toolUse": search}, {"toolResult": found}, {"text": "ok"}]
    details = [{"ttl": "1h", "inputTokens": 20}, {"ttl": "5m", "inputTokens": 10}]
    body = {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": "end_turn",
        "usage": {**USAGE, "cacheDetails": details},
        "serviceTier": {"type": "priority"},
    }
    server.replies = [Reply([json.dumps(body).encode()], content_type="application/json")]
    usage = (await model(server, NOVA).respond(ModelRequest([Message("user", "Hi")]), sink)).usage
    assert usage.billed == {"cache_write_1h_tokens": 20, "web_searches": 1}
    assert usage.terms == {"service_tier": "priority"}


async def test_latency_optimized_inference_has_a_price_that_nobody_knows(server: ReplayServer) -> None:
    body = {"output": {"message": {"role": "assistant", "content": [{"text": "ok"}]}}, "usage": USAGE}
    fast = {**body, "stopReason": "end_turn", "performanceConfig": {"latency": "optimized"}}
    usual = {**fast, "performanceConfig": {"latency": "standard"}}
    server.replies = [
        Reply([json.dumps(answer).encode()], content_type="application/json") for answer in (fast, usual)
    ]
    agent = Agent(model=model(server, NOVA))
    assert (await agent.arun("Hi")).metrics.cost is None
    assert (await agent.arun("Hi")).metrics.cost is not None
