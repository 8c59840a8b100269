"""The servers that speak Chat Completions: each is asked where it is, with what it knows, under its own name.

A server here is one on loopback, asked by the facts of a real one. They come from the page that each names.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel

from kern import Agent
from kern.errors import MissingKeyError, ModelRateLimitError, UsageError
from kern.messages import Message, ToolCall
from kern.models import resolve
from kern.models.base import ModelRequest, ResponseFormat, ToolDefinition
from kern.models.openai import OpenAIChat
from kern.models.servers import SERVERS, SETTINGS, ChatServer
from kern.testing import Answer, ModelServer, tool_call
from tests.models.replay import ReplayServer, Reply, Sink, sse

KEY = "key-of-this-test-0123456789"
ALL = pytest.mark.parametrize("name", SERVERS)
CALLING = pytest.mark.parametrize("name", [name for name, facts in SERVERS.items() if facts.tools])
ADD = ToolDefinition("add", "Add.", {"type": "object", "properties": {"n": {"type": "integer"}}}, strict=True)
VALUES: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.5,
    "max_output_tokens": 99,
    "stop": ["."],
    "seed": 7,
    "reasoning_effort": "low",
    "verbosity": "low",
    "store": False,
    "parallel_tool_calls": False,
}
OK = {"choices": [{"message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]}


@pytest.fixture
def client() -> str:
    """What is sent does not depend on the HTTP client: one will do."""
    return "any"


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for facts in SERVERS.values():
        for variable in (*facts.keys, facts.url_variable):
            monkeypatch.delenv(variable, raising=False)


def whole(answer: dict[str, Any] = OK, status: int = 200) -> Reply:
    return Reply([json.dumps(answer).encode()], status=status, content_type="application/json")


def chat(server: ReplayServer, name: str, **settings: Any) -> OpenAIChat:
    return OpenAIChat("m", server=name, base_url=server.url, api_key=KEY, max_retries=0, **settings)


async def body(server: ReplayServer, model: OpenAIChat, request: ModelRequest) -> Any:
    server.replies = [whole()]
    await model.respond(request, Sink())
    return server.asked[-1].body


@ALL
def test_a_model_string_asks_the_server_that_it_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = SERVERS[name]
    monkeypatch.setenv(facts.url_variable, facts.base_url or "https://mine.openai.azure.com")
    model = resolve(f"{'openai-chat' if name == 'openai' else name}:a/b:c")
    assert isinstance(model, OpenAIChat)
    assert (model.id, model.provider) == ("a/b:c", name)
    assert str(model._resolve_base_url()).startswith(("https://", "http://localhost:"))
    assert model.has_choice_none == ("none" in facts.tool_choices)


def test_a_misspelt_provider_is_told_which_was_meant() -> None:
    with pytest.raises(UsageError, match=r'did you mean "ollama:llama3.2"\? known: "'):
        resolve("olama:llama3.2")
    with pytest.raises(UsageError, match=r'did you mean "groq:x"'):
        resolve("Groq:x")
    with pytest.raises(UsageError, match=r"the server 'openruter' is unknown; did you mean 'openrouter'\?"):
        OpenAIChat("m", server="openruter")


@pytest.mark.parametrize("name", [name for name, facts in SERVERS.items() if facts.hosts])
def test_a_server_is_known_by_the_host_of_its_address(name: str) -> None:
    facts = SERVERS[name]
    url = (
        facts.base_url
        if facts.base_url and "localhost" not in facts.base_url
        else f"https://x.{facts.hosts[0]}/v1"
    )
    assert OpenAIChat("m", base_url=url).provider == name


def test_a_server_that_nobody_knows_is_asked_as_nearly_all_understand_it() -> None:
    model = OpenAIChat("m", base_url="http://localhost:9999/v1", max_output_tokens=5)
    sent = model._body(ModelRequest([Message("developer", "Be brief.")]))
    assert sent == {"model": "m", "max_tokens": 5, "messages": [{"role": "system", "content": "Be brief."}]}


@ALL
async def test_a_servers_key_is_its_own_and_goes_out_in_its_header(
    server: ReplayServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = SERVERS[name]
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    monkeypatch.setenv(facts.keys[-1], "k-of-the-server")
    model = OpenAIChat("m", server=name, base_url=server.url)
    server.replies = [whole()]
    await model.respond(ModelRequest([Message("user", "Hi")]), Sink())
    sent = server.asked[0].headers.get(facts.key_header)
    assert sent == ("Bearer " if facts.key_header == "authorization" else "") + "k-of-the-server"
    assert "sk-of-openai" not in str(server.asked[0].headers) or name == "openai"


@pytest.mark.parametrize("name", [name for name, facts in SERVERS.items() if facts.needs_key])
async def test_a_missing_key_is_told_with_its_variable_before_anything_is_sent(name: str) -> None:
    with pytest.raises(MissingKeyError, match=f"the environment variable {SERVERS[name].keys[0]}"):
        await OpenAIChat("m", server=name).respond(ModelRequest([Message("user", "Hi")]), Sink())


async def test_an_address_that_everybody_has_for_himself_is_asked_for(server: ReplayServer) -> None:
    with pytest.raises(UsageError, match="AZURE_OPENAI_ENDPOINT"):
        await resolve("azure:gpt").respond(ModelRequest([Message("user", "Hi")]), Sink())
    model = OpenAIChat("m", server="azure", base_url=server.url.removesuffix("/v1"), api_key="k")
    server.replies = [whole()]
    await model.respond(ModelRequest([Message("user", "Hi")]), Sink())
    assert server.asked[0].path == "/openai/v1/chat/completions"


@ALL
async def test_a_server_gets_the_settings_that_it_knows_under_its_own_names(
    server: ReplayServer, name: str
) -> None:
    facts = SERVERS[name]
    known = {setting: VALUES[setting] for setting in facts.settings}
    tools = [ADD] if facts.tools else []
    sent = await body(server, chat(server, name, **known), ModelRequest([Message("user", "Hi")], tools))
    for setting, value in known.items():
        outer, _, inner = facts.spelled.get(setting, setting).partition(".")
        assert sent[outer] == ({inner: value} if inner else value)
    for setting in SETTINGS - facts.settings - ({"parallel_tool_calls"} if not tools else set()):
        with pytest.raises(UsageError, match=f"does not support the setting '{setting}'"):
            await body(
                server,
                chat(server, name, **{setting: VALUES[setting]}),
                ModelRequest([Message("user", "Hi")], tools),
            )


@ALL
async def test_a_request_holds_nothing_that_its_server_refuses(server: ReplayServer, name: str) -> None:
    facts = SERVERS[name]
    call = ToolCall("call_0123456789", "add", '{"n": 1}')
    history = [
        Message("developer", "Be brief."),
        Message("user", "Hi", name="ann"),
        *([Message("assistant", tool_calls=[call])] if facts.tools else []),
        *([Message("tool", "1", tool_call_id=call.id)] if facts.tools else []),
    ]
    request = ModelRequest(
        history, [ADD] if facts.tools else [], {"name": "add"} if facts.tools else None, stream=True
    )
    sent = chat(server, name)._body(request)
    assert sent["messages"][0]["role"] == ("developer" if facts.developer_role else "system")
    assert ("name" in sent["messages"][1]) == facts.names
    assert ("stream_options" in sent) == facts.stream_usage
    if not facts.tools:
        with pytest.raises(UsageError, match="does not support tools"):
            chat(server, name)._body(ModelRequest(history, [ADD]))
        return
    assert ("strict" in sent["tools"][0]["function"]) == facts.strict
    forced = sent.get("tool_choice")
    if "named" in facts.tool_choices:
        assert forced["function"]["name"] == "add"
    else:
        assert forced == ("required" if "required" in facts.tool_choices else None)
    ids = {sent["messages"][2]["tool_calls"][0]["id"], sent["messages"][3]["tool_call_id"]}
    assert len(ids) == 1
    if facts.call_id is not None:
        assert len(ids.pop()) == facts.call_id


@pytest.mark.parametrize("stream", [False, True])
@CALLING
async def test_a_run_calls_tools_in_parallel_and_answers(name: str, stream: bool) -> None:
    async def add(n: int) -> int:
        """Add."""
        return n + 1

    calls = Answer(tool_calls=[tool_call("add", n=1), tool_call("add", n=2)])
    async with ModelServer([calls, "Three."]) as played:
        agent = Agent(model=OpenAIChat("m", server=name, base_url=played.base_url, api_key="k"), tools=[add])
        if stream:
            async with agent.arun("Go", stream=True) as events:
                text = "".join([event.content async for event in events])
            assert text == "Three."
            return
        output = await agent.arun("Go")
        assert (output.content, output.model_provider) == ("Three.", name)
        assert [tool.result for tool in output.tools] == ["2", "3"]


class City(BaseModel):
    name: str


@pytest.mark.parametrize("tools", [False, True])
@ALL
async def test_a_structured_answer_is_had_as_the_server_does_it_best(name: str, tools: bool) -> None:
    facts = SERVERS[name]
    if tools and not facts.tools:
        pytest.skip("it calls no tools")

    def find() -> str:
        """Find."""
        return "Lima"

    native = facts.structured_output == "native" and (not tools or facts.schema_beside_tools)
    answer = '{"name": "Lima"}' if native else Answer(tool_calls=[tool_call("final_answer", name="Lima")])
    async with ModelServer([answer, answer]) as played:
        model = OpenAIChat("m", server=name, base_url=played.base_url, api_key="k")
        agent = Agent(model=model, tools=[find] if tools else [], output_schema=City)
        assert (await agent.arun("Where?")).content == City(name="Lima")
        assert ("response_format" in played.requests[0].body) == native


@ALL
async def test_reasoning_goes_back_to_its_server_in_the_form_that_it_takes(
    server: ReplayServer, name: str
) -> None:
    facts = SERVERS[name]
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    said: dict[str, Any] = {"role": "assistant", "content": "So.", "tool_calls": [call]}
    if facts.reasoning == "thinking":
        thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
        said["content"] = [thought, {"type": "text", "text": "So."}]
    else:
        said[facts.reasoning if facts.reasoning not in (None, "told") else "reasoning"] = "Hm."
    server.replies = [whole({"choices": [{"message": said, "finish_reason": "tool_calls"}]})]
    model = chat(server, name)
    message = (await model.respond(ModelRequest([Message("user", "?")]), Sink())).message
    assert (message.reasoning_content, message.content) == ("Hm.", "So.")
    again = Message.from_dict(json.loads(json.dumps(message.to_dict())))
    history = [Message("user", "?"), again, Message("tool", "1", tool_call_id="abcdefghi")]
    back = chat(server, name)._body(ModelRequest(history))["messages"][1]
    expected = dict(said)
    if facts.reasoning is None:
        del expected["reasoning"]
    assert back == expected
    other = next(other for other in SERVERS if other != name)
    assert "Hm." not in str(OpenAIChat("another", server=other)._body(ModelRequest(history)))


@ALL
async def test_usage_counts_all_that_was_generated(server: ReplayServer, name: str) -> None:
    apart = SERVERS[name].reasoning_apart
    told = {
        "prompt_tokens": 10,
        "completion_tokens": 5 if apart else 9,
        "total_tokens": 19,
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    server.replies = [whole(OK | {"usage": told})]
    usage = (await chat(server, name).respond(ModelRequest([Message("user", "Hi")]), Sink())).usage
    assert (usage.input_tokens, usage.output_tokens, usage.reasoning_tokens) == (10, 9, 4)


@ALL
async def test_an_error_names_the_server_that_was_asked_and_holds_what_it_said(
    server: ReplayServer, name: str
) -> None:
    server.replies = [whole({"error": {"message": f"Slow down, {KEY}", "code": "busy"}}, status=429)]
    with pytest.raises(ModelRateLimitError) as caught:
        await chat(server, name).respond(ModelRequest([Message("user", "Hi")]), Sink())
    text = str(caught.value)
    assert text.startswith(f"{name}/m: HTTP 429: Slow down, ")
    assert KEY not in text
    assert text.endswith(f"(answered by 127.0.0.1:{server.port})")


async def test_what_the_provider_behind_a_router_said_is_told_without_keys(
    server: ReplayServer, sink: Sink
) -> None:
    metadata = {"provider_name": "Acme", "raw": {"detail": f"no credit on {KEY}", "status": 402}}
    error = {"error": {"message": "Provider returned error", "code": 402, "metadata": metadata}}
    server.replies = [whole(error, status=402)]
    with pytest.raises(Exception, match=r"Provider returned error \(Acme\): .*no credit on ") as caught:
        await chat(server, "openrouter").respond(ModelRequest([Message("user", "Hi")]), sink)
    assert KEY not in str(caught.value)


async def test_a_streamed_answer_is_shown_as_it_comes(server: ReplayServer, sink: Sink) -> None:
    server.replies = [
        Reply([sse({"choices": [{"delta": {"content": text}, "finish_reason": end}]})])
        for text, end in [("ok", "stop")]
    ]
    request = ModelRequest([Message("user", "Hi")], response_format=ResponseFormat("x", {}), stream=True)
    await chat(server, "groq").respond(request, sink)
    assert sink.text() == "ok"


def test_a_server_of_ones_own_is_described_by_its_facts() -> None:
    mine = ChatServer(
        name="mine", title="Mine", docs="https://mine.example", base_url="http://localhost:1/v1"
    )
    model = OpenAIChat("m", server=mine)
    assert (model.provider, str(model._resolve_base_url())) == ("mine", "http://localhost:1/v1")
