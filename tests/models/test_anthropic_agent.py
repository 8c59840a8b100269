"""Agents and teams on Anthropic's protocol, over real HTTP; `ModelServer` refuses what the service does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pydantic import BaseModel

from kern import Agent, RunStatus, Team, tool
from kern.db import InMemoryDb
from kern.errors import UsageLimitExceeded
from kern.models.anthropic import AnthropicMessages
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.run.events import RunContentEvent
from kern.testing import Answer, Fault, ModelServer, ReceivedRequest, Reply, tool_call


class Place(BaseModel):
    city: str
    people: int | None = None


def add(item: str) -> str:
    """Add an item."""
    return f"added {item}"


@pytest.fixture
async def serve() -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:

        async def serve(*answers: Any) -> ModelServer:
            given: Any = answers[0] if len(answers) == 1 and callable(answers[0]) else answers
            return await stack.enter_async_context(ModelServer(given))

        yield serve


def claude(server: ModelServer, **settings: Any) -> AnthropicMessages:
    return AnthropicMessages("claude-sonnet-4-6", base_url=server.base_url, api_key="any", **settings)


async def test_a_run_a_stream_and_tool_calls_with_thinking_that_goes_back(serve: Any) -> None:
    def play(request: ReceivedRequest) -> Reply:
        if not request.tool_results:
            calls = [tool_call("add", item="milk"), tool_call("add", item="eggs")]
            return Answer("I add both.", reasoning="Two items.", tool_calls=calls)
        thought = request.messages[-3].reasoning_content
        return Answer(f"Done after {thought!r}: {[result.content for result in request.tool_results]}")

    server = await serve(play)
    agent = Agent(model=claude(server, thinking=2048), tools=[add], instructions="Be brief.")
    output = await agent.arun("Milk and eggs, please")
    assert output.content == "I add both.\n\nDone after 'Two items.': ['added milk', 'added eggs']"
    assert output.status is RunStatus.completed
    assert output.reasoning_content == "Two items."
    pieces = []
    async for event in agent.arun("Again", stream=True):
        if isinstance(event, RunContentEvent):
            pieces.append(event.content)
    assert "".join(map(str, pieces)).endswith("['added milk', 'added eggs']")
    assert [request.protocol for request in server.requests] == ["anthropic"] * 4
    assert server.requests[0].system_text == "Be brief."
    body = server.requests[1].body
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2048}
    assert [block["type"] for block in body["messages"][1]["content"]] == [
        "thinking",
        "text",
        "tool_use",
        "tool_use",
    ]


async def test_a_session_goes_on_through_a_database(serve: Any) -> None:
    server = await serve(Answer("One.", reasoning="Counting."), "Two.")
    agent = Agent(model=claude(server), db=InMemoryDb(), add_history_to_context=True)
    await agent.arun("Count", session_id="s")
    await agent.arun("Go on", session_id="s")
    said = [(message.role, message.content) for message in server.requests[1].messages]
    assert said == [("user", "Count"), ("assistant", "One."), ("user", "Go on")]
    assert server.requests[1].messages[1].reasoning_content == "Counting."


async def test_a_structured_answer_is_enforced_by_the_service(serve: Any) -> None:
    server = await serve('{"city": "Oslo", "people": 700000}')
    output = await Agent(model=claude(server), output_schema=Place).arun("Where?")
    assert output.content == Place(city="Oslo", people=700000)
    form = server.requests[0].body["output_config"]["format"]
    assert form["type"] == "json_schema"
    assert form["schema"]["additionalProperties"] is False


async def test_an_older_model_gives_a_structured_answer_by_a_tool(serve: Any) -> None:
    server = await serve(tool_call("final_answer", city="Oslo"))
    model = AnthropicMessages("claude-3-7-sonnet-latest", base_url=server.base_url, api_key="any")
    output = await Agent(model=model, output_schema=Place).arun("Where?")
    assert output.content == Place(city="Oslo")
    assert "output_config" not in server.requests[0].body


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


async def test_a_schema_that_the_service_cannot_enforce_is_asked_for_in_words(serve: Any) -> None:
    server = await serve('{"name": "root", "children": [{"name": "leaf", "children": []}]}')
    output = await Agent(model=claude(server), output_schema=Tree).arun("A tree")
    assert output.content == Tree(name="root", children=[Tree(name="leaf")])
    assert "output_config" not in server.requests[0].body
    assert "JSON schema" in server.requests[0].system_text


async def test_a_team_of_claude_models(serve: Any) -> None:
    def play(request: ReceivedRequest) -> Reply:
        if "delegate_task_to_member" in request.tool_names:
            if not request.tool_results:
                return tool_call("delegate_task_to_member", member_id="adder", task="milk")
            return f"The member said: {request.tool_results[0].content}"
        return "added" if request.tool_results else tool_call("add", item="milk")

    server = await serve(play)
    member = Agent(name="adder", id="adder", model=claude(server), tools=[add])
    team = Team(name="shop", model=claude(server), members=[member])
    output = await team.arun("Milk, please")
    assert output.content == "The member said: added"


async def test_a_run_that_waits_for_a_person_goes_on(serve: Any) -> None:
    @tool(requires_confirmation=True)
    def pay(amount: int) -> str:
        """Pay."""
        return f"paid {amount}"

    server = await serve(Answer("I pay.", reasoning="Due.", tool_calls=[tool_call("pay", amount=3)]), "Paid.")
    agent = Agent(model=claude(server, thinking=1024), tools=[pay], db=InMemoryDb())
    paused = await agent.arun("Pay 3", session_id="s")
    assert paused.status is RunStatus.paused
    for requirement in paused.requirements or ():
        requirement.confirm()
    output = await agent.acontinue_run(paused)
    assert output.content == "I pay.\n\nPaid."
    assert server.requests[1].tool_results[0].content == "paid 3"


@pytest.mark.parametrize("other", [OpenAIResponses, OpenAIChat])
async def test_a_conversation_moves_to_another_provider_and_back(serve: Any, other: Any) -> None:
    def play(request: ReceivedRequest) -> Reply:
        if request.protocol == "anthropic" and len(server.requests) == 2:
            return Fault.status(529)
        if not request.tool_results:
            return Answer("I add.", reasoning="An item.", tool_calls=[tool_call("add", item="milk")])
        return "Added."

    server = await serve(play)
    fallback = other("gpt-5.2", base_url=server.base_url, api_key="any")
    model = claude(server, thinking=1024, max_retries=0)
    agent = Agent(
        model=model,
        fallback_models=[fallback],
        tools=[add],
        db=InMemoryDb(),
        add_history_to_context=True,
    )
    for text in ("Milk", "Milk again"):
        output = await agent.arun(text, session_id="s")
        assert str(output.content).endswith("Added.")
    asked = [request.protocol for request in server.requests]
    assert asked[:2] == ["anthropic", "anthropic"]
    assert asked[2] in ("responses", "chat")
    assert asked[3:] == ["anthropic", "anthropic"]
    for request in server.requests[3:]:  # what the other said is there, without its reasoning
        assert '"Added."' in str(request.body).replace("'", '"')


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_pauses_is_gone_on_with(serve: Any, stream: bool) -> None:
    server = await serve(Answer("I look.", finish_reason="pause_turn", reasoning="Hm."), "Found it.")
    agent = Agent(model=claude(server), db=InMemoryDb())
    if stream:
        content: Any = ""
        async for event in agent.arun("Look", stream=True, session_id="s"):
            content += event.content if isinstance(event, RunContentEvent) else ""
    else:
        content = (await agent.arun("Look", session_id="s")).content
    assert content == "I look.\n\nFound it."
    turns = server.requests[1].body["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"]
    assert [block["type"] for block in turns[1]["content"]] == ["thinking", "text"]


async def test_an_answer_that_pauses_for_ever_ends_at_the_limit(serve: Any) -> None:
    server = await serve(lambda request: Answer("On.", finish_reason="pause_turn"))
    with pytest.raises(UsageLimitExceeded):
        await Agent(model=claude(server), max_requests=4).arun("Look")
    assert len(server.requests) == 4
