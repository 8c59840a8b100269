"""A call of an answer that was refused, or cut, is never carried out, whatever the protocol."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from kern import Agent, RunOutput, RunStatus
from kern.errors import ModelError, ModelIncompleteError
from kern.messages import Message, ToolCall
from kern.models.anthropic import AnthropicMessages
from kern.models.base import DeltaSink, FinishReason, Model, ModelRequest, ModelResponse
from kern.models.google import Gemini
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.testing import ModelServer
from kern.testing.answers import Answer, tool_call

ran: list[str] = []


class Out(BaseModel):
    x: int


@pytest.fixture(autouse=True)
def forget() -> None:
    ran.clear()


def delete(folder: str = "everything") -> str:
    """Delete a folder."""
    ran.append(folder)
    return "deleted"


def of(protocol: type[Any], server: ModelServer, name: str = "m") -> Any:
    return protocol(name, base_url=server.base_url, api_key="any", max_retries=0)


ENDS = [
    (AnthropicMessages, "refusal"),
    (OpenAIChat, "refusal"),
    (AnthropicMessages, "max_tokens"),
    (OpenAIChat, "length"),
    (OpenAIChat, "content_filter"),
    (OpenAIResponses, "incomplete"),
    (OpenAIResponses, "failed"),
    (Gemini, "SAFETY"),
    (Gemini, "MAX_TOKENS"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("protocol", "word"), ENDS)
@pytest.mark.parametrize("arguments", [{}, {"folder": "tmp"}])
async def test_no_provider_has_a_call_carried_out_that_it_has_taken_back(
    protocol: type[Any], word: str, arguments: dict[str, Any], stream: bool
) -> None:
    reply = Answer(tool_calls=[tool_call("delete", **arguments)], finish_reason=word)
    async with ModelServer([reply, "Done"]) as server:
        agent = Agent(model=of(protocol, server), tools=[delete])
        ended = None
        try:
            if stream:
                async for event in agent.arun("go", stream=True, yield_run_output=True):
                    ended = event
            else:
                ended = await agent.arun("go")
        except ModelError:
            assert word != "refusal"
        asked = len(server.requests)
    assert (ran, asked) == ([], 1)
    if word == "refusal":
        assert isinstance(ended, RunOutput)
        assert ended.status is RunStatus.completed
        assert [call for message in ended.messages for call in message.tool_calls] == []


async def test_an_answer_by_a_tool_that_was_refused_is_no_output() -> None:
    reply = Answer("I can't.", tool_calls=[tool_call("final_answer", x=1)], finish_reason="refusal")
    async with ModelServer([reply]) as server:
        agent = Agent(model=of(AnthropicMessages, server, "claude-3-5-haiku-latest"), output_schema=Out)
        output = await agent.arun("go")
        assert "final_answer" in str(server.requests[0].body["tools"])
    assert (output.content, output.last_turn, output.status) == (None, "I can't.", RunStatus.completed)


class ByHand(Model):
    """A model written by hand: it calls, and tells how its answer has ended."""

    def __init__(self, end: FinishReason) -> None:
        self.id, self.provider = "m", "by-hand"
        self.end: FinishReason = end

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        message = Message("assistant", "So", tool_calls=[ToolCall("c", "delete", "{}")])
        return ModelResponse(message, finish_reason=self.end)


@pytest.mark.parametrize("end", ["length", "content_filter", "error"])
async def test_a_cut_answer_of_a_model_written_by_hand_is_an_error(end: FinishReason) -> None:
    with pytest.raises(ModelIncompleteError, match=f"cut \\({end}\\) and asks for tool calls") as caught:
        await Agent(model=ByHand(end), tools=[delete]).arun("go")
    assert (ran, caught.value.content) == ([], "So")


async def test_a_refusal_of_a_model_written_by_hand_ends_the_run_with_its_text() -> None:
    output = await Agent(model=ByHand("refusal"), tools=[delete]).arun("go")
    assert (ran, output.content, output.messages[-1].tool_calls) == ([], "So", [])
