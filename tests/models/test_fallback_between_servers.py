"""A conversation goes on at another provider: with calls and results, without secrets of the first one."""

from __future__ import annotations

import json
from importlib.util import find_spec
from itertools import permutations
from typing import Any

import pytest

from kern import Agent
from kern.models.base import Model
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.testing import Answer, Fault, ModelServer, ReceivedRequest, tool_call

KINDS = ["responses", "openai", "openrouter", "mistral", "deepseek", "ollama", "google-chat", "zai"]
if find_spec("botocore") is not None:
    import kern.models.bedrock  # noqa: F401  # here, since importing botocore reads files, which blocks

    KINDS.append("bedrock")


def look(place: str) -> str:
    """Look."""
    return f"nothing at {place}"


def model(kind: str, server: ModelServer) -> Model:
    if kind == "bedrock":
        from kern.models.bedrock import BedrockConverse

        return BedrockConverse("m-bedrock", base_url=server.base_url, api_key="any", max_retries=0)
    if kind == "responses":
        return OpenAIResponses(f"m-{kind}", base_url=server.base_url, api_key="any", max_retries=0)
    return OpenAIChat(f"m-{kind}", server=kind, base_url=server.base_url, api_key="any", max_retries=0)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("first", "second"), list(permutations(KINDS, 2)))
async def test_a_turn_with_calls_and_reasoning_goes_on_where_its_first_model_fails(
    first: str, second: str, stream: bool
) -> None:
    def play(request: ReceivedRequest) -> Any:
        if request.model == f"m-{first}":
            if request.tool_results:
                return Fault.status(503)
            calls = [tool_call("look", place="home"), tool_call("look", place="work")]
            return Answer("I look.", tool_calls=calls, reasoning="Secret thoughts.")
        return "Nothing there."

    async with ModelServer(play) as server:
        agent = Agent(model=model(first, server), fallback_models=[model(second, server)], tools=[look])
        if stream:
            async with agent.arun("Look", stream=True, session_id="s") as events:
                text = "".join([event.content async for event in events])
            assert text.endswith("Nothing there.")
        else:
            output = await agent.arun("Look", session_id="s")
            assert (output.content.endswith("Nothing there."), output.model) == (True, f"m-{second}")
        went_on = server.requests[-1]
        assert went_on.model == f"m-{second}"
        results = sorted(message.content or "" for message in went_on.tool_results)
        assert results == ["nothing at home", "nothing at work"]
        assert "Secret thoughts." not in json.dumps(went_on.body)
        assert "encrypted_content" not in json.dumps(went_on.body.get("input", []))


@pytest.mark.parametrize(
    ("first", "second"), [("responses", "deepseek"), ("deepseek", "responses"), ("responses", KINDS[-1])]
)
async def test_a_session_may_change_its_model_and_come_back(first: str, second: str) -> None:
    def play(request: ReceivedRequest) -> Any:
        if request.tool_results and not request.user_text.startswith("And"):
            return "Nothing."
        if not request.tool_results:
            return Answer(tool_calls=[tool_call("look", place="home")], reasoning="Hm.")
        return "Still nothing."

    async with ModelServer(play) as server:
        agent = Agent(model=model(first, server), tools=[look], add_history_to_context=True)
        await agent.arun("Look", session_id="s")
        agent.model = model(second, server)
        assert (await agent.arun("And now?", session_id="s")).content == "Still nothing."
        agent.model = model(first, server)
        assert (await agent.arun("And then?", session_id="s")).content == "Still nothing."
