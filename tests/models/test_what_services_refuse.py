"""What services refuse, or count, in ways of their own: roles, references, pictures, costs."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kern.errors import ModelStreamError, UsageError
from kern.messages import File, Image, Message, ToolCall
from kern.models.anthropic import AnthropicMessages
from kern.models.anthropic._media import media_block
from kern.models.anthropic._usage import splits
from kern.models.base import ModelRequest
from kern.models.google import Gemini
from kern.models.google._contents import contents_of
from kern.models.openai import OpenAIChat
from kern.models.openai._chat_usage import usage_of
from kern.models.prices import cost_of, expected_cost
from kern.models.servers import server_named
from kern.testing import ModelServer
from kern.usage import Price, Usage
from tests.models.replay import ReplayServer, Sink
from tests.models.test_google_answers import call, chunk, sse

PNG = b"\x89PNG\r\n\x1a\n pixel"


@pytest.fixture
def client() -> str:
    """What is sent does not depend on the HTTP client: one will do."""
    return "any"


async def gemini(server: ReplayServer, *chunks: dict[str, Any]) -> list[tuple[str, Any]]:
    server.replies = [sse(*chunks)]
    model = Gemini("gemini-3-pro", base_url=server.url, api_key="any", max_retries=0)
    answer = await model.respond(ModelRequest([Message("user", "Hi")], stream=True), Sink())
    return [(made.name, json.loads(made.arguments)) for made in answer.message.tool_calls]


async def test_arguments_of_gemini_that_come_behind_the_name_are_its_own(server: ReplayServer) -> None:
    pieces = [chunk(call("delete", {})), chunk({"functionCall": {"args": {"folder": "tmp"}}}, finish="STOP")]
    assert await gemini(server, *pieces) == [("delete", {"folder": "tmp"})]
    two = [chunk(call("delete", {})), chunk(call("delete", {"folder": "b"}), finish="STOP")]
    assert await gemini(server, *two) == [("delete", {}), ("delete", {"folder": "b"})]


def piece(path: str, *, more: bool = True, **value: Any) -> dict[str, Any]:
    """Arguments in pieces: https://googleapis.github.io/js-genai/release_docs/interfaces/types.PartialArg.html"""
    return {"functionCall": {"partialArgs": [{"jsonPath": path, **value}], "willContinue": more}}


BEGUN = {"functionCall": {"name": "write", "willContinue": True}}


@pytest.mark.parametrize("ended", [True, False])
async def test_arguments_of_gemini_in_pieces_are_put_together(server: ReplayServer, ended: bool) -> None:
    """Vertex AI ends a call with a part without anything, or leaves that out."""
    pieces = [
        chunk(BEGUN),
        chunk(piece("$.rooms[0].name", stringValue="Kit", willContinue=True)),
        chunk(piece("$.rooms[0].name", stringValue="chen", willContinue=True)),
        chunk(piece("$.rooms[0].name", stringValue="")),
        chunk(piece("$.rooms[0].size", numberValue=0.5)),
        chunk(piece("$.rooms[1]['a.b']", boolValue=True)),
        chunk(piece("$.owner", nullValue="NULL_VALUE")),
    ]
    first = {"rooms": [{"name": "Kitchen", "size": 0.5}, {"a.b": True}], "owner": None}
    last = [chunk({"functionCall": {}}, finish="STOP")] if ended else [chunk(finish="STOP")]
    assert await gemini(server, *pieces, *last) == [("write", first)]
    second = [chunk(BEGUN), chunk(piece("$.a", more=False, stringValue="b"))]
    assert await gemini(server, *pieces, *second, *last) == [("write", first), ("write", {"a": "b"})]
    assert await gemini(server, chunk(BEGUN), *last) == [("write", {})]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$.text", {"stringValue": "half", "willContinue": True}),
        ("rooms", {"stringValue": "a"}),
        ("$.rooms[7]", {"stringValue": "a"}),
        ("$[0]", {"stringValue": "a"}),
        ("$" + ".a" * 100, {"stringValue": "a"}),
        ("$..a", {"stringValue": "a"}),
    ],
)
async def test_arguments_in_pieces_that_do_not_fit_are_no_call(
    server: ReplayServer, path: str, value: dict[str, Any]
) -> None:
    with pytest.raises(ModelStreamError):
        await gemini(server, chunk(BEGUN), chunk(piece(path, **value)), chunk(finish="STOP"))


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ('{"n": [1, 2.5, null]}', {"n": [1, 2.5, None]}),
        ('{"a": {"$ref": "#/$defs/A"}}', '{"a": {"$ref": "#/$defs/A"}}'),
        ('{"price": 1.10}', '{"price": 1.10}'),
        ('{"id": 12345678901234567891}', '{"id": 12345678901234567891}'),
        ('{"n": NaN}', '{"n": NaN}'),
        ("[1, 2]", "[1, 2]"),
        ("{broken", "{broken"),
    ],
)
def test_what_a_tool_says_reaches_gemini_as_it_was_said(text: str, sent: Any) -> None:
    messages = [
        Message("user", "Hi"),
        Message("assistant", tool_calls=[ToolCall("c", "look", "{}")]),
        Message("tool", text, tool_call_id="c", tool_name="look"),
    ]
    (result,) = contents_of(messages, "gemini-3-pro")[-1]["parts"]
    assert result["functionResponse"]["response"] == {"output": sent}


async def test_no_user_speaks_right_behind_a_tool_at_mistral() -> None:
    messages = [
        Message("user", "Hi"),
        Message("assistant", tool_calls=[ToolCall("abcdefghi", "look", "{}")]),
        Message("tool", "done", tool_call_id="abcdefghi", tool_name="look"),
        Message("user", "And now?"),
    ]
    roles = {}
    for name in ("mistral", "openai"):
        async with ModelServer(["Ok"]) as server:
            model = OpenAIChat("m", server=name, base_url=server.base_url, api_key="any")
            await model.respond(ModelRequest(messages), Sink())
            roles[name] = [said["role"] for said in server.requests[0].body["messages"]]
    assert roles["mistral"] == ["user", "assistant", "tool", "assistant", "user"]
    assert roles["openai"] == ["user", "assistant", "tool", "user"]


def test_pictures_reach_claude_only_in_the_types_that_it_takes() -> None:
    with pytest.raises(UsageError, match=r"not as image/svg\+xml"):
        media_block(Image(content=b"<svg/>", mime_type="image/svg+xml"), citations=False)
    with pytest.raises(UsageError, match=r"not as image/svg\+xml"):
        media_block(Image(url="https://example.com/a.svg"), citations=False)
    with pytest.raises(UsageError, match=r"not as image/svg\+xml"):
        media_block(Image(url="data:image/svg+xml,%3Csvg/%3E"), citations=False)
    data = base64.b64encode(PNG).decode()
    block = media_block(Image(url=f"data:image/png;base64,{data}"), citations=False)
    assert block["source"] == {"type": "base64", "media_type": "image/png", "data": data}
    elsewhere = media_block(Image(url="https://example.com/a"), citations=False)
    assert elsewhere["source"] == {"type": "url", "url": "https://example.com/a"}


async def test_a_picture_of_a_tool_that_claude_does_not_take_is_told_in_words() -> None:
    messages = [
        Message("user", "Hi"),
        Message("assistant", tool_calls=[ToolCall("c", "look", "{}")]),
        Message("tool", "", tool_call_id="c", images=[Image(content=b"<svg/>", mime_type="image/svg+xml")]),
    ]
    async with ModelServer(["Ok"]) as server:
        model = AnthropicMessages("claude-x", base_url=server.base_url, api_key="any")
        await model.respond(ModelRequest(messages), Sink())
        sent = str(server.requests[0].body["messages"])
    assert "[image]" in sent
    assert "svg" not in sent


def test_a_cost_with_a_key_of_ones_own_is_that_of_the_provider_behind_or_unknown() -> None:
    router = server_named("openrouter")
    counts = {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0, "is_byok": True}
    told = {**counts, "cost_details": {"upstream_inference_cost": 0.036}}
    assert usage_of(told, router).cost == pytest.approx(0.036)
    assert usage_of(counts, router).cost is None
    assert usage_of({**counts, "is_byok": False}, router).cost == 0.0


def test_what_is_set_aside_counts_documents_and_the_answer_that_claude_may_give() -> None:
    model = AnthropicMessages("m", api_key="any", price=Price(input=1.0, output=10.0))
    bare = expected_cost(model, ModelRequest([Message("user", "")]))
    assert bare == pytest.approx(16_384 * 10 / 1e6)
    text = File(content=b"word" * 50_000, mime_type="text/plain")
    beside = expected_cost(model, ModelRequest([Message("user", "", files=[text])]))
    assert beside - bare == pytest.approx(0.05)


def test_a_later_count_that_says_all_was_cached_takes_the_first_one_back() -> None:
    later = {"input_tokens": 0, "cache_read_input_tokens": 8834}
    assert splits(later, {"input_tokens": 8834})
    assert not splits(later, {"input_tokens": 9000})
    assert not splits({"input_tokens": 0}, {"input_tokens": 8834})
    assert not splits(later, {"input_tokens": 3, "cache_read_input_tokens": 8834})


def test_a_model_has_its_price_under_its_whole_name_too() -> None:
    used = Usage(input_tokens=1000, output_tokens=10, requests=1)
    short, whole = (Gemini(name, api_key="any") for name in ("gemini-2.5-pro", "models/gemini-2.5-pro"))
    assert cost_of(whole, used) == cost_of(short, used) is not None
