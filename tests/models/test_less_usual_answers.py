"""Answers in shapes that services send rarely: seen in recordings of other projects, written here by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kern.errors import ModelAuthError, ModelBehaviorError, ModelStreamError
from kern.messages import Message, ProviderCall, TextPart
from kern.models.anthropic import AnthropicMessages
from kern.models.base import ModelRequest, ToolDefinition
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.models.prices import cost_of
from kern.usage import Price
from tests.logs import kern_messages
from tests.models.replay import ReplayServer, Reply, Sink, sse

ASK = ModelRequest([Message("user", "?")])
STREAMED = ModelRequest([Message("user", "?")], stream=True)
USAGE = {"prompt_tokens": 57, "completion_tokens": 17, "total_tokens": 74}


def again(message: Message) -> Message:
    """The message as it comes out of a database."""
    return Message.from_dict(json.loads(json.dumps(message.to_dict())))


def chunk(**delta: Any) -> dict[str, Any]:
    return {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


async def asked(server: ReplayServer, sink: Sink, body: bytes, name: str = "openrouter") -> Message:
    server.replies = [Reply([body])]
    model = OpenAIChat("m", server=name, base_url=server.url, api_key="any", max_retries=0)
    return (await model.respond(STREAMED, sink)).message


async def test_a_stream_with_usage_and_mark_needs_no_finish_reason(server: ReplayServer, sink: Sink) -> None:
    """OpenRouter passes on what Novita sends for Kimi K2 (recorded by simonw/llm)."""
    call = {"index": 0, "id": "0", "type": "function", "function": {"name": "version", "arguments": "{}"}}
    body = sse(chunk(content=None, tool_calls=[call]), {**chunk(content=""), "usage": USAGE}, "[DONE]")
    message = await asked(server, sink, body)
    assert [(call.id, call.name, call.arguments) for call in message.tool_calls] == [("0", "version", "{}")]


@pytest.mark.parametrize("lacks", ["usage", "mark", "arguments"])
async def test_without_any_of_these_it_broke_off(server: ReplayServer, sink: Sink, lacks: str) -> None:
    arguments = '{"city": "Ber' if lacks == "arguments" else "{}"
    call = {"index": 0, "id": "0", "function": {"name": "version", "arguments": arguments}}
    last = chunk(content="") if lacks == "usage" else {**chunk(content=""), "usage": USAGE}
    body = sse(chunk(tool_calls=[call]), last, *([] if lacks == "mark" else ["[DONE]"]))
    with pytest.raises(ModelStreamError, match="has no finish reason"):
        await asked(server, sink, body)


@pytest.mark.parametrize("reason", [{}, {"finish_reason": None}, {"finish_reason": ""}])
async def test_a_whole_answer_with_usage_needs_no_finish_reason(
    server: ReplayServer, sink: Sink, reason: dict[str, Any]
) -> None:
    """OpenRouter passes on what Nebius sends for DeepSeek R1 (recorded by crewAI)."""
    said = {"index": 0, "message": {"role": "assistant", "content": "Paris."}, **reason}
    body = json.dumps({"id": "g1", "choices": [said], "usage": USAGE}).encode()
    server.replies = [Reply([body], content_type="application/json")]
    answer = await OpenAIChat("m", base_url=server.url, max_retries=0).respond(ASK, sink)
    assert (answer.message.content, answer.finish_reason) == ("Paris.", "stop")


async def test_the_end_of_text_generation_inference_is_an_end(server: ReplayServer, sink: Sink) -> None:
    """Its older versions end an answer with "eos_token" (recorded by semantic-kernel)."""
    end = {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "eos_token"}]}
    assert (await asked(server, sink, sse(chunk(content="Hi"), end), "huggingface")).content == "Hi"


async def test_a_stream_names_its_id_and_model_in_any_chunk(server: ReplayServer, sink: Sink) -> None:
    """Azure's first chunk has the results of the filters, and neither an id nor a model."""
    filtered = {"id": "", "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    end = {"id": "c1", "model": "m-2", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    server.replies = [Reply([sse(filtered, {**chunk(content="Hi"), "model": "m-2"}, end, "[DONE]")])]
    model = OpenAIChat("deployed", server="azure", base_url=server.url, api_key="any", max_retries=0)
    answer = await model.respond(STREAMED, sink)
    assert (answer.response_id, answer.model) == ("c1", "m-2")


@pytest.mark.parametrize("name", ["openai", "mistral", "vllm", "xai"])
@pytest.mark.parametrize(
    ("told", "counts"),
    [
        ({"completion_tokens_details": {"reasoning_tokens": 30}}, (57, 47, 104, 30)),
        ({"prompt_tokens_details": {"audio_tokens": 30}}, (87, 17, 104, 0)),
    ],
)
async def test_what_the_total_counts_beside_its_parts_is_part_of_one_of_them(
    server: ReplayServer, sink: Sink, name: str, told: dict[str, Any], counts: tuple[int, ...]
) -> None:
    """xAI counts reasoning apart from the completion, and Mistral audio apart from the prompt."""
    usage = {**USAGE, **told, "total_tokens": 104}
    end = {**chunk(), "usage": usage, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    spent = (await asked(server, sink, sse(chunk(content="Hi"), end), name)).usage
    assert spent is not None
    assert (spent.input_tokens, spent.output_tokens, spent.total_tokens, spent.reasoning_tokens) == counts


async def test_a_source_without_an_address_keeps_its_number(server: ReplayServer, sink: Sink) -> None:
    """Perplexity's texts cite by number; a document of the request is a source without an address."""
    web, attached = (
        {"url": "https://a.test", "title": "A"},
        {"url": "", "title": "a.docx", "snippet": "Lantern"},
    )
    end = {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    sources = {
        "search_results": [attached, web, {"url": ""}],
        "citations": ["https://a.test"],
        "usage": USAGE,
    }
    message = await asked(
        server, sink, sse(chunk(content="Lantern [1], A [2]"), {**end, **sources}), "perplexity"
    )
    cited = [
        (found.url, found.title, found.text)
        for part in message.parts
        if isinstance(part, TextPart)
        for found in part.citations
    ]
    assert cited == [(None, "a.docx", "Lantern"), ("https://a.test", "A", None)]


async def test_a_field_error_of_a_stream_is_its_error(server: ReplayServer, sink: Sink) -> None:
    """As in older builds of llama.cpp (`server_sent_event(sink, "error", ...)`), and GPUStack."""
    body = sse(chunk(content="Hi")) + b'error: {"error": {"message": "failed to decode, try again"}}\n\n'
    with pytest.raises(ModelStreamError, match="failed to decode, try again"):
        await asked(server, sink, body, "llamacpp")


async def test_the_text_of_a_parsed_document_goes_back_to_openrouter_alone(
    server: ReplayServer, sink: Sink
) -> None:
    """https://openrouter.ai/docs/features/multimodal/pdfs: who sends it back does not pay for it again."""
    parsed = {"hash": "a1", "name": "a.pdf", "content": [{"type": "text", "text": "# A"}]}
    annotation = {"type": "file", "file": parsed}
    body = sse(
        chunk(content="A"),
        chunk(annotations=[annotation]),
        {"choices": [{"index": 0, "delta": {"annotations": [annotation]}, "finish_reason": "stop"}]},
        "[DONE]",
    )
    message = again(await asked(server, sink, body))
    assert message.content == "A"
    request = ModelRequest([Message("user", "?"), message, Message("user", "And?")])
    models = [
        OpenAIChat(name, server=other, base_url=server.url)
        for name, other in (("m", "openrouter"), ("other", "openrouter"), ("m", "groq"))
    ]
    kept = [model._body(request)["messages"][1].get("annotations") for model in models]
    assert kept == [[annotation], None, None]


SUMMARY = {"type": "compaction", "content": "The user has said hello."}
COMPACTED = {
    "input_tokens": 181,
    "output_tokens": 8,
    "iterations": [
        {"type": "compaction", "input_tokens": 100, "output_tokens": 83, "cache_read_input_tokens": 55096},
        {"type": "message", "input_tokens": 181, "output_tokens": 8},
    ],
}
"""https://platform.claude.com/docs/en/build-with-claude/compaction: the sums are without the compaction."""


def claude_events(*blocks: dict[str, Any], usage: dict[str, Any], model: str = "m") -> bytes:
    """An answer as a stream, each block whole at its start."""
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"model": model, "content": [], "usage": {"input_tokens": 1}}}
    ]
    for index, block in enumerate(blocks):
        text, start = block.get("text"), dict(block)
        if text is not None:
            start["text"] = ""
        if block["type"] == "compaction":
            start["content"] = None
        events.append({"type": "content_block_start", "index": index, "content_block": start})
        deltas = {"text_delta": ("text", text), "compaction_delta": ("content", block.get("content"))}
        events += [
            {"type": "content_block_delta", "index": index, "delta": {"type": kind, name: said}}
            for kind, (name, said) in deltas.items()
            if said is not None and kind.startswith(block["type"])
        ]
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage})
    return sse(*events, {"type": "message_stop"})


def claude_whole(*blocks: dict[str, Any], usage: dict[str, Any], model: str = "m") -> bytes:
    said = {"type": "message", "model": model, "content": blocks, "stop_reason": "end_turn", "usage": usage}
    return json.dumps(said).encode()


@pytest.mark.parametrize("streamed", [True, False])
async def test_claude_s_compaction_goes_back_and_is_paid_for(
    server: ReplayServer, sink: Sink, caplog: pytest.LogCaptureFixture, streamed: bool
) -> None:
    made = claude_events if streamed else claude_whole
    body = made(SUMMARY, {"type": "text", "text": "Hello!"}, usage=COMPACTED)
    kind = "text/event-stream" if streamed else "application/json"
    server.replies = [Reply([body], content_type=kind)]
    model = AnthropicMessages("m", base_url=server.url, api_key="any", max_retries=0)
    answer = await model.respond(STREAMED if streamed else ASK, sink)
    usage = answer.usage
    assert (usage.input_tokens, usage.cached_tokens, usage.output_tokens) == (181 + 100 + 55096, 55096, 91)
    assert (usage.total_tokens, usage.billed) == (181 + 100 + 55096 + 91, None)
    assert kern_messages(caplog) == []
    message = again(answer.message)
    assert (message.content, message.provider_calls, message.reasoning_content) == ("Hello!", [], None)
    request = ModelRequest([Message("user", "?"), message, Message("user", "And?")])
    turns = model._payload(request, model._resolve_base_url())["messages"]
    assert turns[1]["content"] == [SUMMARY, {"type": "text", "text": "Hello!"}]
    other = OpenAIChat("m", base_url=server.url, api_key="any")
    assert "said hello" not in json.dumps(other._body(request))


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_answer_in_which_another_model_took_part_has_an_unknown_cost(
    server: ReplayServer, sink: Sink, caplog: pytest.LogCaptureFixture, streamed: bool
) -> None:
    """Anthropic's fallbacks and advisor, as its SDK types them: `usage.iterations[].model`."""
    iterations = [
        {"type": "message", "model": "fable", "input_tokens": 408, "output_tokens": 0},
        {"type": "fallback_message", "model": "opus", "input_tokens": 412, "output_tokens": 264},
    ]
    usage = {"input_tokens": 412, "output_tokens": 264, "iterations": iterations}
    mark = {"type": "fallback", "from": {"model": "fable"}, "to": {"model": "opus"}}
    made = claude_events if streamed else claude_whole
    body = made(mark, {"type": "text", "text": "Gutenberg."}, usage=usage, model="opus")
    kind = "text/event-stream" if streamed else "application/json"
    server.replies = [Reply([body], content_type=kind)]
    model = AnthropicMessages("fable", base_url=server.url, api_key="any", price=Price(input=1, output=1))
    answer = await model.respond(STREAMED if streamed else ASK, sink)
    assert (answer.message.content, answer.model) == ("Gutenberg.", "opus")
    assert [type(part) for part in answer.message.parts] == [TextPart]
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (412, 264)
    assert answer.usage.billed == {"answers_of_other_models": 1}
    assert cost_of(model, answer.usage, answer.model) is None
    assert kern_messages(caplog) == []


class PartsSink(Sink):
    """Also writes down calls and arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, str, str]] = []
        self.arguments: list[tuple[str, str, str]] = []

    def provider_call(self, call: ProviderCall) -> None:
        self.calls.append((call.id, call.name, call.status))

    def tool_arguments(self, call_id: str, name: str, delta: str) -> None:
        self.arguments.append((call_id, name, delta))


SAID = {"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "Done."}]}
REASONED = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "secret"}
SHELL = {
    "type": "shell_call",
    "id": "sh_1",
    "call_id": "call_1",
    "status": "completed",
    "action": {"commands": ["uname"], "max_output_length": None, "timeout_ms": None},
    "environment": {"type": "container_reference", "container_id": "cntr_1"},
}
PRINTED = {
    "type": "shell_call_output",
    "id": "sho_1",
    "call_id": "call_1",
    "status": "completed",
    "output": [{"outcome": {"type": "exit", "exit_code": 0}, "stderr": "", "stdout": "Linux\n"}],
}
IN_X = {
    "type": "custom_tool_call",
    "id": "ctc_1",
    "call_id": "xs_call_1",
    "name": "x_keyword_search",
    "input": '{"query": "from:xai"}',
    "status": "completed",
}
SEARCHED = {
    "type": "x_search_call",
    "id": "fc_1",
    "call_id": "",
    "name": "x_semantic_search",
    "arguments": '{"query": "AI"}',
    "status": "completed",
}
RAN = {
    "type": "code_interpreter_call",
    "id": "fc_2",
    "call_id": "",
    "name": "code_execution",
    "arguments": '{"code": "print(1)"}',
    "status": "completed",
}


def response_events(*items: dict[str, Any]) -> bytes:
    events: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        begun = {**item, "status": "in_progress"}
        events.append({"type": "response.output_item.added", "output_index": index, "item": begun})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    final = {"id": "resp_1", "status": "completed", "output": list(items)}
    return sse(*events, {"type": "response.completed", "response": final})


async def responded(server: ReplayServer, sink: Sink, *items: dict[str, Any]) -> Message:
    server.replies = [Reply([response_events(*items)])]
    model = OpenAIResponses("m", base_url=server.url, api_key="any", max_retries=0)
    return again((await model.respond(STREAMED, sink)).message)


async def test_what_openai_s_shell_did_in_its_container_is_the_provider_s_call(
    server: ReplayServer, caplog: pytest.LogCaptureFixture
) -> None:
    """https://platform.openai.com/docs/guides/tools-shell: the hosted shell, in a container."""
    sink = PartsSink()
    message = await responded(server, sink, REASONED, SHELL, PRINTED, SAID)
    ran, printed = message.provider_calls
    assert (ran.name, json.loads(ran.arguments), ran.status) == (
        "shell",
        {"action": SHELL["action"]},
        "completed",
    )
    assert (printed.result, printed.status) == (PRINTED["output"], "completed")
    assert [(name, status) for _, name, status in sink.calls] == [
        ("shell", "running"),
        ("shell", "completed"),
        ("shell_call_output", "running"),
        ("shell_call_output", "completed"),
    ]
    assert kern_messages(caplog) == []
    model = OpenAIResponses("m", base_url=server.url, api_key="any")
    sent = model._body(ModelRequest([Message("user", "?"), message, Message("user", "And?")]))["input"]
    assert [item for item in sent if item.get("type", "").startswith("shell")] == [SHELL, PRINTED]


async def test_a_shell_of_the_application_is_no_call_of_the_provider_s(
    server: ReplayServer, sink: Sink
) -> None:
    with pytest.raises(ModelBehaviorError, match="shell_call"):
        await responded(server, sink, {**SHELL, "environment": {"type": "local"}})


async def test_what_xai_searched_and_ran_is_the_provider_s_call(
    server: ReplayServer, caplog: pytest.LogCaptureFixture
) -> None:
    """As recorded by vercel/ai: xAI names its tools in the items, with the arguments as a text."""
    sink = PartsSink()
    message = await responded(server, sink, IN_X, SEARCHED, RAN, SAID)
    told = [(call.name, json.loads(call.arguments), call.status) for call in message.provider_calls]
    assert told == [
        ("x_keyword_search", {"query": "from:xai"}, "completed"),
        ("x_semantic_search", {"query": "AI"}, "completed"),
        ("code_interpreter", {"code": "print(1)"}, "completed"),
    ]
    assert [status for _, _, status in sink.calls] == ["running", "completed"] * 3
    assert kern_messages(caplog) == []
    model = OpenAIResponses("m", base_url=server.url, api_key="any")
    sent = model._body(ModelRequest([Message("user", "?"), message, Message("user", "And?")]))["input"]
    assert not any(item.get("type") in ("custom_tool_call", "x_search_call") for item in sent)


async def test_a_custom_tool_that_waits_for_the_application_is_no_answer(
    server: ReplayServer, sink: Sink
) -> None:
    with pytest.raises(ModelBehaviorError, match="custom_tool_call"):
        await responded(server, sink, {**IN_X, "call_id": "call_1", "name": "sql"})


async def test_a_compaction_is_told_to_nobody_as_a_call(server: ReplayServer) -> None:
    sink = PartsSink()
    compaction = {"type": "compaction", "id": "cmp_1", "encrypted_content": "secret"}
    message = await responded(server, sink, compaction, SAID)
    assert (sink.calls, message.provider_calls) == ([], [])
    model = OpenAIResponses("m", base_url=server.url, api_key="any")
    sent = model._body(ModelRequest([Message("user", "?"), message, Message("user", "And?")]))["input"]
    assert compaction in sent


async def test_arguments_that_come_with_their_item_alone_are_told(server: ReplayServer) -> None:
    """LM Studio's Responses, as recorded by vercel/ai: no event of arguments."""
    sink = PartsSink()
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f", "arguments": "{}"}
    message = await responded(server, sink, {**call, "arguments": '{"a": 1}'})
    assert sink.arguments == [("call_1", "f", '{"a": 1}')]
    assert [made.arguments for made in message.tool_calls] == ['{"a": 1}']


async def test_a_model_that_cannot_be_forced_to_call_is_asked_again_with_a_free_choice(
    server: ReplayServer, sink: Sink
) -> None:
    """As Claude Fable and Mythos, by the profiles of pydantic-ai."""
    refused = {"type": "invalid_request_error", "message": "tool_choice: forced tool use is not supported."}
    server.replies = [
        Reply(
            [json.dumps({"type": "error", "error": refused}).encode()],
            status=400,
            content_type="application/json",
        ),
        Reply([claude_whole({"type": "text", "text": "Hi"}, usage={})], content_type="application/json"),
    ]
    model = AnthropicMessages("claude-fable-5", base_url=server.url, api_key="any", max_retries=0)
    tool = ToolDefinition("add", "", {"type": "object"})
    asked = ModelRequest([Message("user", "?")], tools=[tool], tool_choice="required")
    assert (await model.respond(asked, sink)).message.content == "Hi"
    assert [request.body["tool_choice"] for request in server.asked] == [{"type": "any"}, {"type": "auto"}]


@pytest.mark.parametrize("kind", [OpenAIChat, OpenAIResponses])
async def test_a_wrong_key_at_xai_is_a_wrong_key(server: ReplayServer, sink: Sink, kind: Any) -> None:
    """It answers with status 400, as recorded by rig."""
    said = {"code": "invalid-argument", "error": "Incorrect API key provided. You can obtain one at x.ai."}
    server.replies = [Reply([json.dumps(said).encode()], status=400, content_type="application/json")]
    model = kind("grok-4", base_url=server.url, api_key="any", max_retries=0)
    with pytest.raises(ModelAuthError, match="Incorrect API key"):
        await model.respond(ASK, sink)
