"""What chat servers want to see again, streamed and whole, and the pictures that they make."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kern.messages import Citation, Image, Message, TextPart
from kern.models.base import ModelRequest, ModelResponse
from kern.models.openai import OpenAIChat
from tests.models.replay import ReplayServer, Reply, Sink, sse

PNG = base64.b64encode(b"png").decode()
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
EXTRA = {"google": {"thought_signature": "AV"}}


async def whole(server: ReplayServer, sink: Sink, message: dict[str, Any]) -> ModelResponse:
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    server.replies = [Reply([json.dumps(body).encode()], content_type="application/json")]
    return await OpenAIChat("m", base_url=server.url).respond(ModelRequest([Message("user", "?")]), sink)


async def streamed(server: ReplayServer, sink: Sink, *deltas: dict[str, Any]) -> ModelResponse:
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    server.replies = [Reply([sse(*chunks, end), b"data: [DONE]\n\n"])]
    request = ModelRequest([Message("user", "?")], stream=True)
    return await OpenAIChat("m", base_url=server.url).respond(request, sink)


def again(answer: ModelResponse) -> dict[str, Any]:
    """The answer as it goes back."""
    message = Message.from_dict(json.loads(json.dumps(answer.message.to_dict())))
    body = OpenAIChat("m")._body(ModelRequest([Message("user", "?"), message]))
    said: dict[str, Any] = body["messages"][1]
    return said


def piece(text: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    detail = {"type": "reasoning.text", "text": text, "index": index, "format": "anthropic-claude-v1", **more}
    return {"content": "", "reasoning": text, "reasoning_details": [detail]}


async def test_streamed_reasoning_goes_back_with_its_signature(server: ReplayServer, sink: Sink) -> None:
    hidden = {"type": "reasoning.encrypted", "data": "xyz", "id": "r1", "index": 1}
    answer = await streamed(
        server,
        sink,
        piece("Let me "),
        piece("think."),
        piece(signature="sig"),
        {"reasoning_details": [hidden]},
        {"reasoning_details": [hidden]},
        piece("More.", 2),
        {"content": "Done"},
    )
    assert answer.message.reasoning_content == "Let me think.More."
    assert again(answer)["reasoning_details"] == [
        {
            "type": "reasoning.text",
            "text": "Let me think.",
            "index": 0,
            "format": "anthropic-claude-v1",
            "signature": "sig",
        },
        hidden,
        hidden,
        {"type": "reasoning.text", "text": "More.", "index": 2, "format": "anthropic-claude-v1"},
    ]


async def test_whole_reasoning_goes_back_as_it_came(server: ReplayServer, sink: Sink) -> None:
    details = [{"type": "reasoning.text", "text": text} for text in ("One.", "Two.")]
    answer = await whole(server, sink, {"content": "Done", "reasoning_details": details})
    assert again(answer)["reasoning_details"] == details


@pytest.mark.parametrize("stream", [False, True])
async def test_signatures_of_calls_and_of_messages_go_back(
    server: ReplayServer, sink: Sink, stream: bool
) -> None:
    calls = [{**CALL, "index": 0, "extra_content": EXTRA}, {**CALL, "id": "c2", "index": 1}]
    message = {"content": None, "tool_calls": calls, "extra_content": {"google": {"thought": True}}}
    answer = await (streamed(server, sink, message) if stream else whole(server, sink, message))
    said = again(answer)
    assert said["extra_content"] == {"google": {"thought": True}}
    assert [call.get("extra_content") for call in said["tool_calls"]] == [EXTRA, None]


async def test_pictures_of_an_answer_are_kept(server: ReplayServer, sink: Sink) -> None:
    images = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        {"type": "image_url", "image_url": {"url": "http://x.test/a.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,???"}},
        {"type": "image_url", "image_url": "x"},
        {"type": "image_url"},
    ]
    answer = await whole(server, sink, {"content": "", "images": images})
    assert answer.message.images == [
        Image(content=b"png", mime_type="image/png"),
        Image(url="http://x.test/a.png"),
    ]


@pytest.mark.parametrize("odd", [3, "x", [3, None], {}, [{"type": ["x"]}], [{"type": "reasoning.text"}]])
@pytest.mark.parametrize("name", ["reasoning_details", "extra_content", "images"])
@pytest.mark.parametrize("stream", [False, True])
async def test_odd_values_do_no_harm(
    server: ReplayServer, sink: Sink, odd: Any, name: str, stream: bool
) -> None:
    message = {"content": "Done", name: odd, "tool_calls": [{**CALL, name: odd}]}
    answer = await (streamed(server, sink, message) if stream else whole(server, sink, message))
    assert answer.message.content == "Done"
    again(answer)


async def test_pieces_of_arguments_are_told_as_they_come(server: ReplayServer) -> None:
    told: list[tuple[str, str, str]] = []

    class Told(Sink):
        def tool_arguments(self, call_id: str, name: str, delta: str) -> None:
            told.append((call_id, name, delta))

    pieces = [{"index": 0, "id": "c1", "function": {"name": "find", "arguments": ""}}]
    pieces += [{"index": 0, "function": {"arguments": text}} for text in ('{"a', '": 1}')]
    answer = await streamed(server, Told(), *({"tool_calls": [piece]} for piece in pieces))
    assert told == [("c1", "find", '{"a'), ("c1", "find", '": 1}')]
    assert answer.message.tool_calls[0].arguments == '{"a": 1}'


@pytest.mark.parametrize("stream", [False, True])
async def test_pages_that_are_cited_are_citations_of_the_text(server: ReplayServer, stream: bool) -> None:
    cited: list[Citation] = []

    class Cited(Sink):
        def citation(self, citation: Citation) -> None:
            cited.append(citation)

    page = {"url": "https://x.test", "title": "X", "start_index": 0, "end_index": 4}
    message = {"content": "Ruby it is.", "annotations": [{"type": "url_citation", "url_citation": page}, 3]}
    answer = await (streamed(server, Cited(), message) if stream else whole(server, Cited(), message))
    (text,) = answer.message.parts
    assert isinstance(text, TextPart)
    assert text.citations == [Citation(url="https://x.test", title="X", start=0, end=4)]
    assert cited == (text.citations if stream else [])


async def test_pages_named_beside_the_answer_are_its_citations(server: ReplayServer, sink: Sink) -> None:
    choice = {"index": 0, "message": {"content": "Ruby."}, "finish_reason": "stop"}
    for named in (
        {"citations": ["https://x.test", 3]},
        {"search_results": [{"url": "https://x.test", "title": None}], "citations": ["https://y.test"]},
    ):
        body = json.dumps({"choices": [choice], **named}).encode()
        server.replies = [Reply([body], content_type="application/json")]
        model = OpenAIChat("m", base_url=server.url)
        answer = await model.respond(ModelRequest([Message("user", "?")]), sink)
        (text,) = answer.message.parts
        assert isinstance(text, TextPart)
        assert text.citations == [Citation(url="https://x.test")]


async def test_the_answer_says_who_gave_it_and_under_which_id(server: ReplayServer, sink: Sink) -> None:
    choice = {"index": 0, "message": {"content": "Ruby."}, "finish_reason": "eos"}
    body = {"id": "c-1", "model": "m-2026", "choices": [choice]}
    server.replies = [Reply([json.dumps(body).encode()], content_type="application/json")]
    model = OpenAIChat("m", base_url=server.url)
    answer = await model.respond(ModelRequest([Message("user", "?")]), sink)
    assert (answer.response_id, answer.model) == ("c-1", "m-2026")
    assert (answer.finish_reason, answer.provider_finish_reason) == ("stop", "eos")
    assert {part.origin for part in answer.message.parts} == {("openai", "m")}
