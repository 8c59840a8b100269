"""Settings of models that are numbers, and more calls in one answer than a service takes back."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest

from kern import Agent
from kern.errors import UsageError
from kern.messages import Message, ToolCall
from kern.models.anthropic import AnthropicMessages
from kern.models.base import ModelRequest
from kern.models.bedrock import BedrockConverse
from kern.models.google import Gemini
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.models.servers import SERVERS
from kern.testing import Answer, FunctionModel, ModelServer, ReceivedRequest, tool_call
from tests.models.replay import Sink

KINDS = [AnthropicMessages, Gemini, OpenAIChat, OpenAIResponses]
SECONDS = ["timeout", "total_timeout"]
COUNTS = ["max_retries", "max_line_bytes", "max_answer_bytes", "max_output_tokens"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in SECONDS for value in (math.nan, math.inf, 0, -1, True, "5", 10**400)),
        *((name, value) for name in COUNTS for value in (math.nan, math.inf, 0.5, -1, True, "5")),
        *((name, value) for name in ("temperature", "top_p") for value in (math.nan, "hot", True)),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_at_once(kind: Any, name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^{name} must be .*, not "):
        kind("m", **{name: value})


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_that_make_sense_are_taken(kind: Any) -> None:
    kind("m", timeout=1, total_timeout=0.5, max_retries=0, max_line_bytes=None, temperature=0, top_p=None)


async def test_gemini_s_address_has_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    async with ModelServer(["one", "two"]) as server:
        for name in ("GOOGLE_BASE_URL", "GOOGLE_GEMINI_BASE_URL"):
            monkeypatch.setenv(name, server.base_url)
            answer = await Gemini("gemini-3-pro", api_key="any").respond(
                ModelRequest([Message("user", "?")]), Sink()
            )
            assert answer.message.content
            monkeypatch.setenv("GOOGLE_BASE_URL", "http://127.0.0.1:1")  # the older name goes first


def add(n: int) -> str:
    """Add."""
    return f"r{n}"


@pytest.mark.parametrize("many", [128, 129, 300])
async def test_more_calls_than_openai_takes_back_in_one_message_go_back_in_several(many: int) -> None:
    """It answers "array too long. Expected an array with maximum length 128": pydantic/pydantic-ai#1105."""

    def play(request: ReceivedRequest) -> Any:
        calls = [tool_call("add", n=n) for n in range(many)]
        return "done" if request.tool_results else Answer(tool_calls=calls)

    async with ModelServer(play) as server:
        model = OpenAIChat("m", base_url=server.base_url, api_key="any")
        output = await Agent(model=model, tools=[add]).arun("Add")
        assert output.content == "done"
        sent = server.requests[-1].body["messages"]
        sizes = [len(message["tool_calls"]) for message in sent if "tool_calls" in message]
        assert sum(sizes) == many
        assert max(sizes) <= 128
        assert [message["content"] for message in sent if message["role"] == "tool"] == [
            f"r{n}" for n in range(many)
        ]


@pytest.mark.parametrize("name", ["openai", "mistral", "deepseek"])
def test_each_portion_has_its_own_results_and_the_text_stands_once(name: str) -> None:
    calls = [ToolCall(f"c{n}", "add", "{}") for n in range(130)]
    results = [Message("tool", f"r{n}", tool_call_id=f"c{n}", tool_name="add") for n in reversed(range(130))]
    said = Message("assistant", "I add.", tool_calls=calls)
    model = OpenAIChat("m", server=SERVERS[name], api_key="any")
    body = model._body(ModelRequest([Message("user", "?"), said, *results, Message("user", "And?")]))
    due: list[str] = []
    texts = []
    for message in body["messages"]:
        if message["role"] == "tool":
            due.remove(message["tool_call_id"])
            continue
        assert not due
        if message["role"] == "assistant" and "tool_calls" in message:
            texts.append(message["content"])
            due = [call["id"] for call in message["tool_calls"]]
    assert texts == ["I add.", ""]


@pytest.mark.parametrize("kind", [*KINDS, BedrockConverse])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", 5),
        ("api_key", 5),
        ("base_url", 5),
        ("price", {"input": 1, "output": 2}),
        ("price", (1, 2)),
        ("price", 3.0),
        ("http_client", object()),
        ("http_client", httpx.AsyncClient),
        ("default_headers", [("a", "b")]),
        ("extra_body", [("a", "b")]),
    ],
)
def test_a_setting_of_a_wrong_type_is_refused_at_once(kind: Any, name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^{name} must be .*, not "):
        kind(**{"id": "m", name: value})


@pytest.mark.parametrize("kind", [*KINDS, BedrockConverse])
@pytest.mark.parametrize("headers", [{"a": 5}, {5: "a"}])
def test_a_header_that_is_no_text_is_refused_at_once(kind: Any, headers: Any) -> None:
    with pytest.raises(UsageError, match="header"):
        kind("m", default_headers=headers)


@pytest.mark.parametrize("kind", [AnthropicMessages, Gemini, OpenAIChat, BedrockConverse])
@pytest.mark.parametrize("stop", [5, ["a", 5], {"a"}])
def test_stop_texts_are_texts(kind: Any, stop: Any) -> None:
    with pytest.raises(UsageError, match=r"^stop must be a str or a list of str, not "):
        kind("m", stop=stop)


def test_the_price_of_a_model_of_ones_own_is_checked_with_the_agent() -> None:
    model = FunctionModel(lambda request: "x")
    model.price = {"input": 1}  # type: ignore[assignment]
    with pytest.raises(UsageError, match=r"^price must be a Price\(input=..., output=...\)"):
        Agent(model=model)


def test_keys_of_other_kinds_are_texts_too_and_are_not_shown() -> None:
    with pytest.raises(UsageError, match="access_token must be a str, or a function that returns one"):
        Gemini("m", access_token=12345)
    with pytest.raises(UsageError, match="must be str, not int") as caught:
        BedrockConverse(aws_access_key_id="x", aws_secret_access_key=12345)
    assert "12345" not in str(caught.value)
