"""Conversations as strict servers want them: names of calls, reasoning of thinking models, no empty turns."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from kern import Agent
from kern.errors import ModelBadRequestError
from kern.messages import Message, ToolCall
from kern.models._history import call_name
from kern.models.base import ModelRequest
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.testing import ModelServer, ScriptedModel, tool_call
from tests.models.replay import ReplayServer, Reply, Sink

NAMES = ["", "browser.tabs.open", "$lookup", "n" * 100, "functions.note x", "größe", "工具", "a/b", "a b\n"]
SOUND = re.compile(r"[A-Za-z0-9_-]{1,64}")


def note(text: str = "") -> str:
    """Note."""
    return "noted"


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_was_made_up_is_made_harmless_and_stays_the_same(name: str) -> None:
    sound = call_name(name)
    assert SOUND.fullmatch(sound)
    assert call_name(name) == call_name(sound) == sound
    assert call_name("note") == "note"
    assert call_name("n" * 64) == "n" * 64
    assert call_name("n" * 100) != call_name("n" * 101)


@pytest.mark.parametrize("protocol", [OpenAIChat, OpenAIResponses])
@pytest.mark.parametrize("name", NAMES)
async def test_such_a_name_goes_back_harmless_in_this_run_and_in_later_ones(
    name: str, protocol: type[OpenAIChat]
) -> None:
    async with ModelServer([tool_call(name), "Done", "Again"]) as server:
        model = protocol("m", base_url=server.base_url, api_key="any", max_retries=0)
        agent = Agent(model=model, tools=[note], session_id="s", add_history_to_context=True)
        first = await agent.arun("a")
        await agent.arun("b")
        names = [c.name for r in server.requests[1:] for m in r.messages for c in m.tool_calls]
    assert names == [call_name(name)] * 2
    assert [c.name for m in first.messages for c in m.tool_calls] == [name]


# Reasoning. Servers that refuse what is missing, as DeepSeek and Kimi do.

DEEPSEEK = "The `reasoning_content` in the thinking mode must be passed back to the API."
KIMI = "thinking is enabled but reasoning_content is missing in assistant tool call message at index 1"


class Thinking(list[Reply]):
    """A server's: it calls `note` once for each question, then answers, and wants its reasoning back.

    Args:
        server: What it was asked.
        complaint: Its words.
        every: It wants reasoning in every assistant's message, and not only in those with calls.
    """

    def __init__(self, server: ReplayServer, complaint: str = DEEPSEEK, *, every: bool = False) -> None:
        super().__init__([Reply()])
        self.server = server
        self.complaint = complaint
        self.every = every

    def __getitem__(self, index: Any) -> Any:
        messages = self.server.asked[-1].body["messages"]
        for said in messages:
            wanted = said["role"] == "assistant" and (self.every or said.get("tool_calls"))
            if wanted and not said.get("reasoning_content"):
                error = {"error": {"message": self.complaint, "type": "invalid_request_error"}}
                return Reply([json.dumps(error).encode()], status=400, content_type="application/json")
        said = {"role": "assistant", "content": "Done.", "reasoning_content": "So."}
        if messages[-1]["role"] == "user":
            function = {"name": "note", "arguments": "{}"}
            calls = [{"id": f"c{len(self.server.asked)}", "type": "function", "function": function}]
            said = {"role": "assistant", "content": "", "reasoning_content": "I think.", "tool_calls": calls}
        reason = "tool_calls" if said.get("tool_calls") else "stop"
        body = {"choices": [{"message": said, "finish_reason": reason}]}
        return Reply([json.dumps(body).encode()], content_type="application/json")


def thinker(server: ReplayServer) -> OpenAIChat:
    return OpenAIChat("deepseek-v4-flash", base_url=server.url, max_retries=0)


@pytest.mark.parametrize("every", [True, False])
async def test_a_session_of_a_thinking_model_goes_on(server: ReplayServer, every: bool) -> None:
    server.replies = Thinking(server, every=every)
    agent = Agent(model=thinker(server), tools=[note], session_id="s", add_history_to_context=True)
    for question in ("one", "two", "three"):
        assert (await agent.arun(question)).content == "Done."
    assert len(server.asked) == 6  # none was refused
    told = [m["reasoning_content"] for m in server.asked[-1].body["messages"] if m["role"] == "assistant"]
    assert told == ["I think.", "So.", "I think.", "So.", "I think."]


async def test_reasoning_of_turns_without_calls_stays_out(server: ReplayServer) -> None:
    said = {"role": "assistant", "content": "Done.", "reasoning_content": "So."}
    body = {"choices": [{"message": said, "finish_reason": "stop"}]}
    server.replies = [Reply([json.dumps(body).encode()], content_type="application/json")]
    agent = Agent(model=thinker(server), session_id="s", add_history_to_context=True)
    await agent.arun("one")
    await agent.arun("two")
    assert [m.keys() for m in server.asked[-1].body["messages"]] == [{"role", "content"}] * 3


@pytest.mark.parametrize("complaint", [DEEPSEEK, KIMI])
async def test_calls_of_another_model_get_reasoning_where_a_server_wants_it(
    server: ReplayServer, complaint: str
) -> None:
    server.replies = Thinking(server, complaint)
    first = ScriptedModel([tool_call("note"), ModelBadRequestError("no more", status=400)])
    fallback = thinker(server)
    agent = Agent(
        model=first, fallback_models=[fallback], tools=[note], session_id="s", add_history_to_context=True
    )
    assert (await agent.arun("one")).content == "Done."
    assert len(server.asked) == 2
    [called] = [m for m in server.asked[-1].body["messages"] if m["role"] == "assistant"]
    assert called["reasoning_content"] == " "
    later = Agent(model=fallback, tools=[note], db=agent.db, session_id="s", add_history_to_context=True)
    assert (await later.arun("two")).content == "Done."
    assert len(server.asked) == 4  # the model knows by now


async def test_other_refusals_are_no_reason_to_ask_again(server: ReplayServer, sink: Sink) -> None:
    for words in ("reasoning_content is not supported", "too long", "unknown field reasoning_content"):
        error = {"error": {"message": words}}
        server.replies = [Reply([json.dumps(error).encode()], status=400, content_type="application/json")]
        asked = len(server.asked)
        with pytest.raises(ModelBadRequestError):
            await thinker(server).respond(ModelRequest([Message("user", "Hi")]), sink)
        assert len(server.asked) == asked + 1


async def test_reasoning_that_another_model_gave_is_told_before_a_blank(
    server: ReplayServer, sink: Sink
) -> None:
    server.replies = Thinking(server, every=True)
    called = Message("assistant", None, reasoning_content="Aha.", tool_calls=[ToolCall("a", "note", "{}")])
    said = [Message("user", "Hi"), called, Message("tool", "ok", tool_call_id="a")]
    await thinker(server).respond(ModelRequest(said), sink)
    assert server.asked[-1].body["messages"][1]["reasoning_content"] == "Aha."


# Those who speak take turns.


@pytest.mark.parametrize("protocol", [OpenAIChat, OpenAIResponses])
@pytest.mark.parametrize("before", [[], [tool_call("note")]])
async def test_an_empty_answer_has_its_turn_in_the_history(
    protocol: type[OpenAIChat], before: list[Any]
) -> None:
    async with ModelServer([*before, "", "Second"]) as server:
        model = protocol("m", base_url=server.base_url, api_key="any", max_retries=0)
        agent = Agent(model=model, tools=[note], session_id="s", add_history_to_context=True)
        assert (await agent.arun("a")).content == ""
        await agent.arun("b")
        said = server.requests[-1].messages
        assert [m.role for m in said[-3:]] == ["tool" if before else "user", "assistant", "user"]
        assert said[-2].content == "[The answer was empty.]"
        assert [m.content for m in await agent.aget_chat_history()] == ["a", "b", "Second"]
