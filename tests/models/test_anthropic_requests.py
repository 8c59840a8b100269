"""What goes to Anthropic: settings, tools, media, cache marks, and conversations of any provenance.

`ModelServer` judges: it refuses what the service refuses. The rules: https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import pytest

from kern.errors import MissingKeyError, ModelBadRequestError, UsageError
from kern.messages import (
    Audio,
    Citation,
    File,
    Image,
    Message,
    Origin,
    ProviderCall,
    ReasoningPart,
    TextPart,
    ToolCall,
)
from kern.models.anthropic import (
    AnthropicMessages,
    CodeExecution,
    MCPServer,
    ToolSearch,
    WebFetch,
    WebSearch,
)
from kern.models.base import ModelRequest, ResponseFormat, ToolDefinition
from kern.testing import Fault, ModelServer
from tests.models.replay import ReplayServer, Reply, Sink

OWN = Origin("anthropic", "claude-x")
OTHER = Origin("openai", "gpt-5.2")
PNG = b"\x89PNG\r\n\x1a\n...."
ADD = ToolDefinition("add", "Add.", {"type": "object", "properties": {"item": {"type": "string"}}})


def body_of(request: ModelRequest | Sequence[Message], model_id: str = "claude-x", **settings: Any) -> Any:
    model = AnthropicMessages(model_id, base_url="http://127.0.0.1:1", api_key="any", **settings)
    asked = request if isinstance(request, ModelRequest) else ModelRequest(request)
    return model._payload(asked, model._resolve_base_url())


async def judged(request: ModelRequest | Sequence[Message], **settings: Any) -> Any:
    """The request's body, once the service has taken it."""
    asked = request if isinstance(request, ModelRequest) else ModelRequest(request)
    async with ModelServer(["ok"]) as server:
        model = AnthropicMessages("claude-x", base_url=server.base_url, api_key="any", **settings)
        assert (await model.respond(asked, Sink())).message.content == "ok"
        return server.requests[-1].body


def texts(turns: Any) -> list[Any]:
    return [
        (turn["role"], [block.get("text") or block["type"] for block in turn["content"]]) for turn in turns
    ]


async def test_system_texts_stand_apart_and_turns_alternate() -> None:
    body = await judged(
        [
            Message("system", "Be brief."),
            Message("developer", "Really."),
            Message("user", "One"),
            Message("user", "Two"),
            Message("assistant", "Three"),
            Message("assistant", "Four"),
            Message("user", "Five"),
        ],
        cache=None,
    )
    assert [block["text"] for block in body["system"]] == ["Be brief.", "Really."]
    assert texts(body["messages"]) == [
        ("user", ["One", "Two"]),
        ("assistant", ["Three", "Four"]),
        ("user", ["Five"]),
    ]


async def test_blank_texts_are_left_out_and_an_empty_conversation_says_so() -> None:
    assert texts((await judged([Message("user", " \n")]))["messages"]) == [("user", ["(no text)"])]
    assert texts((await judged([Message("assistant", "Hi "), Message("user", "")]))["messages"]) == [
        ("user", ["(no text)"]),
        ("assistant", ["Hi"]),
    ]
    said = await judged([Message("user", "Hi"), Message("assistant", ""), Message("user", "Well?")])
    assert texts(said["messages"]) == [("user", ["Hi", "Well?"])]


async def test_results_stand_in_the_order_of_their_calls_before_all_else() -> None:
    calls = [ToolCall("a", "add", '{"item": "milk"}'), ToolCall("b", "add", "")]
    body = await judged(
        ModelRequest(
            [
                Message("user", "Hi"),
                Message("assistant", "I add.", tool_calls=calls),
                Message("user", "Quick!"),
                Message("tool", "second", tool_call_id="b", tool_call_error=True),
                Message("tool", "first", tool_call_id="a", images=[Image(content=PNG)]),
            ],
            tools=[ADD],
        ),
        cache=None,
    )
    assert body["messages"][1]["content"][1:] == [
        {"type": "tool_use", "id": "a", "name": "add", "input": {"item": "milk"}},
        {"type": "tool_use", "id": "b", "name": "add", "input": {}},
    ]
    picture = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()}
    assert body["messages"][2]["content"] == [
        {
            "type": "tool_result",
            "tool_use_id": "a",
            "content": [{"type": "text", "text": "first"}, {"type": "image", "source": picture}],
        },
        {"type": "tool_result", "tool_use_id": "b", "content": "second", "is_error": True},
        {"type": "text", "text": "Quick!"},
    ]


async def test_a_call_without_a_result_and_a_result_without_a_call() -> None:
    body = await judged(
        [
            Message("tool", "lost", tool_call_id="x", tool_name="add"),
            Message("user", "Hi"),
            Message("assistant", None, tool_calls=[ToolCall("a", "add", "{}")]),
            Message("user", "And?"),
        ]
    )
    assert body["messages"][0]["content"][0]["text"] == "(result of the tool add)"
    result = body["messages"][2]["content"][0]
    assert (result["tool_use_id"], result["is_error"]) == ("a", True)
    assert [tool["name"] for tool in body["tools"]] == ["add"]
    assert body["tool_choice"] == {"type": "none"}


async def test_ids_of_other_providers_are_made_fit_and_unique() -> None:
    odd = ["", "call|1", "call_1", "call_1", "ä" * 90, "x" * 200]
    messages = [Message("user", "Hi")]
    for number, given in enumerate(odd):
        call = ToolCall(given, "a tool!", "[1]" if number else '{"a": NaN}')
        messages += [
            Message("assistant", None, tool_calls=[call]),
            Message("tool", str(number), tool_call_id=given),
        ]
    body = await judged(messages)
    uses = [turn["content"][0] for turn in body["messages"][1::2]]
    results = [turn["content"][0] for turn in body["messages"][2::2]]
    assert [use["id"] for use in uses] == [result["tool_use_id"] for result in results]
    assert [result["content"] for result in results] == [str(number) for number in range(len(odd))]
    assert [use["id"] for use in uses[1:4]] == ["call_1", "call_1-2", "call_1-3"]
    assert all(len(use["id"]) <= 64 for use in uses)
    assert uses[1]["input"] == {"invalid_json": "[1]"}
    assert {use["name"] for use in uses} == {"a_tool_"}


def thinking(text: str, signature: str | None, origin: Origin | None = OWN) -> ReasoningPart:
    return ReasoningPart(text, signature=signature, origin=origin)


async def test_reasoning_of_others_and_unsigned_thinking_stay_away() -> None:
    parts = [
        thinking("theirs", "sig", OTHER),
        thinking("nobody's", "sig", None),
        thinking("unsigned", None),
        ReasoningPart(redacted="EmwK", origin=OTHER),
        TextPart("Hi", origin=OTHER, citations=[Citation(url="x", provider_data={"type": "url_citation"})]),
        ProviderCall("ws_1", "web_search", origin=OTHER, provider_data={"call": {"type": "server_tool_use"}}),
    ]
    body = await judged([Message("user", "?"), Message("assistant", parts=parts), Message("user", "!")])
    assert body["messages"][1]["content"] == [{"type": "text", "text": "Hi"}]


async def test_signed_thinking_of_this_provider_goes_back_whatever_its_model() -> None:
    """The service drops by itself what a model cannot read.

    https://platform.claude.com/docs/en/build-with-claude/preserved-thinking
    """
    old = Origin("anthropic", "claude-old")
    parts = [
        thinking("mine", "sig"),
        ReasoningPart(redacted="EmwK", origin=old),
        thinking("", "sig"),
        TextPart("Hi", origin=OWN),
        thinking("at the end", "sig"),
    ]
    body = await judged([Message("user", "?"), Message("assistant", parts=parts), Message("user", "!")])
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "mine", "signature": "sig"},
        {"type": "redacted_thinking", "data": "EmwK"},
        {"type": "thinking", "thinking": "", "signature": "sig"},
        {"type": "text", "text": "Hi"},
    ]
    alone = [Message("user", "?"), Message("assistant", parts=parts[:2]), Message("user", "!")]
    assert texts((await judged(alone))["messages"]) == [("user", ["?", "!"])]


async def test_thinking_is_off_while_the_results_of_another_models_calls_are_sent() -> None:
    call = ToolCall("a", "add", "{}", origin=OTHER)
    messages = [
        Message("user", "Hi"),
        Message("assistant", parts=[TextPart("I add.", origin=OTHER), call]),
        Message("tool", "ok", tool_call_id="a"),
    ]
    asked = ModelRequest(messages, tools=[ADD])
    assert "thinking" not in await judged(asked, thinking=1024)
    after = ModelRequest([*messages, Message("assistant", "Done."), Message("user", "And?")], tools=[ADD])
    assert (await judged(after, thinking=1024))["thinking"] == {"type": "enabled", "budget_tokens": 1024}


async def test_thinking_at_the_beginning_of_a_turn_holds_for_all_of_its_calls() -> None:
    begun = Message("assistant", parts=[thinking("Hm.", "sig"), ToolCall("a", "add", "{}", origin=OWN)])
    then = Message("assistant", parts=[ToolCall("b", "add", "{}", origin=OWN)])
    results = [Message("tool", "ok", tool_call_id=made) for made in ("a", "b")]
    request = ModelRequest([Message("user", "Hi"), begun, results[0], then, results[1]], tools=[ADD])
    sent = body_of(request, thinking=1024)
    assert sent["thinking"] == {"type": "enabled", "budget_tokens": 1024}


def searched(identity: str, after: int | None = None, **kept: Any) -> ProviderCall:
    call = {"type": "server_tool_use", "id": identity, "name": "web_search", "input": {}}
    result = {"type": "web_search_tool_result", "tool_use_id": identity, "content": []}
    data = kept or {"call": call, "result": result}
    if after is not None:
        data["after"] = after
    return ProviderCall(identity, "web_search", origin=OWN, provider_data=data)


async def test_calls_of_the_provider_go_back_in_their_old_order() -> None:
    cited = {"type": "web_search_result_location", "url": "u", "cited_text": "t", "file_id": None}
    quoted = TextPart("Blue", citations=[Citation(provider_data=cited)], origin=OWN)
    parts = [searched("s1", after=1), searched("s2"), quoted]
    history = [Message("user", "?"), Message("assistant", parts=parts), Message("user", "!")]
    body = await judged(ModelRequest(history, server_tools=[WebSearch()]))
    content = body["messages"][1]["content"]
    assert [(b["type"], b.get("id") or b.get("tool_use_id")) for b in content] == [
        ("server_tool_use", "s1"),
        ("server_tool_use", "s2"),
        ("web_search_tool_result", "s2"),
        ("web_search_tool_result", "s1"),
        ("text", None),
    ]
    assert content[-1]["citations"] == [{name: value for name, value in cited.items() if name != "file_id"}]
    parts = [searched("s1", after=50)]  # the text behind it is gone
    history[1] = Message("assistant", parts=parts)
    body = await judged(ModelRequest(history, server_tools=[WebSearch()]))
    assert [b["type"] for b in body["messages"][1]["content"]] == [
        "server_tool_use",
        "web_search_tool_result",
    ]


async def test_a_call_of_the_providers_without_its_result_goes_back_only_where_it_goes_on() -> None:
    call = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
    result = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []}
    running, late = searched("s1", call=call), searched("s1", result=result)
    ask = Message("user", "?")
    tools = [WebSearch()]
    paused = ModelRequest([ask, Message("assistant", parts=[running])], server_tools=tools)
    assert (await judged(paused, cache=None))["messages"][-1]["content"] == [call]
    both = [
        ask,
        Message("assistant", parts=[running]),
        Message("assistant", parts=[late]),
        Message("user", "!"),
    ]
    body = await judged(ModelRequest(both, server_tools=tools))
    assert body["messages"][1]["content"] == [call, result]
    for left in ([running], [late]):
        alone = [ask, Message("assistant", parts=left), Message("user", "!")]
        body = await judged(ModelRequest(alone, server_tools=tools))
        assert texts(body["messages"]) == [("user", ["?", "!"])]


async def test_what_a_row_holds_instead_of_blocks_is_left_out() -> None:
    for data in (
        None,
        {},
        {"call": 1},
        {"call": {"type": 1}},
        {"call": {"type": "text"}},
        {"result": {"type": "x"}},
    ):
        part = ProviderCall("s1", "web_search", origin=OWN, provider_data=data)
        body = await judged([Message("user", "?"), Message("assistant", parts=[part]), Message("user", "!")])
        assert texts(body["messages"]) == [("user", ["?", "!"])]


def test_calls_of_an_mcp_server_and_found_tools_go_back_where_they_are_known() -> None:
    call = {"type": "mcp_tool_use", "id": "m1", "name": "echo", "server_name": "echo", "input": {}}
    result = {"type": "mcp_tool_result", "tool_use_id": "m1", "content": []}
    found = {"type": "tool_search_tool_search_result", "tool_references": [{"tool_name": "add"}]}
    search = {"type": "server_tool_use", "id": "t1", "name": "tool_search_tool_bm25", "input": {}}
    hit = {"type": "tool_search_tool_result", "tool_use_id": "t1", "content": found}
    parts = [
        searched("m1", call=call, result=result),
        searched("t1", call=search, result=hit),
        TextPart("Hi"),
    ]
    history = [Message("user", "?"), Message("assistant", parts=parts), Message("user", "!")]
    server = MCPServer("echo", "https://echo.example/mcp", authorization_token="t0ken-of-echo")
    request = ModelRequest(history, tools=[ADD], server_tools=[server, ToolSearch()])
    body = body_of(request)
    assert [b["type"] for b in body["messages"][1]["content"]] == [
        "mcp_tool_use",
        "mcp_tool_result",
        "server_tool_use",
        "tool_search_tool_result",
        "text",
    ]
    assert body["mcp_servers"] == [
        {
            "type": "url",
            "name": "echo",
            "url": "https://echo.example/mcp",
            "authorization_token": "t0ken-of-echo",
        }
    ]
    assert body["tools"][0]["defer_loading"] is True
    assert [b["type"] for b in body_of(history)["messages"][1]["content"]] == ["text"]
    assert "t0ken" not in repr(server)


def test_the_tools_that_anthropic_runs() -> None:
    tools = [
        WebSearch(max_uses=3, allowed_domains=["example.com"], city="Oslo", country="NO"),
        WebFetch(citations=True, max_content_tokens=9, blocked_domains=["x.com"]),
        CodeExecution(),
        ToolSearch(by="regex", loaded=["add"]),
        MCPServer("m", "https://m", allowed_tools=["echo"]),
    ]
    body = body_of(ModelRequest([Message("user", "Hi")], tools=[ADD], server_tools=tools), cache=None)
    assert body["tools"][1:] == [
        {
            "type": "web_search_20250305",
            "name": "web_search",
            "max_uses": 3,
            "allowed_domains": ["example.com"],
            "user_location": {"type": "approximate", "city": "Oslo", "country": "NO"},
        },
        {
            "type": "web_fetch_20250910",
            "name": "web_fetch",
            "blocked_domains": ["x.com"],
            "citations": {"enabled": True},
            "max_content_tokens": 9,
        },
        {"type": "code_execution_20250825", "name": "code_execution"},
        {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"},
        {
            "type": "mcp_toolset",
            "mcp_server_name": "m",
            "default_config": {"enabled": False},
            "configs": {"echo": {"enabled": True}},
        },
    ]
    assert "defer_loading" not in body["tools"][0]
    with pytest.raises(UsageError, match="not both"):
        WebSearch(allowed_domains=["a"], blocked_domains=["b"])


def test_the_container_is_used_again_until_it_expires() -> None:
    def body(container: Any, *tools: Any) -> Any:
        answer = Message("assistant", "Hi", provider_data={"anthropic": {"container": container}})
        history = [Message("user", "?"), answer, Message("user", "!")]
        return body_of(ModelRequest(history, server_tools=tools))

    lasting = {"id": "container_1", "expires_at": "2126-01-01T00:00:00Z"}
    assert body(lasting, CodeExecution())["container"] == "container_1"
    for container in (lasting, {"id": "c", "expires_at": "2016-01-01T00:00:00Z"}, "c", {"id": 3}, None):
        tools = [] if container is lasting else [CodeExecution()]
        assert "container" not in body(container, *tools)


async def test_a_call_that_code_has_made_goes_back_with_its_caller() -> None:
    """https://platform.claude.com/docs/en/agents-and-tools/tool-use/programmatic-tool-calling"""
    caller = {"type": "code_execution_20260120", "tool_id": "s1"}
    code = {"type": "server_tool_use", "id": "s1", "name": "code_execution", "input": {"code": "add()"}}

    def history(*parts: Any) -> ModelRequest:
        messages = [
            Message("user", "?"),
            Message("assistant", parts=parts),
            Message("tool", "ok", tool_call_id="toolu_1"),
        ]
        return ModelRequest(messages, tools=[ADD], server_tools=[CodeExecution(version="20260120")])

    call = ToolCall("toolu_1", "add", "{}", {"caller": caller}, origin=OWN)
    running = searched("s1", call=code)
    body = await judged(history(running, call), cache=None)
    assert body["messages"][1]["content"] == [
        code,
        {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {}, "caller": caller},
    ]
    (alone,) = (await judged(history(call)))["messages"][1]["content"]
    assert "caller" not in alone


def marked(body: Any) -> list[Any]:
    blocks = [*body.get("tools", ()), *body.get("system", ())]
    blocks += [block for turn in body["messages"] for block in turn["content"]]
    return [block for block in blocks if "cache_control" in block]


async def test_marks_stand_behind_tools_and_system_and_at_the_end() -> None:
    messages = [Message("system", "Be brief."), Message("user", "Hi")]
    body = await judged(ModelRequest(messages, tools=[ADD]))
    assert [block.get("text") for block in marked(body)] == ["Be brief.", "Hi"]
    assert marked(body)[0]["cache_control"] == {"type": "ephemeral", "ttl": "5m"}
    body = await judged(ModelRequest([Message("user", "Hi")], tools=[ADD]), cache="1h")
    assert [block.get("name") for block in marked(body)] == ["add", None]
    assert marked(await judged(ModelRequest(messages, tools=[ADD]), cache=None)) == []


async def test_marks_by_hand_and_never_more_than_four() -> None:
    tool = ToolDefinition("now", "", {"type": "object"}, cache="5m")
    picture = Image(content=PNG, cache="1h")
    messages = [
        Message("system", "Be brief.", cache="1h"),
        Message("user", "Look", images=[picture]),
        Message("assistant", "I see.", cache="5m"),
        Message("user", "And?"),
    ]
    body = await judged(ModelRequest(messages, tools=[tool]))
    kinds = [
        (block.get("text") or block.get("type"), block["cache_control"]["ttl"]) for block in marked(body)
    ]
    assert kinds == [("Be brief.", "1h"), ("image", "1h"), ("I see.", "5m"), ("And?", "5m")]
    by_hand = await judged(ModelRequest(messages, tools=[tool]), cache=None)
    assert [b.get("name") or b.get("text") for b in marked(by_hand)] == ["now", "Be brief.", None, "I see."]
    assert by_hand["tools"][0]["cache_control"]["ttl"] == "1h"  # one for an hour may not follow a shorter one


async def test_a_mark_in_a_row_is_not_written_into_the_message() -> None:
    part = searched("s1")
    history = [Message("user", "?"), Message("assistant", parts=[part], cache="5m"), Message("user", "!")]
    await judged(ModelRequest(history, server_tools=[WebSearch()]))
    assert part.provider_data is not None
    assert "cache_control" not in str(part.provider_data)


def media(*given: Any, **settings: Any) -> Any:
    message = Message("user", parts=[*given, TextPart("What is it?")])
    return body_of([message], cache=None, **settings)["messages"][0]["content"][:-1]


def test_pictures_and_documents_as_bytes_urls_and_ids() -> None:
    jpeg, webp, pdf = b"\xff\xd8\xff\xe0", b"RIFF1234WEBPVP8 ", b"%PDF-1.7 ..."
    assert [
        block["source"]["media_type"] for block in media(*(Image(content=c) for c in (PNG, jpeg, webp)))
    ] == [
        "image/png",
        "image/jpeg",
        "image/webp",
    ]
    assert media(Image(content=jpeg, name="a.png"))[0]["source"]["media_type"] == "image/jpeg"
    assert media(Image(url="https://x/a.png"), Image(id="file_1")) == [
        {"type": "image", "source": {"type": "url", "url": "https://x/a.png"}},
        {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
    ]
    assert media(
        File(content=pdf, name="a.pdf"), File(url="https://x/a.pdf"), File(content=b"plain"), citations=True
    ) == [
        {
            "type": "document",
            "source": {
                "type": "base64",
                "media_type": "application/pdf",
                "data": base64.b64encode(pdf).decode(),
            },
            "title": "a.pdf",
            "citations": {"enabled": True},
        },
        {
            "type": "document",
            "source": {"type": "url", "url": "https://x/a.pdf"},
            "citations": {"enabled": True},
        },
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": "plain"},
            "citations": {"enabled": True},
        },
    ]


def test_media_that_anthropic_does_not_take() -> None:
    for given in (Audio(content=b"RIFF"), File(content=b"\xff\xfe\x00", name="a.bin"), Image(sha256="00")):
        with pytest.raises(UsageError):
            media(given)
        earlier = Message("user", parts=[given, TextPart("Hm")], from_history=True)
        assert body_of([earlier])["messages"][0]["content"][0]["text"].startswith("[")
    with pytest.raises(UsageError, match="system message"):
        body_of([Message("system", "Hi", images=[Image(content=PNG)])])


async def test_pictures_of_an_answer_are_shown_as_the_users() -> None:
    answer = Message("assistant", "Here.", images=[Image(content=PNG)])
    body = await judged([Message("user", "Draw"), answer, Message("user", "More")])
    assert texts(body["messages"])[2] == ("user", ["(attached by the assistant)", "image", "More"])


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"name": "add"}, {"type": "tool", "name": "add"}),
        (None, None),
    ],
)
async def test_the_choice_of_a_tool(choice: Any, sent: Any) -> None:
    request = ModelRequest([Message("user", "Hi")], tools=[ADD], tool_choice=choice)
    assert (await judged(request)).get("tool_choice") == sent
    beside_budget = (await judged(request, thinking=2048)).get("tool_choice")
    assert beside_budget == ({"type": "auto"} if choice in ("required", {"name": "add"}) else sent)
    assert (await judged(request, thinking="adaptive")).get("tool_choice") == sent  # as recorded
    single = (await judged(request, parallel_tool_calls=False))["tool_choice"]
    assert single.get("disable_parallel_tool_use") is (None if choice == "none" else True)


async def test_strict_tools_and_those_that_cannot_be() -> None:
    strict = ToolDefinition("a", "", ADD.parameters, strict=True)
    free = ToolDefinition("b", "", {"type": "object", "additionalProperties": True}, strict=True)
    odd = ToolDefinition("c", "", {"anyOf": [{"type": "object"}], "description": "x"})
    body = await judged(ModelRequest([Message("user", "Hi")], tools=[strict, free, odd]), cache=None)
    assert [tool.get("strict") for tool in body["tools"]] == [True, None, None]
    assert body["tools"][1]["input_schema"] == free.parameters
    assert body["tools"][2]["input_schema"] == {"type": "object", "description": "x"}


async def test_strict_schemas_that_the_service_refuses_are_asked_for_otherwise() -> None:
    """There is a limit that nobody can count: "The compiled grammar is too large"."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    request = ModelRequest(
        [Message("user", "Hi")],
        tools=[ToolDefinition("t", "", schema, strict=True)],
        response_format=ResponseFormat("answer", schema),
    )
    refusal = Fault.status(400, message="The compiled grammar is too large, which would cause trouble.")
    async with ModelServer([refusal, "{}", "{}"]) as server:
        model = AnthropicMessages("claude-x", base_url=server.base_url, api_key="any")
        for _ in range(2):
            await model.respond(request, Sink())
        bodies = [received.body for received in server.requests]
    assert ["output_config" in body for body in bodies] == [True, False, False]
    assert [body["tools"][0].get("strict") for body in bodies] == [True, None, None]
    assert "JSON schema" in bodies[1]["system"][-1]["text"]


async def test_thinking_that_the_service_refuses_is_left_out() -> None:
    history = [
        Message("user", "?"),
        Message("assistant", parts=[thinking("x", "sig"), TextPart("Hi", origin=OWN)]),
        Message("user", "!"),
    ]
    words = "messages.1.content.0: Invalid `signature` in `thinking` block. The block is bound to a different"
    async with ModelServer([Fault.status(400, message=words), "ok"]) as server:
        model = AnthropicMessages("claude-x", base_url=server.base_url, api_key="any")
        assert (await model.respond(ModelRequest(history), Sink())).message.content == "ok"
        assert [b["type"] for b in server.requests[1].body["messages"][1]["content"]] == ["text"]
    async with ModelServer([Fault.status(400, message=words)]) as server:
        model = AnthropicMessages("claude-x", base_url=server.base_url, api_key="any")
        with pytest.raises(ModelBadRequestError):
            await model.respond(ModelRequest(history[:1]), Sink())


def test_settings_go_out_under_the_services_names() -> None:
    body = body_of(
        [Message("user", "Hi")],
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        stop="END",
        thinking="adaptive",
        show_thinking=True,
        reasoning_effort="high",
        service_tier="auto",
        max_output_tokens=99,
        extra_body={"metadata": {"user_id": "u"}, "output_config": {"x": 1}, "tools": [{"name": "y"}]},
    )
    model = AnthropicMessages("claude-x", extra_body={"metadata": {"user_id": "u"}})
    model.extras.add(body, {"metadata": {"user_id": "u"}, "output_config": {"x": 1}})
    assert body["output_config"] == {"effort": "high", "x": 1}
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    del body["messages"], body["output_config"], body["thinking"]
    assert body == {
        "model": "claude-x",
        "max_tokens": 99,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "stop_sequences": ["END"],
        "service_tier": "auto",
        "metadata": {"user_id": "u"},
    }
    ask = [Message("user", "Hi")]
    assert body_of(ask)["max_tokens"] == 16_384
    assert body_of(ask, thinking=2000)["max_tokens"] == 18_384
    assert body_of(ask, "claude-3-haiku-20240307")["max_tokens"] == 4096
    assert body_of(ask, thinking="disabled")["thinking"] == {"type": "disabled"}


@pytest.mark.parametrize(
    ("model_id", "how"),
    [
        ("claude-sonnet-4-6", "native"),
        ("claude-opus-4-1-20250805", "native"),
        ("claude-haiku-4-5", "native"),
        ("claude-fable-5", "native"),
        ("claude-sonnet-4-20250514", "tool"),
        ("claude-sonnet-4@20250514", "tool"),
        ("claude-opus-4-0", "tool"),
        ("claude-3-7-sonnet-latest", "tool"),
        ("some-other-model", "native"),
    ],
)
def test_which_models_enforce_a_schema(model_id: str, how: str) -> None:
    assert AnthropicMessages(model_id).structured_output == how


@pytest.mark.parametrize(
    "settings",
    [
        {"thinking": 100},
        {"thinking": True},
        {"thinking": "much"},
        {"thinking": 2048, "max_output_tokens": 2000},
        {"cache": "2h"},
        {"extra_body": {"system": "x"}},
        {"extra_body": {"messages": []}},
        {"base_url": "ftp://x"},
    ],
)
def test_settings_that_cannot_work(settings: Any) -> None:
    with pytest.raises(UsageError):
        AnthropicMessages("claude-x", **settings)


def test_a_file_that_lies_with_another_provider_is_only_mentioned() -> None:
    answer = Message(
        "assistant", parts=[TextPart("Look.", origin=OTHER), Image(id="file-of-theirs", origin=OTHER)]
    )
    body = body_of([Message("user", "?"), answer, Message("user", "!")])
    assert "file-of-theirs" not in str(body)
    assert texts(body["messages"])[2] == ("user", ["(attached by the assistant)", "[image]", "!"])


async def test_the_token_of_an_mcp_server_is_sent_and_never_shown(server: ReplayServer) -> None:
    token = "t0ken-of-the-mcp-server-0123456789"
    said = f'{{"type": "error", "error": {{"type": "invalid_request_error", "message": "bad {token}"}}}}'
    server.replies = [Reply([said.encode()], 400, content_type="application/json")]
    model = AnthropicMessages("claude-x", base_url=server.url, api_key="any")
    request = ModelRequest(
        [Message("user", "Hi")], server_tools=[MCPServer("m", "https://m", authorization_token=token)]
    )
    with pytest.raises(ModelBadRequestError) as caught:
        await model.respond(request, Sink())
    assert server.asked[0].body["mcp_servers"][0]["authorization_token"] == token
    assert token not in str(caught.value)


async def test_the_key_the_version_and_betas_go_in_headers(
    server: ReplayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies = [Reply([b"{}"], status=400, content_type="application/json")]
    monkeypatch.setenv("ANTHROPIC_API_KEY", " sk-ant-of-the-environment ")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url.removesuffix("/v1"))
    model = AnthropicMessages("claude-x", default_headers={"anthropic-beta": "a-beta,files-api-2025-04-14"})
    request = ModelRequest(
        [Message("user", parts=[File(id="file_1"), TextPart("Hi")])],
        server_tools=[MCPServer("m", "https://m")],
    )
    with pytest.raises(ModelBadRequestError):
        await model.respond(request, Sink())
    (asked,) = server.asked
    assert asked.path == "/v1/messages"
    assert asked.headers["x-api-key"] == "sk-ant-of-the-environment"
    assert asked.headers["anthropic-version"] == "2023-06-01"
    assert asked.headers["anthropic-beta"] == "a-beta,files-api-2025-04-14,mcp-client-2025-11-20"
    assert "authorization" not in asked.headers


async def test_anthropic_is_not_asked_without_a_key_or_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    token = AnthropicMessages("claude-x", default_headers={"Authorization": "Bearer t0ken-of-oauth"})
    headers, origin = token._headers(token._resolve_base_url(), ModelRequest([Message("user", "Hi")]))
    assert headers["authorization"] == "Bearer t0ken-of-oauth"
    assert "x-api-key" not in headers
    assert "Bearer t0ken-of-oauth" in origin.secrets
    with pytest.raises(MissingKeyError, match="ANTHROPIC_API_KEY"):
        await AnthropicMessages("claude-x").respond(ModelRequest([Message("user", "Hi")]), Sink())
