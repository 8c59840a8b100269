"""`ModelServer` plays Bedrock: botocore's own client reads it, and what the service refuses is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

import pytest

pytest.importorskip("botocore", reason="the extra bedrock is not installed")

from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError
from botocore.session import Session

from kern import Agent
from kern.errors import ModelError, ModelRateLimitError
from kern.messages import File, Image, Message, Origin, ProviderCall, ReasoningPart, TextPart, ToolCall
from kern.models import Model, _transport
from kern.models.base import ModelRequest, ToolDefinition
from kern.models.bedrock import BedrockConverse
from kern.testing import Answer, Fault, ModelServer, Reply, tool_call
from kern.testing.model import Play, ProviderConformance
from kern.usage import Usage
from tests.models.replay import Sink

ID = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
USER = {"role": "user", "content": [{"text": "Hi"}]}
TOOLS = {"tools": [{"toolSpec": {"name": "look", "inputSchema": {"json": {"type": "object"}}}}]}
CALL = {"toolUse": {"toolUseId": "t1", "name": "look", "input": {}}}
RESULT = {"toolResult": {"toolUseId": "t1", "content": [{"text": "ok"}]}}


@contextmanager
def client_of(server: ModelServer, key: str = "AKIDEXAMPLE") -> Iterator[Any]:
    config = Config(retries={"max_attempts": 1, "mode": "standard"})
    client = Session().create_client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=server.base_url,
        aws_access_key_id=key,
        aws_secret_access_key="secret",
        config=config,
    )
    yield client
    client.close()


ANSWER = Answer(
    "Let me see.",
    reasoning="Hm, well.",
    tool_calls=[tool_call("look", place="home"), tool_call("look", place="work")],
    usage=Usage(input_tokens=110, output_tokens=5, total_tokens=115, cached_tokens=70, cache_write_tokens=30),
)
USAGE = {
    "inputTokens": 10,
    "outputTokens": 5,
    "totalTokens": 115,
    "cacheReadInputTokens": 70,
    "cacheWriteInputTokens": 30,
}


def test_botocores_client_reads_a_whole_answer() -> None:
    with ModelServer([ANSWER]) as server, client_of(server) as client:
        told = client.converse(modelId=ID, messages=[USER], toolConfig=TOOLS)
    reasoning, text, *calls = told["output"]["message"]["content"]
    assert reasoning["reasoningContent"]["reasoningText"]["text"] == "Hm, well."
    assert reasoning["reasoningContent"]["reasoningText"]["signature"]
    assert text == {"text": "Let me see."}
    assert [call["toolUse"]["input"] for call in calls] == [{"place": "home"}, {"place": "work"}]
    assert (told["stopReason"], told["usage"]) == ("tool_use", USAGE)
    (asked,) = server.requests
    assert (asked.protocol, asked.model, asked.stream, asked.user_text) == ("bedrock", ID, False, "Hi")
    assert [tool.name for tool in asked.tools] == ["look"]


@pytest.mark.parametrize("interleave", [False, True])
def test_botocores_client_reads_a_stream(interleave: bool) -> None:
    answer = Answer(
        ANSWER.text,
        reasoning=ANSWER.reasoning,
        tool_calls=ANSWER.tool_calls,
        usage=ANSWER.usage,
        interleave=interleave,
    )
    with ModelServer([answer]) as server, client_of(server) as client:
        events = list(client.converse_stream(modelId=ID, messages=[USER], toolConfig=TOOLS)["stream"])
    said: dict[int, str] = {}
    for event in events:
        if (delta := event.get("contentBlockDelta")) is not None:
            piece = delta["delta"]
            thought = piece.get("reasoningContent", {}).get("text", "")
            text = piece.get("text") or piece.get("toolUse", {}).get("input") or thought
            said[delta["contentBlockIndex"]] = said.get(delta["contentBlockIndex"], "") + text
    assert said[0] == "Hm, well."
    assert said[1] == "Let me see."
    assert [json.loads(said[at]) for at in (2, 3)] == [{"place": "home"}, {"place": "work"}]
    assert events[0] == {"messageStart": {"role": "assistant"}}
    assert events[-2] == {"messageStop": {"stopReason": "tool_use"}}
    assert events[-1]["metadata"]["usage"] == USAGE


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "ValidationException"),
        (403, "AccessDeniedException"),
        (404, "ResourceNotFoundException"),
        (429, "ThrottlingException"),
        (503, "ServiceUnavailableException"),
    ],
)
def test_botocores_client_knows_the_errors(status: int, name: str) -> None:
    with ModelServer(lambda request: Fault.status(status)) as server, client_of(server) as client:
        with pytest.raises(ClientError) as caught:
            client.converse(modelId=ID, messages=[USER])
        assert caught.value.response["Error"]["Code"] == name
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


def test_botocores_client_knows_an_exception_in_the_stream() -> None:
    fault = Fault.failed(1, message="It broke.")
    with ModelServer([Answer("One two three", fault=fault)]) as server, client_of(server) as client:
        stream = client.converse_stream(modelId=ID, messages=[USER])["stream"]
        with pytest.raises(EventStreamError, match="It broke") as caught:
            list(stream)
        stream.close()
    assert caught.value.response["Error"]["Code"] == "serviceUnavailableException"


def test_a_key_is_that_of_the_signature_or_the_bearers() -> None:
    with ModelServer(lambda request: "ok", api_key="AKIDRIGHT") as server:
        with client_of(server, "AKIDRIGHT") as client:
            assert client.converse(modelId=ID, messages=[USER])["stopReason"] == "end_turn"
        with client_of(server, "AKIDWRONG") as client, pytest.raises(ClientError, match="security token"):
            client.converse(modelId=ID, messages=[USER])
        agent = Agent(model=BedrockConverse(ID, base_url=server.base_url, api_key="AKIDRIGHT"))
        assert agent.run("Hi").content == "ok"


REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"messages": []}, "must start with a user message"),
    "an answer first": ({"messages": [{**USER, "role": "assistant"}]}, "must start with a user message"),
    "two of one role": ({"messages": [USER, USER]}, "must alternate"),
    "an empty turn": ({"messages": [{"role": "user", "content": []}]}, "is empty"),
    "a blank text": ({"messages": [{"role": "user", "content": [{"text": " "}]}]}, "is blank"),
    "a call without a result": (
        {"messages": [USER, {"role": "assistant", "content": [CALL]}, USER], "toolConfig": TOOLS},
        "Expected toolResult blocks at messages.2.content for the following Ids: t1",
    ),
    "a result without a call": (
        {"messages": [{"role": "user", "content": [RESULT]}], "toolConfig": TOOLS},
        "exceeds the number of toolUse blocks",
    ),
    "calls without tools": (
        {
            "messages": [
                USER,
                {"role": "assistant", "content": [CALL]},
                {"role": "user", "content": [RESULT]},
            ]
        },
        "toolConfig field must be defined",
    ),
    "an id twice": (
        {
            "messages": [
                *(USER, {"role": "assistant", "content": [CALL]}, {"role": "user", "content": [RESULT]}),
                *({"role": "assistant", "content": [CALL]}, {"role": "user", "content": [RESULT]}),
            ],
            "toolConfig": TOOLS,
        },
        "must be unique",
    ),
    "a name with a space": (
        {
            "messages": [
                USER,
                {"role": "assistant", "content": [{"toolUse": {**CALL["toolUse"], "name": "look at"}}]},
                {"role": "user", "content": [RESULT]},
            ],
            "toolConfig": TOOLS,
        },
        "regular expression pattern",
    ),
    "reasoning at the end": (
        {
            "messages": [
                USER,
                {"role": "assistant", "content": [{"reasoningContent": {"reasoningText": {"text": "Hm."}}}]},
                USER,
            ]
        },
        "final block in an assistant message",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_the_service_refuses_is_refused(name: str) -> None:
    body, message = REFUSALS[name]
    with ModelServer(lambda request: "ok") as server, client_of(server) as client:
        with pytest.raises(ClientError) as caught:
            client.converse(modelId=ID, **body)
        assert message in str(caught.value)
        assert caught.value.response["Error"]["Code"] == "ValidationException"


async def test_what_kern_sends_is_heard_as_it_was_said() -> None:
    async with ModelServer(lambda request: "ok") as server:
        model = BedrockConverse(ID, base_url=server.base_url, api_key="any")
        parts: list[Any] = [
            ReasoningPart("Hm.", signature="c2ln"),
            TextPart("I look."),
            ToolCall("t1", "look", '{"a":1}'),
        ]
        for part in parts:
            part.origin = Origin("bedrock", ID)
        messages = [
            Message("system", "Be brief."),
            Message(
                "user", "See", images=[Image(content=b"\x89PNG\r\n\x1a\n")], files=[File(content=b"%PDF-")]
            ),
            Message("assistant", parts=parts),
            Message("tool", '{"b": 2}', tool_call_id="t1", tool_call_error=True),
        ]
        tools = [ToolDefinition("look", "Look.", {"type": "object"})]
        await model.respond(ModelRequest(messages, tools=tools), Sink())
        (heard,) = server.requests
    assert heard.system_text == "Be brief."
    assert [message.role for message in heard.messages] == ["system", "user", "assistant", "tool"]
    _, user, answer, result = heard.messages
    assert (user.content, user.images[0].mime_type, user.files[0].mime_type) == (
        "See",
        "image/png",
        "application/pdf",
    )
    assert (answer.reasoning_content, answer.content, answer.tool_calls[0].name) == ("Hm.", "I look.", "look")
    assert (result.content, result.tool_name, result.tool_call_error) == ('{"b":2}', "look", True)


@pytest.mark.parametrize(
    "fault",
    [
        Fault.cut(after=1),
        Fault.cut(after=1, clean=True),
        Fault.malformed(after=1),
        Fault.disconnect(),
        Fault.failed(1, message="It broke."),
    ],
)
async def test_faults_strike_as_elsewhere(fault: Fault) -> None:
    async with ModelServer(lambda request: Answer("One two three four", fault=fault)) as server:
        model = BedrockConverse(ID, base_url=server.base_url, api_key="any", max_retries=0)
        with pytest.raises(ModelError):
            await model.respond(ModelRequest([Message("user", "Hi")], stream=True), Sink())


async def test_a_limit_is_tried_again() -> None:
    async with ModelServer([Fault.status(429, retry_after=0), "ok"]) as server:
        model = BedrockConverse(ID, base_url=server.base_url, api_key="any")
        sink = Sink()
        answer = await model.respond(ModelRequest([Message("user", "Hi")]), sink)
    assert answer.message.content == "ok"
    assert isinstance(sink.retries[0][0], ModelRateLimitError)


class TestBedrockConverse(ProviderConformance):
    """The conformance suite of the model port."""

    @pytest.fixture
    async def play(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Play]:
        monkeypatch.setattr(_transport, "FIRST_DELAY", 0.0)
        async with AsyncExitStack() as stack:

            async def play(*answers: Reply) -> Model:
                server = await stack.enter_async_context(ModelServer(answers))
                return BedrockConverse(ID, base_url=server.base_url, api_key=self.api_key)

            yield play


@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_that_bedrock_carries_out_is_played_and_goes_back(stream: bool) -> None:
    search = ProviderCall("", "nova_grounding", '{"query": "rain"}', result="It rains in Rome.")
    async with ModelServer([Answer("It rains.", provider_calls=[search]), "Yes."]) as server:
        model = BedrockConverse(
            "amazon.nova-pro-v1:0", base_url=server.base_url, region="us-east-1", api_key="any"
        )
        agent = Agent(model=model)
        if stream:
            events = agent.arun("Hi", stream=True)
            async for _ in events:
                pass
            output = events.output
        else:
            output = await agent.arun("Hi")
        (call,) = output.messages[-1].provider_calls
        told = call.name, json.loads(call.arguments), call.status
        assert told == ("nova_grounding", {"query": "rain"}, "completed")
        assert output.metrics.billed == {"web_searches": 1}
        await agent.arun([*output.messages, Message("user", "Sure?")])
        sent = server.requests[-1].body["messages"][1]["content"]
        assert [next(iter(block)) for block in sent] == ["toolUse", "toolResult", "text"]


async def test_botocore_reads_a_call_that_bedrock_carries_out() -> None:
    search = ProviderCall("", "nova_grounding", '{"query": "rain"}', result="It rains.")
    async with ModelServer(lambda request: Answer("Yes.", provider_calls=[search])) as server:
        with client_of(server) as client:
            whole = await asyncio.to_thread(client.converse, modelId=ID, messages=[USER])
            stream = await asyncio.to_thread(client.converse_stream, modelId=ID, messages=[USER])
            events = await asyncio.to_thread(lambda: list(stream["stream"]))
    use, result, _ = whole["output"]["message"]["content"]
    assert use["toolUse"]["type"] == "server_tool_use"
    assert result["toolResult"]["content"] == [{"text": "It rains."}]
    starts = [event["contentBlockStart"]["start"] for event in events if "contentBlockStart" in event]
    assert [next(iter(start)) for start in starts] == ["toolUse", "toolResult"]
