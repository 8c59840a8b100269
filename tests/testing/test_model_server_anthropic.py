"""`ModelServer` as Anthropic: the official client reads what it sends; what the service refuses, it does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from anthropic import (
    APIStatusError,
    AsyncAnthropic,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
)

from kern.testing import Answer, Fault, ModelServer, tool_call
from kern.usage import Usage

TOOL: dict[str, Any] = {
    "name": "add",
    "description": "Add an item.",
    "input_schema": {"type": "object", "properties": {"item": {"type": "string"}}},
}
ASK: dict[str, Any] = {"model": "m", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
CALLS = [tool_call("add", item="milk"), tool_call("add", item="äpfel \U0001f34e")]


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as client:
        yield client


@pytest.fixture
async def official() -> AsyncIterator[Callable[..., AsyncAnthropic]]:
    """The official client, of a server and a key."""
    clients: list[AsyncAnthropic] = []

    def official(server: ModelServer, key: str = "any") -> AsyncAnthropic:
        base_url = server.base_url.removesuffix("/v1")
        clients.append(AsyncAnthropic(base_url=base_url, api_key=key, max_retries=0))
        return clients[-1]

    yield official
    for client in clients:
        await client.close()


FULL = Answer("It is added.", reasoning="Think of milk.", tool_calls=CALLS, usage=Usage(50, 9, 59, 20, 10, 4))


@pytest.mark.parametrize("interleave", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
async def test_the_official_client_reads_all_of_an_answer(
    official: Callable[..., AsyncAnthropic], streamed: bool, interleave: bool
) -> None:
    answer = Answer(
        FULL.text,
        reasoning=FULL.reasoning,
        tool_calls=FULL.tool_calls,
        usage=FULL.usage,
        interleave=interleave,
    )
    async with ModelServer([answer]) as server:
        asked = {**ASK, "tools": [TOOL]}
        if streamed:
            async with official(server).messages.stream(**asked) as stream:
                message: Any = await stream.get_final_message()
        else:
            message = await official(server).messages.create(**asked)
    thinking, text, first, second = message.content
    assert (thinking.type, thinking.thinking) == ("thinking", "Think of milk.")
    assert thinking.signature
    assert (text.type, text.text) == ("text", "It is added.")
    assert [(call.id, call.name, call.input) for call in (first, second)] == [
        (call.id, call.name, json.loads(call.arguments)) for call in CALLS
    ]
    assert (message.stop_reason, message.model, message.role) == ("tool_use", "m", "assistant")
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (
        20,
        20,
        10,
    )
    assert usage.output_tokens == 9


async def test_the_official_client_takes_a_conversation_up_again(
    official: Callable[..., AsyncAnthropic],
) -> None:
    async with ModelServer([FULL, "Done."]) as server:
        asked = {**ASK, "tools": [TOOL]}
        first = await official(server).messages.create(**asked)
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": "ok"}
            for block in first.content
            if block.type == "tool_use"
        ]
        turns = [
            *ASK["messages"],
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": results},
        ]
        last = await official(server).messages.create(**{**asked, "messages": turns})
        assert last.content[0].text == "Done."
        assert [result.content for result in server.requests[1].tool_results] == ["ok", "ok"]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.status(400), BadRequestError),
        (Fault.status(401), AuthenticationError),
        (Fault.status(404), NotFoundError),
        (Fault.status(429), RateLimitError),
        (Fault.status(529), InternalServerError),
        (Fault.failed(), InternalServerError),
    ],
)
async def test_the_official_client_knows_the_errors(
    official: Callable[..., AsyncAnthropic], fault: Fault, kind: type[APIStatusError]
) -> None:
    async with ModelServer([fault]) as server:
        with pytest.raises(kind) as caught:
            await official(server).messages.create(**ASK)
        body: Any = caught.value.body
        assert body["type"] == "error"
        assert body["error"]["message"]


async def test_an_error_in_a_stream_is_an_event_that_the_official_client_raises(
    official: Callable[..., AsyncAnthropic],
) -> None:
    fault = Fault.error_event(1, code="overloaded_error")
    async with ModelServer([Answer("one two three", fault=fault)]) as server:
        with pytest.raises(APIStatusError) as caught:
            async with official(server).messages.stream(**ASK) as stream:
                await stream.get_final_message()
        assert "overloaded_error" in str(caught.value.body)


async def test_a_wrong_key_is_refused(official: Callable[..., AsyncAnthropic]) -> None:
    async with ModelServer(["Hi"], api_key="right") as server:
        with pytest.raises(AuthenticationError):
            await official(server, "wrong").messages.create(**ASK)
        message = await official(server, "right").messages.create(**ASK)
        assert message.content[0].text == "Hi"


def use(given: str = "toolu_1", **more: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": given, "name": "add", "input": {}, **more}


def result(given: str = "toolu_1", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": given, "content": "ok", **more}


def turns(*contents: Any) -> dict[str, Any]:
    """Turns of the user's and the assistant's, in turn."""
    roles = ("user", "assistant")
    said = [{"role": roles[at % 2], "content": content} for at, content in enumerate(contents)]
    return {"messages": said, "tools": [TOOL]}


def strict(*schemas: dict[str, Any]) -> dict[str, Any]:
    tools = [
        {"name": f"t{at}", "strict": True, "input_schema": {"additionalProperties": False, **schema}}
        for at, schema in enumerate(schemas)
    ]
    return {"tools": tools}


def properties(count: int, schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    named = {f"p{at}": schema for at in range(count)}
    return {"type": "object", "properties": named, "required": list(named) if required else []}


UNION = {"anyOf": [{"type": "string"}, {"type": "null"}]}
MARK = {"cache_control": {"type": "ephemeral"}}
TEXT = {"type": "text", "text": "Hi"}
LOOP = {
    "$defs": {
        "n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "additionalProperties": False}
    },
    "type": "object",
    "properties": {"n": {"$ref": "#/$defs/n"}},
}

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("no messages", {"messages": []}, "at least one message"),
    ("an unknown field", {"instructions": "x"}, "Extra inputs"),
    ("an unknown role", {"messages": [{"role": "system", "content": "x"}]}, 'Unexpected role "system"'),
    ("the assistant first", {"messages": [{"role": "assistant", "content": "x"}]}, "first message"),
    ("an empty text", turns([{"type": "text", "text": ""}]), "must be non-empty"),
    ("a blank text", turns([{"type": "text", "text": " \n"}]), "non-whitespace"),
    ("no content", turns("Hi", [], "Go on"), "non-empty content"),
    ("an unknown block", turns([{"type": "input_text", "text": "x"}]), "Input tag 'input_text'"),
    ("a result without a call", turns([result()]), "unexpected `tool_use_id`"),
    ("a call without a result", turns("Hi", [use()], "And?"), "without `tool_result` blocks"),
    ("a call at the end", turns("Hi", [use()]), "without `tool_result` blocks"),
    ("a result behind a text", turns("Hi", [use()], [TEXT, result()]), "unexpected `tool_use_id`"),
    ("two calls of one id", turns("Hi", [use(), use()], [result()]), "ids must be unique"),
    ("an id of other characters", turns("Hi", [use("a|b")], [result("a|b")]), "should match pattern"),
    ("arguments as a text", turns("Hi", [use(input="{}")], [result()]), "valid dictionary"),
    ("calls without tools", {**turns("Hi", [use()], [result()]), "tools": []}, "must define tools"),
    (
        "unsigned thinking",
        turns("Hi", [{"type": "thinking", "thinking": "x"}, TEXT], "And?"),
        "signature: Field required",
    ),
    (
        "an answer that ends with thinking",
        turns("Hi", [TEXT, {"type": "redacted_thinking", "data": "x"}], "And?"),
        "final block",
    ),
    (
        "thinking that does not begin the answer",
        {**turns("Hi", [use()], [result()]), "thinking": {"type": "enabled", "budget_tokens": 1024}},
        "Expected `thinking`",
    ),
    ("a small budget", {"thinking": {"type": "enabled", "budget_tokens": 10}}, "1024"),
    (
        "a call that is forced while thinking",
        {
            "tools": [TOOL],
            "tool_choice": {"type": "any"},
            "thinking": {"type": "enabled", "budget_tokens": 1024},
            "max_tokens": 4096,
        },
        "Thinking may not be enabled",
    ),
    ("a choice of no tool", {"tool_choice": {"type": "auto"}}, "while providing tools"),
    ("five marks", turns([{**TEXT, **MARK} for _ in range(5)]), "maximum of 4"),
    (
        "an hour behind five minutes",
        turns([{**TEXT, **MARK}, {**TEXT, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]),
        "must not come after",
    ),
    ("a blank end", turns("Hi", "So "), "trailing whitespace"),
    ("a temperature", {"temperature": -5.0}, "range: 0..1"),
    ("many strict tools", strict(*[{"type": "object"}] * 21), "Too many strict tools"),
    ("many optional", strict(properties(25, {"type": "string"}, required=False)), "optional parameters"),
    ("many unions", strict(properties(17, UNION, required=True)), "union types"),
    ("a recursive schema", strict(LOOP), "Recursive"),
    ("an open object", strict({"type": "object", "additionalProperties": True}), "explicitly set to false"),
    (
        "a bound",
        strict(properties(1, {"type": "integer", "minimum": 1}, required=True)),
        "properties minimum are not supported",
    ),
    (
        "a server's result without its call",
        turns("Hi", [{"type": "web_search_tool_result", "tool_use_id": "x", "content": []}], "And?"),
        "must have a corresponding `server_tool_use`",
    ),
]


@pytest.mark.parametrize(("name", "changed", "words"), REFUSED, ids=[name for name, _, _ in REFUSED])
async def test_it_refuses_what_the_service_refuses(
    http: httpx.AsyncClient, name: str, changed: dict[str, Any], words: str
) -> None:
    body = {**ASK, "max_tokens": 5000, **changed}
    async with ModelServer(["Hi"]) as server:
        url = f"{server.base_url}/messages"
        answer = await http.post(url, json=body, headers={"anthropic-version": "2023-06-01"})
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert words in error["message"]
        assert server.remaining == 1


async def test_it_wants_a_version_and_json(http: httpx.AsyncClient) -> None:
    async with ModelServer(["Hi"]) as server:
        url = f"{server.base_url}/messages"
        assert "anthropic-version" in (await http.post(url, json=ASK)).text
        headers = {"anthropic-version": "2023-06-01"}
        for content in ("{", "[]"):
            assert "JSON" in (await http.post(url, content=content, headers=headers)).text


async def test_a_changed_signature_is_refused(official: Callable[..., AsyncAnthropic]) -> None:
    async with ModelServer([FULL, "Done."]) as server:
        first = await official(server).messages.create(**{**ASK, "tools": [TOOL]})
        thinking: Any = first.content[0].model_dump() | {"thinking": "Something else."}
        changed = turns("Hi", [thinking, TEXT], "And?")
        with pytest.raises(BadRequestError, match="Invalid `signature`"):
            await official(server).messages.create(**{**ASK, **changed})
        assert server.remaining == 1
        changed["messages"][1]["content"][0] = first.content[0].model_dump()
        assert (await official(server).messages.create(**{**ASK, **changed})).content
