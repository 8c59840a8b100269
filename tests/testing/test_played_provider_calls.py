"""`ModelServer` plays calls that a provider carries out: official clients and Kern read them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import openai
import pytest
from anthropic import AsyncAnthropic
from google import genai
from google.genai import types

from kern import Agent
from kern.messages import Image, ProviderCall
from kern.models.anthropic import AnthropicMessages
from kern.models.google import Gemini
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.testing import Answer, ModelServer

PAGE = {"type": "web_search_result", "url": "https://a.example", "title": "A", "encrypted_content": "e"}
SEARCH = ProviderCall("", "web_search", '{"query":"ruby"}', result=[{**PAGE, "page_age": None}])
CODE = ProviderCall("", "code_execution", '{"code":"print(1)"}', result={"stdout": "1"})
FAILED = ProviderCall("", "web_search", '{"query":"java"}', status="failed")


@pytest.mark.parametrize("stream", [False, True])
async def test_openais_client_reads_the_items(stream: bool) -> None:
    calls = [
        ProviderCall("", "web_search", '{"query":"ruby"}'),
        ProviderCall(
            "", "file_search", '{"queries":["a"]}', result=[{"file_id": "f", "text": "x", "score": 1.0}]
        ),
        ProviderCall("", "code_interpreter", '{"code":"1"}', result=[{"type": "logs", "logs": "1"}]),
        ProviderCall("", "image_generation", media=[Image(content=b"pixel")]),
        ProviderCall("", "ask_wiki", '{"q":1}', result="found"),
    ]
    answer = Answer("Done.", provider_calls=calls)
    async with ModelServer([answer]) as server:
        client = openai.AsyncOpenAI(base_url=server.base_url, api_key="sk-any", max_retries=0)
        if stream:
            steps: list[str] = []
            async with client.responses.stream(model="m", input="Hi") as events:
                async for event in events:
                    steps.append(event.type)
                response: Any = await events.get_final_response()
            assert "response.web_search_call.searching" in steps
            assert "response.code_interpreter_call.interpreting" in steps
        else:
            response = await client.responses.create(model="m", input="Hi")
        await client.close()
    kinds = [item.type for item in response.output]
    assert kinds == [
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "mcp_call",
        "message",
    ]
    search, files, code, image, mcp, _ = response.output
    assert (search.action.query, search.status) == ("ruby", "completed")
    assert (files.queries, files.results[0].file_id) == (["a"], "f")
    assert (code.code, code.outputs[0].logs) == ("1", "1")
    assert image.result == "cGl4ZWw="
    assert (mcp.name, mcp.arguments, mcp.output) == ("ask_wiki", '{"q":1}', "found")


@pytest.mark.parametrize("stream", [False, True])
async def test_anthropics_client_reads_the_blocks(stream: bool) -> None:
    asked: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    async with ModelServer([Answer("Done.", provider_calls=[SEARCH, CODE, FAILED])]) as server:
        client = AsyncAnthropic(base_url=server.base_url.removesuffix("/v1"), api_key="any", max_retries=0)
        if stream:
            async with client.messages.stream(**asked) as events:
                message: Any = await events.get_final_message()
        else:
            message = await client.messages.create(**asked)
        await client.close()
    use, found, code, ran, again, failed, text = message.content
    assert (use.type, use.name, use.input) == ("server_tool_use", "web_search", {"query": "ruby"})
    assert (found.tool_use_id, found.content[0].url) == (use.id, "https://a.example")
    assert (code.name, ran.content.stdout) == ("code_execution", "1")
    assert (again.input, failed.content.error_code) == ({"query": "java"}, "unavailable")
    assert text.text == "Done."
    assert message.usage.server_tool_use.web_search_requests == 2


@asynccontextmanager
async def google(server: ModelServer) -> AsyncIterator[genai.Client]:
    async with httpx.AsyncClient() as http:  # its own session of aiohttp's warns
        base = server.base_url.removesuffix("/v1")
        options = types.HttpOptions(base_url=base, httpx_async_client=http)
        yield genai.Client(api_key="any", http_options=options)


@pytest.mark.parametrize("stream", [False, True])
async def test_googles_client_reads_parts_and_grounding(stream: bool) -> None:
    calls = [
        ProviderCall("", "google_search", '{"query":"ruby"}', result={"sources": [PAGE]}),
        ProviderCall("", "code_execution", '{"code":"print(1)"}', result={"output": "1"}),
        ProviderCall("", "url_context", '{"urls":["https://b.example"]}'),
    ]
    async with ModelServer([Answer("Done.", provider_calls=calls)]) as server, google(server) as client:
        if stream:
            chunks = [
                chunk
                async for chunk in await client.aio.models.generate_content_stream(
                    model="gemini-2.5-flash", contents="Hi"
                )
            ]
        else:
            chunks = [await client.aio.models.generate_content(model="gemini-2.5-flash", contents="Hi")]
    candidates = [candidate for chunk in chunks for candidate in chunk.candidates or ()]
    parts = [part for each in candidates if each.content for part in each.content.parts or ()]
    assert [part.executable_code.code for part in parts if part.executable_code] == ["print(1)"]
    assert [part.code_execution_result.output for part in parts if part.code_execution_result] == ["1"]
    last = candidates[-1]
    assert last.grounding_metadata is not None
    assert last.grounding_metadata.web_search_queries == ["ruby"]
    assert last.url_context_metadata is not None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("made", "call", "billed"),
    [
        (OpenAIChat, ProviderCall("", "search", '{"query":"ruby"}', result="A"), {"server_tools": 1}),
        (OpenAIResponses, ProviderCall("", "web_search", '{"query":"ruby"}'), {"web_searches": 1}),
        (AnthropicMessages, SEARCH, {"web_searches": 1}),
        (AnthropicMessages, CODE, {"code_executions": 1}),
        (
            Gemini,
            ProviderCall("", "google_search", '{"queries":["ruby"]}', result={"sources": [PAGE]}),
            {"web_searches": 1},
        ),
        (Gemini, ProviderCall("", "code_execution", '{"code":"1"}', result={"output": "1"}), None),
    ],
)
async def test_kern_reads_them_and_the_next_run_sends_them_back(
    made: Any, call: ProviderCall, billed: dict[str, int] | None, stream: bool
) -> None:
    async with ModelServer([Answer("Done.", provider_calls=[call]), "Again."]) as server:
        model = made("gemini-2.5-flash", base_url=server.base_url, api_key="any", max_retries=0)
        agent = Agent(model=model, add_history_to_context=True)
        if stream:
            events = [e async for e in agent.arun("Hi", session_id="s", stream=True, stream_events=True)]
            told = [event.call for event in events if "ProviderToolCall" in event.event]
            assert [(each.name, each.status) for each in told] == [
                (call.name, "running"),
                (call.name, "completed"),
            ]
        else:
            output = await agent.arun("Hi", session_id="s")
            (read,) = output.messages[-1].provider_calls
            assert (read.name, read.status) == (call.name, "completed")
            assert "ruby" in read.arguments or "code" in read.arguments
            assert output.metrics.billed == billed
        assert (await agent.arun("Well?", session_id="s")).content == "Again."
        sent = json.dumps(server.requests[-1].body)
        assert "Done." in sent
