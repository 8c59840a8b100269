"""Agents and teams on Gemini models, over HTTP, against a server that refuses what Google refuses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pydantic import BaseModel

from kern import Agent, RunStatus, Team, tool
from kern.db import SqliteDb
from kern.models import Model, resolve
from kern.models.google import Gemini
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.testing import Answer, Fault, ModelServer, ReceivedRequest, Reply, tool_call

IDS = ["gemini-2.5-flash", "gemini-3-pro"]
Serve = Callable[..., Any]


@pytest.fixture(params=IDS)
def gemini_id(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:

        async def serve(answers: Any) -> ModelServer:
            return await stack.enter_async_context(ModelServer(answers))

        yield serve


def gemini(server: ModelServer, model: str, **options: Any) -> Gemini:
    return Gemini(model, base_url=server.base_url, api_key="any", **options)


def weather(city: str) -> dict[str, Any]:
    """The weather of a city.

    Args:
        city: Its name.
    """
    return {"city": city, "degrees": 20}


async def test_a_run_and_a_stream_say_what_the_model_says(serve: Serve, gemini_id: str) -> None:
    server = await serve(["Hello there.", Answer("Hello again.", reasoning="They greet.")])
    agent = Agent(model=gemini(server, gemini_id), instructions="Be brief.")
    assert (await agent.arun("Hi")).content == "Hello there."
    pieces = [event.content async for event in agent.arun("Hi", stream=True)]
    assert "".join(piece for piece in pieces if piece) == "Hello again."
    assert [request.stream for request in server.requests] == [False, True]
    assert server.requests[0].system_text == "Be brief."


async def test_calls_at_once_are_carried_out_and_answered(serve: Serve, gemini_id: str) -> None:
    calls = [tool_call("weather", city=city) for city in ("Oslo", "Rome", "Oslo")]
    server = await serve(
        [Answer("Let me see.", tool_calls=calls), tool_call("weather", city="Bonn"), "Mild."]
    )
    agent = Agent(model=gemini(server, gemini_id), tools=[weather])
    output = await agent.arun("How is the weather?")
    assert output.content == "Let me see.\n\nMild."
    told = [json.loads(message.content or "") for message in server.requests[1].tool_results]
    assert [each["city"] for each in told] == ["Oslo", "Rome", "Oslo"]
    (declared,) = server.requests[0].tools
    assert declared.parameters["properties"]["city"]["type"] == "string"
    sent = json.dumps([request.body["contents"] for request in server.requests])
    if gemini_id == "gemini-2.5-flash":  # it gives no ids, and gets none
        assert '"id"' not in sent
        assert "thoughtSignature" not in sent
    else:
        assert all(call.id in sent for call in calls)
        assert "skip_thought_signature_validator" not in sent


class Report(BaseModel):
    city: str
    degrees: int | None = None


@pytest.mark.parametrize("tools", [[], [weather]], ids=["without tools", "with a tool"])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_has_the_shape_that_was_asked_for(
    serve: Serve, gemini_id: str, tools: list[Any], stream: bool
) -> None:
    def play(request: ReceivedRequest) -> Reply:
        if tools and not request.tool_results:
            return tool_call("weather", city="Oslo")
        answer = {"city": "Oslo", "degrees": 20}
        if "responseJsonSchema" in request.body.get("generationConfig", {}):
            return json.dumps(answer)
        (name,) = set(request.tool_names) - {"weather"}
        return tool_call(name, **answer)

    server = await serve(play)
    agent = Agent(model=gemini(server, gemini_id), tools=tools, output_schema=Report)
    if stream:
        outputs = [event async for event in agent.arun("Oslo?", stream=True, yield_run_output=True)]
        content = outputs[-1].content
    else:
        content = (await agent.arun("Oslo?")).content
    assert content == Report(city="Oslo", degrees=20)


async def test_a_team_hands_work_to_its_members(serve: Serve, gemini_id: str) -> None:
    def play(request: ReceivedRequest) -> Reply:
        if "leader" not in request.system_text:
            return "20 degrees."
        if not request.tool_results:
            (name,) = [name for name in request.tool_names if "delegate" in name]
            return tool_call(name, member_id="forecaster", task="The weather?")
        return f"The member says: {request.tool_results[-1].content}"

    server = await serve(play)
    member = Agent(name="forecaster", model=gemini(server, gemini_id))
    team = Team(
        name="desk", model=gemini(server, gemini_id), members=[member], instructions="You are the leader."
    )
    output = await team.arun("How is the weather?")
    assert "20 degrees." in str(output.content)


async def test_a_paused_run_goes_on_with_its_signatures_out_of_a_database(
    serve: Serve, gemini_id: str, tmp_path: Any
) -> None:
    @tool(requires_confirmation=True)
    def book(city: str) -> str:
        return f"booked {city}"

    server = await serve(
        [
            Answer(tool_calls=[tool_call("weather", city="Rome"), tool_call("book", city="Rome")]),
            "Done.",
            "Yes.",
        ]
    )
    db = SqliteDb(str(tmp_path / "runs.db"))
    agent = Agent(
        id="a", model=gemini(server, gemini_id), tools=[weather, book], db=db, add_history_to_context=True
    )
    paused = await agent.arun("Book Rome", session_id="s")
    assert paused.status == RunStatus.paused
    for requirement in paused.requirements:
        requirement.confirm()
    done = await agent.acontinue_run(paused)
    assert done.content == "Done."
    heard = [message.content for message in server.requests[1].tool_results]
    assert heard == ['{"city":"Rome","degrees":20}', "booked Rome"]
    assert (await agent.arun("Sure?", session_id="s")).content == "Yes."
    assert "skip_thought_signature_validator" not in json.dumps(server.requests[-1].body)


def others(server: ModelServer) -> dict[str, Model]:
    return {
        "responses": OpenAIResponses("gpt-5.2", base_url=server.base_url, api_key="any"),
        "chat": OpenAIChat("gpt-5.2", base_url=server.base_url, api_key="any"),
    }


@pytest.mark.parametrize("other", ["responses", "chat"])
@pytest.mark.parametrize("gemini_first", [False, True])
async def test_another_provider_takes_over_in_the_middle_of_a_conversation(
    serve: Serve, gemini_id: str, other: str, gemini_first: bool
) -> None:
    """Each model calls a tool, fails, and has the other one go on with its calls in the history."""
    calls = iter(range(100))

    def play(request: ReceivedRequest) -> Reply:
        number = next(calls)
        match number % 4:
            case 0:
                call = tool_call("weather", city=f"city {number}")
                return Answer("I look.", reasoning="A reason.", tool_calls=[call])
            case 1:
                return Fault.status(400)
            case 2:
                return tool_call("weather", city=f"city {number}")
        return "Done."

    server = await serve(play)
    models = [others(server)[other], gemini(server, gemini_id, max_retries=0)]
    if gemini_first:
        models.reverse()
    agent = Agent(model=models[0], fallback_models=[models[1]], tools=[weather], add_history_to_context=True)
    for _ in range(3):
        assert (await agent.arun("How is the weather?", session_id="s")).content == "I look.\n\nDone."
    protocols = [request.protocol for request in server.requests]
    assert set(protocols) == {"gemini", other}
    assert len(protocols) == 12


async def test_a_model_string_names_a_gemini_model(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await serve(["Hello"])
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.base_url)
    monkeypatch.setenv("GEMINI_API_KEY", "any")
    assert isinstance(resolve("google:gemini-3-pro"), Gemini)
    assert (await Agent(model="google:gemini-3-pro").arun("Hi")).content == "Hello"
    assert server.requests[0].model == "gemini-3-pro"
