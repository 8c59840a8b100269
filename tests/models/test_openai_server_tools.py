"""Tools that OpenAI runs: in the request, as parts of the answer, in the stream, and on their way back."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kern import UsageError
from kern.messages import Citation, Image, Message, ProviderCall, TextPart
from kern.models.base import ModelRequest, ModelResponse, ToolDefinition
from kern.models.openai import (
    CodeInterpreter,
    FileSearch,
    ImageGeneration,
    OpenAIResponses,
    RemoteMCP,
    WebSearch,
)
from tests.models.replay import ReplayServer, Reply, Sink, sse

ASK = Message("user", "Hi")
ADD = ToolDefinition("add", "Add.", {"type": "object", "properties": {}})
BOTH = pytest.mark.parametrize("stream", [False, True])
SEARCH: dict[str, Any] = {
    "id": "ws_1",
    "type": "web_search_call",
    "status": "completed",
    "action": {"type": "search", "query": "ruby"},
}
CODE: dict[str, Any] = {
    "id": "ci_1",
    "type": "code_interpreter_call",
    "status": "completed",
    "code": "print(1)",
    "container_id": "cntr_1",
    "outputs": [{"type": "logs", "logs": "1\n"}],
}
MCP: dict[str, Any] = {
    "id": "mcp_1",
    "type": "mcp_call",
    "status": "failed",
    "name": "find",
    "server_label": "calendar",
    "arguments": '{"day": 1}',
    "output": None,
    "error": {"code": 500, "message": "no"},
}
PICTURE: dict[str, Any] = {
    "id": "ig_1",
    "type": "image_generation_call",
    "status": "completed",
    "output_format": "webp",
    "revised_prompt": "a cat",
    "result": base64.b64encode(b"webp").decode(),
}
PLACE = {"start_index": 1, "end_index": 2}
ANNOTATIONS: list[dict[str, Any]] = [
    {"type": "url_citation", "url": "https://x.test", "title": "X", "start_index": 0, "end_index": 4},
    {"type": "file_citation", "file_id": "file_1", "filename": "a.txt", "index": 9},
    {
        "type": "container_file_citation",
        "container_id": "c",
        "file_id": "f",
        "start_index": 1,
        "end_index": 2,
    },
    {"type": "file_path"},
    {"type": "url_citation", "url": "https://y.test", "start_index": "1"},
]


def said(text: str, annotations: list[Any] | None = None) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": annotations or []}]
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}


def reply(*items: dict[str, Any], stream: bool) -> Reply:
    answer = {"id": "resp_1", "model": "gpt-5.2-2025-12-11", "status": "completed", "output": list(items)}
    if not stream:
        return Reply([json.dumps(answer).encode()], content_type="application/json")
    events: list[dict[str, Any]] = []
    for index, item in enumerate(items):
        begun = {**item, "status": "in_progress", "content": []} if item["type"] == "message" else item
        events += [
            {"type": "response.output_item.added", "output_index": index, "item": begun},
            {"type": "response.output_item.done", "output_index": index, "item": item},
        ]
    return Reply([sse(*events, {"type": "response.completed", "response": answer})])


class PartSink(Sink):
    """Notes the provider's calls and citations, too."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[ProviderCall] = []
        self.citations: list[Citation] = []

    def provider_call(self, call: ProviderCall) -> None:
        self.calls.append(call)

    def citation(self, citation: Citation) -> None:
        self.citations.append(citation)


async def answered(
    server: ReplayServer, *items: dict[str, Any], stream: bool, sink: Sink | None = None
) -> ModelResponse:
    server.replies = [reply(*items, stream=stream)]
    model = OpenAIResponses("gpt-5.2", base_url=server.url)
    return await model.respond(ModelRequest([ASK], stream=stream), sink or Sink())


def again(message: Message, model: str = "gpt-5.2") -> list[dict[str, Any]]:
    stored = Message.from_dict(json.loads(json.dumps(message.to_dict())))
    body = OpenAIResponses(model)._body(ModelRequest([ASK, stored]))
    items: list[dict[str, Any]] = body["input"]
    return items[1:]


def test_they_stand_beside_the_agents_own_tools_in_the_request() -> None:
    tools = [
        WebSearch(allowed_domains=["python.org"], user_location={"country": "DE"}, search_context_size="low"),
        FileSearch(vector_store_ids=["vs_1"], max_num_results=3),
        CodeInterpreter(file_ids=("file_1",), memory_limit="4g"),
        ImageGeneration(size="1024x1024", output_format="webp"),
        RemoteMCP(server_label="calendar", server_url="https://x.test/mcp", allowed_tools=["find"]),
    ]
    request = ModelRequest([ASK], tools=[ADD], server_tools=tools, tool_choice={"name": "calendar"})
    body = OpenAIResponses("gpt-5.2")._body(request)
    assert [tool.get("name", tool["type"]) for tool in body["tools"]] == [
        "add",
        "web_search",
        "file_search",
        "code_interpreter",
        "image_generation",
        "mcp",
    ]
    assert body["tools"][1:] == [
        {
            "type": "web_search",
            "search_context_size": "low",
            "user_location": {"type": "approximate", "country": "DE"},
            "filters": {"allowed_domains": ["python.org"]},
        },
        {"type": "file_search", "vector_store_ids": ["vs_1"], "max_num_results": 3},
        {
            "type": "code_interpreter",
            "container": {"type": "auto", "file_ids": ["file_1"], "memory_limit": "4g"},
        },
        {"type": "image_generation", "size": "1024x1024", "output_format": "webp"},
        {
            "type": "mcp",
            "server_label": "calendar",
            "server_url": "https://x.test/mcp",
            "allowed_tools": ["find"],
            "require_approval": "never",
        },
    ]
    assert body["tool_choice"] == {"type": "mcp", "server_label": "calendar"}
    assert body["include"] == [
        "code_interpreter_call.outputs",
        "file_search_call.results",
        "web_search_call.action.sources",
        "reasoning.encrypted_content",
    ]


def test_a_container_of_ones_own_is_named_and_secrets_are_not_shown() -> None:
    assert CodeInterpreter(container="cntr_1").definition()["container"] == "cntr_1"
    assert WebSearch().choice() == {"type": "web_search"}
    server = RemoteMCP(
        server_label="a", server_url="https://x", authorization="s3cret", headers={"k": "s3cret"}
    )
    assert "s3cret" not in repr(server)
    assert server.definition()["authorization"] == "s3cret"
    with pytest.raises(UsageError, match="server_url and connector_id"):
        RemoteMCP(server_label="a")


@BOTH
async def test_their_calls_are_parts_in_their_places(server: ReplayServer, stream: bool) -> None:
    answer = await answered(server, SEARCH, CODE, MCP, said("Ruby it is."), stream=stream)
    search, code, mcp, text = answer.message.parts
    assert isinstance(search, ProviderCall)
    assert (search.name, json.loads(search.arguments)["action"]["query"]) == ("web_search", "ruby")
    assert isinstance(code, ProviderCall)
    assert (code.name, code.result, code.status) == ("code_interpreter", CODE["outputs"], "completed")
    assert isinstance(mcp, ProviderCall)
    assert (mcp.name, mcp.arguments, mcp.status) == ("find", '{"day": 1}', "failed")
    assert mcp.result == MCP["error"]
    assert isinstance(text, TextPart)
    assert answer.message.content == "Ruby it is."
    assert {part.origin for part in answer.message.parts} == {("openai", "gpt-5.2")}


@BOTH
async def test_they_go_back_to_their_model_as_they_came_and_to_no_other(
    server: ReplayServer, stream: bool
) -> None:
    answer = await answered(server, SEARCH, CODE, MCP, said("Ruby it is."), stream=stream)
    assert again(answer.message) == [SEARCH, CODE, MCP, said("Ruby it is.")]
    (plain,) = again(answer.message, "gpt-5")
    assert (plain["content"][0]["text"], "id" in plain) == ("Ruby it is.", False)


@BOTH
async def test_a_sink_is_told_when_they_begin_and_when_they_have_ended(
    server: ReplayServer, stream: bool
) -> None:
    sink = PartSink()
    await answered(server, SEARCH, MCP, said("Done.", ANNOTATIONS), stream=stream, sink=sink)
    if not stream:
        assert (sink.calls, sink.citations) == ([], [])
        return
    assert [(call.id, call.status) for call in sink.calls] == [
        ("ws_1", "running"),
        ("ws_1", "completed"),
        ("mcp_1", "running"),
        ("mcp_1", "failed"),
    ]
    assert [citation.url or citation.file_id for citation in sink.citations] == [
        "https://x.test",
        "file_1",
        "f",
        "https://y.test",
    ]


@BOTH
async def test_citations_say_where_words_come_from(server: ReplayServer, stream: bool) -> None:
    answer = await answered(server, said("Ruby it is.", ANNOTATIONS), stream=stream)
    (text,) = answer.message.parts
    assert isinstance(text, TextPart)
    assert text.citations == [
        Citation(url="https://x.test", title="X", start=0, end=4),
        Citation(file_id="file_1", title="a.txt", start=9, end=9),
        Citation(file_id="f", start=1, end=2, provider_data={"container_id": "c"}),
        Citation(url="https://y.test"),
    ]


@BOTH
async def test_a_picture_that_the_model_made_is_a_part_and_is_mentioned_later(
    server: ReplayServer, stream: bool
) -> None:
    answer = await answered(server, PICTURE, said("A cat."), stream=stream)
    assert answer.message.images == [Image(content=b"webp", mime_type="image/webp")]
    assert [item["content"][0]["text"] for item in again(answer.message)] == [
        "[image, made with image_generation: a cat]",
        "A cat.",
    ]
    assert "d2VicA==" in json.dumps(again(answer.message, "gpt-5"))  # another model has not seen it


async def test_the_response_says_who_answered_and_under_which_id(server: ReplayServer) -> None:
    answer = await answered(server, said("Hi"), stream=False)
    assert (answer.response_id, answer.model) == ("resp_1", "gpt-5.2-2025-12-11")
    assert (answer.finish_reason, answer.provider_finish_reason) == ("stop", "completed")


# previous_response_id


async def test_with_previous_responses_only_what_is_new_is_sent(server: ReplayServer) -> None:
    model = OpenAIResponses("gpt-5.2", base_url=server.url, store=True, use_previous_response=True)
    server.replies = [reply(said("One."), stream=False), reply(said("Two."), stream=False)]
    opening = [Message("system", "Be kind."), ASK]
    first = (await model.respond(ModelRequest(opening), Sink())).message
    first = Message.from_dict(json.loads(json.dumps(first.to_dict())))
    await model.respond(ModelRequest([*opening, first, Message("user", "And?")]), Sink())
    assert "previous_response_id" not in server.asked[0].body
    sent = server.asked[1].body
    assert (sent["previous_response_id"], sent["instructions"]) == ("resp_1", "Be kind.")
    assert sent["input"] == [{"role": "user", "content": "And?"}]
    other = OpenAIResponses("gpt-5", store=True, use_previous_response=True)
    assert len(other._body(ModelRequest([*opening, first, ASK]))["input"]) == 3
    changed = other._body(ModelRequest([*opening, first.plain(), ASK]))
    assert "previous_response_id" not in changed


async def test_a_response_that_is_gone_is_sent_whole(server: ReplayServer) -> None:
    model = OpenAIResponses("gpt-5.2", base_url=server.url, store=True, use_previous_response=True)
    error = {"error": {"code": "previous_response_not_found", "message": "Previous response not found."}}
    gone = Reply([json.dumps(error).encode()], status=400, content_type="application/json")
    server.replies = [reply(said("One."), stream=False), gone, reply(said("Two."), stream=False)]
    first = (await model.respond(ModelRequest([ASK]), Sink())).message
    answer = await model.respond(ModelRequest([ASK, first, Message("user", "And?")]), Sink())
    assert answer.message.content == "Two."
    assert [len(asked.body["input"]) for asked in server.asked] == [1, 1, 3]


def test_previous_responses_need_the_store() -> None:
    with pytest.raises(UsageError, match="store=True"):
        OpenAIResponses("gpt-5.2", use_previous_response=True)
