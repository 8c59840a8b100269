"""The tools that Google runs itself, beside an agent's own."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from kern import Agent
from kern.errors import UsageError
from kern.messages import Message
from kern.models.base import ModelRequest, ToolDefinition
from kern.models.google import CodeExecution, FileSearch, Gemini, GoogleMaps, GoogleSearch, UrlContext
from kern.models.google._encode import encode
from kern.models.openai import OpenAIResponses
from kern.testing import ModelServer, ReceivedRequest
from kern.tools.server_tool import ServerTool
from tests.models.replay import ReplayServer
from tests.models.test_google_answers import call, chunk, sse, text

ADD = ToolDefinition("add", "Add.", {"type": "object", "properties": {}})


@pytest.mark.parametrize(
    ("tool", "made"),
    [
        (GoogleSearch(), {"googleSearch": {}}),
        (
            GoogleSearch(
                time_range=(datetime(2025, 1, 1, tzinfo=UTC), datetime(2025, 2, 1, tzinfo=UTC)),
                exclude_domains=("a.example",),
            ),
            {
                "googleSearch": {
                    "timeRangeFilter": {
                        "startTime": "2025-01-01T00:00:00+00:00",
                        "endTime": "2025-02-01T00:00:00+00:00",
                    },
                    "excludeDomains": ["a.example"],
                }
            },
        ),
        (UrlContext(), {"urlContext": {}}),
        (CodeExecution(), {"codeExecution": {}}),
        (GoogleMaps(), {"googleMaps": {}}),
        (
            FileSearch(("fileSearchStores/s",), top_k=3, metadata_filter='author = "Ada"'),
            {
                "fileSearch": {
                    "fileSearchStoreNames": ["fileSearchStores/s"],
                    "topK": 3,
                    "metadataFilter": 'author = "Ada"',
                }
            },
        ),
    ],
    ids=lambda value: value.name if isinstance(value, ServerTool) else "",
)
def test_a_tool_stands_in_the_request_as_google_takes_it(tool: ServerTool, made: dict[str, Any]) -> None:
    request = ModelRequest([Message("user", "Hi")], server_tools=[tool])
    assert encode(request, "gemini-2.5-flash")["tools"] == [made]
    assert tool.name


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(UsageError, match="with a time zone"):
        GoogleSearch(time_range=(datetime(2025, 1, 1), datetime(2025, 2, 1)))  # noqa: DTZ001
    stores: Any = "fileSearchStores/s"
    with pytest.raises(UsageError, match="tuple of names"):
        FileSearch(stores)


def test_beside_functions_what_google_runs_comes_back_and_earlier_models_refuse() -> None:
    request = ModelRequest([Message("user", "Hi")], tools=[ADD], server_tools=[GoogleSearch()])
    body = encode(request, "gemini-3-pro")
    assert [list(tool) for tool in body["tools"]] == [["functionDeclarations"], ["googleSearch"]]
    assert body["toolConfig"] == {"includeServerSideToolInvocations": True}
    assert "toolConfig" not in encode(request, "gemini-3-pro", vertex=True)
    with pytest.raises(UsageError, match=r"flash does not support Google's own tools \(google_search\)"):
        encode(request, "gemini-2.5-flash")


async def test_an_agent_searches_and_calls_its_own_tools_in_one_run(server: ReplayServer) -> None:
    asked = {
        "toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "args": {"queries": ["north"]}, "id": "t1"},
        "thoughtSignature": "c2ln",
    }
    told = {"toolResponse": {"toolType": "GOOGLE_SEARCH_WEB", "response": {"x": 1}, "id": "t1"}}
    wanted = call("weather", {"city": "Utqiagvik"}, call_id="f1", thoughtSignature="c2ln")
    grounding = {
        "webSearchQueries": ["north"],
        "groundingChunks": [{"web": {"uri": "https://a.example", "title": "A"}}],
        "groundingSupports": [{"segment": {"endIndex": 5}, "groundingChunkIndices": [0]}],
    }
    server.replies = [
        sse(chunk(asked, told, wanted, finish="STOP")),
        sse(chunk(text("Cold, 3 degrees."), finish="STOP", groundingMetadata=grounding)),
    ]

    def weather(city: str) -> str:
        return f"3 degrees in {city}"

    model = Gemini("gemini-3-pro", base_url=server.url, api_key="any", max_retries=0)
    agent = Agent(model=model, tools=[weather, GoogleSearch()])
    asked_for = "The northernmost city's weather?"
    told_of: list[Any] = [
        event async for event in agent.arun(asked_for, stream=True, stream_events=True, yield_run_output=True)
    ]
    output = told_of.pop()
    assert output.content == "Cold, 3 degrees."
    assert [citation.url for citation in output.citations] == ["https://a.example"]
    assert (output.model, output.response_id) == ("gemini-3-pro-001", "r1")
    by_name = [event.event for event in told_of]
    assert by_name.count("ProviderToolCallStarted") == 2
    assert by_name.count("ProviderToolCallCompleted") == 2
    assert by_name.count("CitationAdded") == 1
    _, second = (request.body for request in server.asked)
    _, answer, results = second["contents"]
    assert answer["parts"] == [
        asked,
        told,
        {
            "functionCall": {"name": "weather", "args": {"city": "Utqiagvik"}, "id": "f1"},
            "thoughtSignature": "c2ln",
        },
    ]
    assert results["parts"] == [
        {
            "functionResponse": {
                "name": "weather",
                "id": "f1",
                "response": {"output": "3 degrees in Utqiagvik"},
            }
        }
    ]


class City(BaseModel):
    name: str


@pytest.mark.parametrize(("model", "asked"), [("gemini-3-pro", "native"), ("gemini-2.5-flash", "words")])
async def test_a_structured_answer_beside_a_search_is_had_as_the_model_can(model: str, asked: str) -> None:
    def play(request: ReceivedRequest) -> str:
        native = "responseJsonSchema" in request.body.get("generationConfig", {})
        assert native == (asked == "native")
        assert request.body["tools"] == [{"googleSearch": {}}]
        return '{"name": "Utqiagvik"}'

    async with ModelServer(play) as server:
        gemini = Gemini(model, base_url=server.base_url, api_key="any")
        agent = Agent(model=gemini, tools=[GoogleSearch()], output_schema=City)
        assert (await agent.arun("The northernmost city?")).content == City(name="Utqiagvik")


async def test_a_tool_of_googles_is_none_for_another_providers_model() -> None:
    async with ModelServer(["never"]) as server:
        model = OpenAIResponses("gpt-5.2", base_url=server.base_url, api_key="any")
        with pytest.raises(UsageError, match="GoogleSearch"):
            await Agent(model=model, tools=[GoogleSearch()]).arun("Hi")
        assert server.requests == []
