"""The Gemini protocol of the ModelServer, read by Google's own client, and what it refuses."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from google import genai
from google.genai import errors, types

from kern.testing import Answer, Fault, ModelServer, ReceivedRequest, Reply, tool_call
from kern.usage import Usage

Ask = Callable[..., Any]
TEXT = " It is \U0001f6d2 'ä' \u2028 \\n\n\nand \"that\"  is all.\n"
ADD = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="add",
            description="Add.",
            parameters_json_schema={"type": "object", "properties": {"item": {"type": "string"}}},
        )
    ]
)


@asynccontextmanager
async def client_of(server: ModelServer, key: str = "any") -> AsyncIterator[genai.Client]:
    async with httpx.AsyncClient() as http:  # its own session of aiohttp's warns
        options = types.HttpOptions(
            base_url=server.base_url.removesuffix("/v1"),
            api_version="v1",
            httpx_async_client=http,
            retry_options=types.HttpRetryOptions(attempts=1),
        )
        client = genai.Client(api_key=key, http_options=options)
        try:
            yield client
        finally:
            client.close()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def serve(*answers: Reply, **options: Any) -> tuple[ModelServer, genai.Client]:
            server = await stack.enter_async_context(ModelServer(answers, **options))
            return server, await stack.enter_async_context(client_of(server))

        yield serve


def text_of(parts: Iterable[types.Part] | None, *, thought: bool = False) -> str:
    return "".join(part.text or "" for part in parts or () if bool(part.thought) is thought)


async def test_googles_client_reads_a_whole_answer(serve: Ask) -> None:
    usage = Usage(
        input_tokens=9, output_tokens=7, total_tokens=16, reasoning_tokens=3, cached_tokens=4, requests=1
    )
    _, client = await serve(Answer(TEXT, reasoning="Hm, well.", usage=usage))
    answer = await client.aio.models.generate_content(model="gemini-2.5-flash", contents="Hi")
    (candidate,) = answer.candidates
    assert candidate.finish_reason == types.FinishReason.STOP
    assert text_of(candidate.content.parts) == TEXT
    assert text_of(candidate.content.parts, thought=True) == "Hm, well."
    told = answer.usage_metadata
    assert (told.prompt_token_count, told.candidates_token_count, told.thoughts_token_count) == (9, 4, 3)
    assert (told.total_token_count, told.cached_content_token_count) == (16, 4)
    assert answer.model_version == "gemini-2.5-flash"
    assert answer.response_id


async def test_googles_client_reads_a_streamed_answer(serve: Ask) -> None:
    calls = [tool_call("add", item="milk"), tool_call("add", item="eggs")]
    _, client = await serve(Answer(TEXT, reasoning="Hm, well.", tool_calls=calls))
    chunks = await client.aio.models.generate_content_stream(
        model="gemini-3-pro", contents="Hi", config=types.GenerateContentConfig(tools=[ADD])
    )
    parts: list[types.Part] = []
    finish: list[Any] = []
    async for chunk in chunks:
        for candidate in chunk.candidates:
            parts += candidate.content.parts or []
            finish += [candidate.finish_reason] if candidate.finish_reason else []
    assert text_of(parts) == TEXT
    assert text_of(parts, thought=True) == "Hm, well."
    made = [(part, part.function_call) for part in parts if part.function_call]
    assert [(called.name, called.args) for _, called in made] == [
        ("add", {"item": "milk"}),
        ("add", {"item": "eggs"}),
    ]
    assert [called.id for _, called in made] == [call.id for call in calls]
    assert made[0][0].thought_signature
    assert made[1][0].thought_signature is None
    assert finish == [types.FinishReason.STOP]


async def test_googles_client_goes_on_with_the_results_of_calls(serve: Ask) -> None:
    server, client = await serve(Answer(tool_calls=[tool_call("add", item="milk")]), "Done.")
    config = types.GenerateContentConfig(
        tools=[ADD],
        system_instruction="Be brief.",
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    asked: list[Any] = [types.UserContent("Milk, please")]
    answer = await client.aio.models.generate_content(model="gemini-3-pro", contents=asked, config=config)
    call = answer.candidates[0].content.parts[0].function_call
    result = types.FunctionResponse(id=call.id, name="add", response={"output": "added"})
    asked += [answer.candidates[0].content, types.UserContent(types.Part(function_response=result))]
    answer = await client.aio.models.generate_content(model="gemini-3-pro", contents=asked, config=config)
    assert answer.text == "Done."
    first, second = server.requests
    assert first.system_text == "Be brief."
    assert first.tool_names == ["add"]
    assert first.user_text == "Milk, please"
    (heard,) = second.tool_results
    assert (heard.content, heard.tool_call_id, heard.tool_name) == ("added", call.id, "add")
    assert second.protocol == "gemini"
    assert not second.stream


@pytest.mark.parametrize(
    ("status", "word"), [(400, "INVALID_ARGUMENT"), (404, "NOT_FOUND"), (429, "RESOURCE_EXHAUSTED")]
)
async def test_googles_client_reads_an_error(serve: Ask, status: int, word: str) -> None:
    _, client = await serve(Fault.status(status))
    with pytest.raises(errors.ClientError) as caught:
        await client.aio.models.generate_content(model="gemini-2.5-flash", contents="Hi")
    assert (caught.value.code, caught.value.status) == (status, word)


async def test_googles_client_reads_what_was_cut_and_what_failed(serve: Ask) -> None:
    _, client = await serve(
        Answer("one two three", fault=Fault.incomplete(after=2)),
        Answer("one two three", fault=Fault.incomplete(after=1, reason="content_filter")),
        Answer("one two three", fault=Fault.failed()),
    )
    answer = await client.aio.models.generate_content(model="gemini-2.5-flash", contents="Hi")
    assert (answer.text, answer.candidates[0].finish_reason) == ("one two", types.FinishReason.MAX_TOKENS)
    answer = await client.aio.models.generate_content(model="gemini-2.5-flash", contents="Hi")
    assert answer.candidates[0].finish_reason == types.FinishReason.SAFETY
    with pytest.raises(errors.ServerError):
        await client.aio.models.generate_content(model="gemini-2.5-flash", contents="Hi")


async def test_the_key_is_checked_and_models_that_are_not_there_are_not_found() -> None:
    async with (
        ModelServer(["Hello"], api_key="right", models=["gemini-2.5-flash"]) as server,
        client_of(server, "wrong") as stranger,
        client_of(server, "right") as client,
    ):
        with pytest.raises(errors.ClientError) as wrong:
            await stranger.aio.models.generate_content(model="gemini-2.5-flash", contents="Hi")
        assert wrong.value.code == 401
        with pytest.raises(errors.ClientError) as gone:
            await client.aio.models.generate_content(model="gemini-9", contents="Hi")
        assert "models/gemini-9 is not found" in str(gone.value)
        answer = await client.aio.models.generate_content(model="gemini-2.5-flash", contents="Hi")
        assert answer.text == "Hello"


USER: dict[str, Any] = {"role": "user", "parts": [{"text": "Hi"}]}
CALL: dict[str, Any] = {
    "functionCall": {"name": "add", "args": {}},
    "thoughtSignature": "skip_thought_signature_validator",
}
CALLED: dict[str, Any] = {"role": "model", "parts": [CALL]}
RESULT: dict[str, Any] = {"functionResponse": {"name": "add", "response": {"output": "ok"}}}
ANSWERED: dict[str, Any] = {"role": "user", "parts": [RESULT]}
FUNCTION = {"name": "add", "description": ""}
AS_JSON = {"responseMimeType": "application/json"}


def called(**fields: Any) -> dict[str, Any]:
    return {"role": "model", "parts": [{**CALL, **fields}]}


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "no contents": ("gemini-3-pro", {"contents": []}, "contents is not specified"),
    "an unknown field": ("gemini-3-pro", {"contents": [USER], "messages": []}, 'Unknown name "messages"'),
    "an unknown role": ("gemini-3-pro", {"contents": [{**USER, "role": "assistant"}]}, "valid role"),
    "no parts": ("gemini-3-pro", {"contents": [{"role": "user", "parts": []}]}, "must not be empty"),
    "an unknown part": ("gemini-3-pro", {"contents": [{"parts": [{"image": {}}]}]}, 'Unknown name "image"'),
    "a part without data": (
        "gemini-3-pro",
        {"contents": [{"parts": [{"thought": True}]}]},
        "required oneof field 'data'",
    ),
    "a call without a result": ("gemini-3-pro", {"contents": [USER, CALLED]}, "function response parts"),
    "a call with a word instead of a result": (
        "gemini-3-pro",
        {"contents": [USER, CALLED, USER]},
        "number of function response parts",
    ),
    "two calls with one result": (
        "gemini-3-pro",
        {"contents": [USER, {"role": "model", "parts": [CALL, CALL]}, ANSWERED]},
        "number of function response parts",
    ),
    "a result without a call": (
        "gemini-3-pro",
        {"contents": [USER, ANSWERED]},
        "immediately after a function",
    ),
    "a call at the beginning": (
        "gemini-3-pro",
        {"contents": [CALLED, ANSWERED]},
        "function call turn comes immediately after a user turn",
    ),
    "a call after the model's own words": (
        "gemini-3-pro",
        {"contents": [USER, {"role": "model", "parts": [{"text": "x"}]}, CALLED, ANSWERED]},
        "function call turn comes immediately after a user turn",
    ),
    "a result of another call": (
        "gemini-3-pro",
        {
            "contents": [
                USER,
                called(functionCall={"name": "add", "id": "1"}),
                {"parts": [{"functionResponse": {"name": "add", "id": "2", "response": {}}}]},
            ]
        },
        "no matching function call",
    ),
    "a result without a name": (
        "gemini-3-pro",
        {"contents": [USER, CALLED, {"parts": [{"functionResponse": {"response": {}}}]}]},
        "Name cannot be empty",
    ),
    "a call of this turn without a signature": (
        "gemini-3-pro",
        {"contents": [USER, {"role": "model", "parts": [{"functionCall": {"name": "add"}}]}, ANSWERED]},
        "missing a thought_signature",
    ),
    "another provider's signature": (
        "gemini-3-pro",
        {"contents": [USER, called(thoughtSignature=base64.b64encode(b"claude").decode()), ANSWERED]},
        "Corrupted thought signature",
    ),
    "bytes that are no base64": (
        "gemini-3-pro",
        {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "%%"}}]}]},
        "Base64 decoding failed",
    ),
    "a function twice": (
        "gemini-3-pro",
        {"contents": [USER], "tools": [{"functionDeclarations": [FUNCTION, FUNCTION]}]},
        "Duplicate function declaration",
    ),
    "a function with a wrong name": (
        "gemini-3-pro",
        {"contents": [USER], "tools": [{"functionDeclarations": [{"name": "a b"}]}]},
        "Invalid function name",
    ),
    "a schema beside functions": (
        "gemini-2.5-flash",
        {
            "contents": [USER],
            "tools": [{"functionDeclarations": [FUNCTION]}],
            "generationConfig": AS_JSON,
        },
        "Function calling with a response mime type",
    ),
    "Google's tools beside functions": (
        "gemini-2.5-flash",
        {"contents": [USER], "tools": [{"functionDeclarations": [FUNCTION]}, {"googleSearch": {}}]},
        "Tool use with function calling is unsupported",
    ),
    "a schema beside Google's tools": (
        "gemini-2.5-flash",
        {"contents": [USER], "tools": [{"googleSearch": {}}], "generationConfig": AS_JSON},
        "Tool use with a response mime type",
    ),
    "a level of thinking for an early model": (
        "gemini-2.5-flash",
        {"contents": [USER], "generationConfig": {"thinkingConfig": {"thinkingLevel": "low"}}},
        "not supported for this model",
    ),
    "two measures of thinking": (
        "gemini-3-pro",
        {
            "contents": [USER],
            "generationConfig": {"thinkingConfig": {"thinkingLevel": "low", "thinkingBudget": 5}},
        },
        "only one of thinking budget",
    ),
    "names of functions without the mode for them": (
        "gemini-3-pro",
        {
            "contents": [USER],
            "tools": [{"functionDeclarations": [FUNCTION]}],
            "toolConfig": {"functionCallingConfig": {"mode": "AUTO", "allowedFunctionNames": ["add"]}},
        },
        "allowed_function_names",
    ),
    "a name that is no function": (
        "gemini-3-pro",
        {
            "contents": [USER],
            "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["add"]}},
        },
        "not declared",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_google_refuses_is_refused(what: str) -> None:
    model, body, words = REFUSED[what]
    async with ModelServer(["Hello"]) as server, httpx.AsyncClient() as client:
        answer = await client.post(f"{server.base_url}/models/{model}:generateContent", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert words in error["message"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")


async def test_what_google_takes_is_taken() -> None:
    seen: list[ReceivedRequest] = []

    def play(request: ReceivedRequest) -> str:
        seen.append(request)
        return "ok"

    earlier = {"role": "model", "parts": [{"functionCall": {"name": "add"}}]}
    bodies = [
        {"contents": [USER, CALLED, ANSWERED]},
        {"contents": [USER, earlier, ANSWERED, USER]},  # signatures count in the current turn
        {"contents": [{"parts": [{"text": "Hi"}]}]},
    ]
    async with ModelServer(play) as server, httpx.AsyncClient() as client:
        for body in bodies:
            answer = await client.post(f"{server.base_url}/models/gemini-3-pro:generateContent", json=body)
            assert answer.status_code == 200, answer.text
    assert [message.role for message in seen[0].messages] == ["user", "assistant", "tool"]


async def test_a_stream_is_asked_for_as_events_and_the_key_never_stands_in_the_address() -> None:
    async with ModelServer(["Hello"]) as server, httpx.AsyncClient() as client:
        address = f"{server.base_url}/models/gemini-3-pro"
        body = json.dumps({"contents": [USER]})
        answers = [
            await client.post(f"{address}:streamGenerateContent", content=body),
            await client.post(f"{address}:generateContent?key=secret", content=body),
        ]
        assert [answer.status_code for answer in answers] == [400, 400]
        streamed = await client.post(f"{address}:streamGenerateContent?alt=sse", content=body)
    assert streamed.headers["content-type"].startswith("text/event-stream")
