"""Answers of the Gemini API, written by hand from its documentation, and what Kern makes of them.

Sources: https://ai.google.dev/api/generate-content, https://ai.google.dev/gemini-api/docs/thought-signatures,
.../code-execution, .../google-search, .../url-context, .../tool-combination, .../image-generation.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kern.errors import (
    ModelBehaviorError,
    ModelError,
    ModelIncompleteError,
    ModelServerStreamError,
    ModelStreamError,
)
from kern.messages import Audio, Citation, Image, Message, ProviderCall, ReasoningPart, TextPart, ToolCall
from kern.models.base import ModelRequest, ModelResponse
from kern.models.google import Gemini
from tests.models.replay import ReplayServer, Reply, Sink

PIXEL = base64.b64encode(b"\x89PNG pixel").decode()
USAGE = {
    "promptTokenCount": 20,
    "candidatesTokenCount": 7,
    "thoughtsTokenCount": 30,
    "toolUsePromptTokenCount": 100,
    "cachedContentTokenCount": 12,
    "totalTokenCount": 157,
}


def chunk(*parts: dict[str, Any], finish: str | None = None, **fields: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0, **fields}
    if finish is not None:
        candidate["finishReason"] = finish
    return {"candidates": [candidate], "modelVersion": "gemini-3-pro-001", "responseId": "r1"}


def text(words: str, **fields: Any) -> dict[str, Any]:
    return {"text": words, **fields}


def call(name: str, args: Any = None, *, call_id: str | None = None, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name}
    if args is not None:
        made["args"] = args
    if call_id is not None:
        made["id"] = call_id
    return {"functionCall": made, **fields}


class PartsSink(Sink):
    """Writes down all that a model tells."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def tool_arguments(self, call_id: str, name: str, delta: str) -> None:
        self.told.append((name, delta))

    def provider_call(self, call: ProviderCall) -> None:
        self.told.append((call.name, call.status))

    def citation(self, citation: Citation) -> None:
        self.told.append(citation.url)


def sse(*chunks: dict[str, Any]) -> Reply:
    body = "".join(f"data: {json.dumps(each, ensure_ascii=False)}\r\n\r\n" for each in chunks)
    return Reply([body.encode()])


def whole(body: Any) -> Reply:
    return Reply([json.dumps(body).encode()], content_type="application/json; charset=UTF-8")


async def streamed(server: ReplayServer, *chunks: dict[str, Any], sink: Sink | None = None) -> ModelResponse:
    server.replies = [sse(*chunks)]
    model = Gemini("gemini-3-pro", base_url=server.url, api_key="any", max_retries=0)
    return await model.respond(ModelRequest([Message("user", "Hi")], stream=True), sink or Sink())


async def answered(server: ReplayServer, body: Any) -> ModelResponse:
    server.replies = [whole(body)]
    model = Gemini("gemini-3-pro", base_url=server.url, api_key="any", max_retries=0)
    return await model.respond(ModelRequest([Message("user", "Hi")]), Sink())


async def test_pieces_of_a_text_are_one_part_and_thoughts_are_reasoning(server: ReplayServer) -> None:
    sink = PartsSink()
    answer = await streamed(
        server,
        chunk(text("First, ", thought=True)),
        chunk(text("think.", thought=True)),
        chunk(text("Hel")),
        chunk(text("lo"), finish="STOP") | {"usageMetadata": USAGE},
        sink=sink,
    )
    assert answer.message.parts == [ReasoningPart("First, think."), TextPart("Hello")]
    assert (sink.text(), sink.text("reasoning")) == ("Hello", "First, think.")
    assert (answer.finish_reason, answer.provider_finish_reason) == ("stop", "STOP")
    assert (answer.model, answer.response_id) == ("gemini-3-pro-001", "r1")
    assert answer.usage.to_dict() == {
        "input_tokens": 120,
        "output_tokens": 37,
        "total_tokens": 157,
        "cached_tokens": 12,
        "reasoning_tokens": 30,
        "requests": 1,
    }


async def test_steps_of_thought_between_texts_are_told_as_they_are_kept(server: ReplayServer) -> None:
    sink = PartsSink()
    answer = await streamed(
        server,
        chunk(text("One.", thought=True), text("A"), text("Two.", thought=True), text("B"), finish="STOP"),
        sink=sink,
    )
    assert sink.text("reasoning") == answer.message.reasoning_content == "One.\n\nTwo."
    assert sink.text() == answer.message.content == "AB"


async def test_calls_without_ids_get_some_and_keep_their_order(server: ReplayServer) -> None:
    sink = PartsSink()
    answer = await streamed(
        server,
        chunk(call("add", {"item": "milk \U0001f95b"}, thoughtSignature="c2ln"), call("now")),
        chunk(call("add", {"item": "eggs"}), finish="STOP"),
        sink=sink,
    )
    made = answer.message.tool_calls
    assert [(each.name, json.loads(each.arguments)) for each in made] == [
        ("add", {"item": "milk \U0001f95b"}),
        ("now", {}),
        ("add", {"item": "eggs"}),
    ]
    assert len({each.id for each in made}) == 3
    assert [each.provider_data for each in made] == [{"thoughtSignature": "c2ln"}, None, None]
    assert answer.finish_reason == "tool_calls"
    assert [name for name, _ in sink.told] == ["add", "now", "add"]


async def test_ids_of_googles_are_kept_and_one_that_comes_twice_gets_another(server: ReplayServer) -> None:
    answer = await answered(server, chunk(call("a", call_id="x"), call("b", call_id="x"), finish="STOP"))
    first, second = answer.message.tool_calls
    assert first.id == "x"
    assert second.id != "x"
    assert [each.provider_data for each in (first, second)] == [{"id": "x"}, {"id": "x"}]


async def test_a_signature_stays_on_the_part_that_it_came_on(server: ReplayServer) -> None:
    answer = await streamed(
        server,
        chunk(text("Hello")),
        chunk(text(" there")),
        chunk(text("", thoughtSignature="c2ln"), finish="STOP"),
    )
    assert answer.message.content == "Hello there"
    assert answer.message.parts == [
        TextPart("Hello there"),
        TextPart("", provider_data={"thoughtSignature": "c2ln"}),
    ]
    answer = await streamed(
        server,
        chunk(text("A", thoughtSignature="YQ=="), text("B", thoughtSignature="Yg==")),
        chunk({"thoughtSignature": "Yw=="}, finish="STOP"),
    )
    assert [part.provider_data for part in answer.message.parts] == [
        {"thoughtSignature": "YQ=="},
        {"thoughtSignature": "Yg=="},
        {"thoughtSignature": "Yw=="},
    ]


async def test_code_that_google_runs_is_a_call_of_the_providers(server: ReplayServer) -> None:
    sink = PartsSink()
    run = {"executableCode": {"language": "PYTHON", "code": "print(1)"}, "thoughtSignature": "c2ln"}
    failed = {"codeExecutionResult": {"outcome": "OUTCOME_FAILED", "output": "NameError"}}
    again = {"executableCode": {"language": "PYTHON", "code": "print(2)", "id": "k"}}
    done = {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2\n", "id": "k"}}
    answer = await streamed(
        server,
        chunk(text("I try. "), run),
        chunk(failed, again, finish="STOP"),
        chunk(done),
        chunk(text("It is 2."), {"inlineData": {"mimeType": "image/png", "data": PIXEL}}, finish="STOP"),
        sink=sink,
    )
    first, second = answer.message.provider_calls
    assert (first.name, first.status, second.status) == ("code_execution", "failed", "completed")
    assert json.loads(first.arguments) == {"language": "PYTHON", "code": "print(1)"}
    assert second.result == {"outcome": "OUTCOME_OK", "output": "2\n"}
    assert first.provider_data == {"call": run, "result": failed}
    assert second.provider_data == {"call": again, "result": done}
    assert answer.message.content == "I try. It is 2."
    assert [image.read() for image in answer.message.images] == [b"\x89PNG pixel"]
    assert sink.told == [
        ("code_execution", "running"),
        ("code_execution", "failed"),
        ("code_execution", "running"),
        ("code_execution", "completed"),
    ]


async def test_code_without_its_result_is_no_answer(server: ReplayServer) -> None:
    run = {"executableCode": {"language": "PYTHON", "code": "print(1)"}}
    with pytest.raises(ModelStreamError, match="has no result"):
        await streamed(server, chunk(run, finish="STOP"))


async def test_code_that_nobody_ran_has_failed_and_a_tools_result_may_come_later(
    server: ReplayServer,
) -> None:
    run = {"executableCode": {"language": "PYTHON", "code": "print(1)"}}
    answer = await answered(server, chunk(run, text("It prints 1."), finish="STOP"))
    assert [made.status for made in answer.message.provider_calls] == ["failed"]
    asked = {"toolCall": {"toolType": "GOOGLE_MAPS", "id": "t1"}}
    answer = await answered(server, chunk(asked, call("add", {}), finish="STOP"))
    assert [made.status for made in answer.message.provider_calls] == ["completed"]
    told = {"toolResponse": {"toolType": "GOOGLE_MAPS", "id": "t1", "response": {"x": 1}}}
    answer = await answered(server, chunk(told, text("Done."), finish="STOP"))
    (later,) = answer.message.provider_calls
    assert (later.id, later.name, later.result) == ("t1", "google_maps", {"x": 1})
    assert later.provider_data == {"result": told}


async def test_a_stream_that_comes_as_a_list_is_read(server: ReplayServer) -> None:
    server.replies = [
        whole([chunk(text("Hel")), chunk(text("lo"), finish="STOP") | {"usageMetadata": USAGE}])
    ]
    model = Gemini("gemini-3-pro", base_url=server.url, api_key="any", max_retries=0)
    sink = Sink()
    answer = await model.respond(ModelRequest([Message("user", "Hi")], stream=True), sink)
    assert answer.message.content == sink.text() == "Hello"
    assert answer.usage.total_tokens == 157


async def test_tools_of_googles_beside_functions_are_calls_of_the_providers(server: ReplayServer) -> None:
    asked = {"toolCall": {"toolType": "GOOGLE_SEARCH_WEB", "args": {"queries": ["x"]}, "id": "t1"}}
    told = {"toolResponse": {"toolType": "GOOGLE_SEARCH_WEB", "response": {"found": 3}, "id": "t1"}}
    body = chunk(asked, told, call("add", {}, call_id="f1"), finish="STOP")
    body["candidates"][0]["groundingMetadata"] = {"webSearchQueries": ["x"]}
    answer = await answered(server, body)
    (made,) = answer.message.provider_calls
    assert (made.id, made.name, made.result) == ("t1", "google_search_web", {"found": 3})
    assert json.loads(made.arguments) == {"queries": ["x"]}
    assert made.provider_data == {"call": asked, "result": told}
    assert [type(part) for part in answer.message.parts] == [ProviderCall, ToolCall]


async def test_a_passage_of_a_file_store_says_where_it_is_from(server: ReplayServer) -> None:
    """File search of Gemini 3 (recorded by pydantic-ai): neither address nor title, but the store."""
    kept = {
        "fileSearchStore": "fileSearchStores/s1",
        "customMetadata": [{"key": "source_url", "stringValue": "https://example.com/paris"}],
    }
    told = {
        "groundingChunks": [{"retrievedContext": {"text": "Paris is the capital.", **kept}}],
        "groundingSupports": [{"segment": {"endIndex": 5, "text": "Paris"}, "groundingChunkIndices": [0]}],
    }
    answer = await streamed(server, chunk(text("Paris")), chunk(groundingMetadata=told, finish="STOP"))
    (said,) = answer.message.parts
    assert isinstance(said, TextPart)
    (cited,) = said.citations
    assert (cited.text, cited.start, cited.end) == ("Paris is the capital.", 0, 5)
    assert cited.provider_data == kept


async def test_grounding_is_a_search_and_citations_in_characters(server: ReplayServer) -> None:
    words = "Grüße \U0001f6d2. It is 69°F. Fine."
    start, end = words.index("It"), words.index(" Fine")
    told = {
        "webSearchQueries": ["weather"],
        "searchEntryPoint": {"renderedContent": "<div>"},
        "groundingChunks": [
            {"web": {"uri": "https://a.example", "title": "A"}},
            {"retrievedContext": {"uri": "gs://b", "title": "B", "text": "from the source"}},
        ],
        "groundingSupports": [
            {
                "segment": {
                    "startIndex": len(words[:start].encode()),
                    "endIndex": len(words[:end].encode()),
                    "text": words[start:end],
                },
                "groundingChunkIndices": [0, 1, 7],
            },
            {"segment": {"endIndex": 5_000, "text": "Fine."}, "groundingChunkIndices": [1]},
            {"segment": {"startIndex": 1, "endIndex": 2}, "groundingChunkIndices": "x"},
        ],
    }
    sink = PartsSink()
    answer = await streamed(
        server,
        chunk(text(words[:9])),
        chunk(text(words[9:]), groundingMetadata=told),
        chunk(finish="STOP"),
        sink=sink,
    )
    search, said = answer.message.parts
    assert isinstance(search, ProviderCall)
    assert (search.name, json.loads(search.arguments)) == ("google_search", {"queries": ["weather"]})
    assert search.provider_data == {"searchEntryPoint": {"renderedContent": "<div>"}}
    assert search.result["sources"][0] == {"url": "https://a.example", "title": "A"}
    assert isinstance(said, TextPart)
    assert said.citations == [
        Citation(url="https://a.example", title="A", start=start, end=end),
        Citation(url="gs://b", title="B", text="from the source", start=start, end=end),
        Citation(url="gs://b", title="B", text="from the source", start=len(words) - 5, end=len(words)),
    ]
    assert sink.told[:2] == [("google_search", "running"), ("google_search", "completed")]
    assert sink.told[2:] == ["https://a.example", "gs://b", "gs://b"]


async def test_pages_that_google_fetches_and_sources_that_it_repeats_are_told(server: ReplayServer) -> None:
    body = chunk(text("As written."), finish="STOP")
    body["candidates"][0] |= {
        "urlContextMetadata": {
            "urlMetadata": [
                {
                    "retrievedUrl": "https://a.example",
                    "urlRetrievalStatus": "URL_RETRIEVAL_STATUS_PAYWALL",
                }
            ]
        },
        "citationMetadata": {
            "citationSources": [{"startIndex": 3, "endIndex": 10, "uri": "https://b.example", "license": "x"}]
        },
    }
    answer = await answered(server, body)
    fetch, said = answer.message.parts
    assert isinstance(fetch, ProviderCall)
    assert (fetch.name, fetch.status) == ("url_context", "failed")
    assert json.loads(fetch.arguments) == {"urls": ["https://a.example"]}
    assert isinstance(said, TextPart)
    cited = Citation(url="https://b.example", start=3, end=10, provider_data={"license": "x"})
    assert said.citations == [cited]


async def test_pictures_and_sound_that_the_model_made_are_its_media(server: ReplayServer) -> None:
    draft = {"inlineData": {"mimeType": "image/png", "data": PIXEL}, "thought": True}
    picture = {"inlineData": {"mimeType": "image/png", "data": PIXEL}, "thoughtSignature": "c2ln"}
    sound = {"inlineData": {"mimeType": "audio/L16;rate=24000", "data": PIXEL}}
    filed = {"fileData": {"mimeType": "video/mp4", "fileUri": "https://f.example/v"}}
    answer = await answered(server, chunk(draft, text("Here:"), picture, sound, filed, finish="STOP"))
    _, image, audio, video = answer.message.parts
    assert isinstance(image, Image)
    assert (image.read(), image.mime_type) == (b"\x89PNG pixel", "image/png")
    assert image.provider_data == {"thoughtSignature": "c2ln"}
    assert isinstance(audio, Audio)
    assert answer.message.videos == [video]


@pytest.mark.parametrize(
    "word", ["MAX_TOKENS", "SAFETY", "RECITATION", "SPII", "IMAGE_SAFETY", "MODEL_ARMOR"]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_was_cut_is_none(server: ReplayServer, word: str, stream: bool) -> None:
    body = chunk(text("So far"), finish=word, finishMessage="It is so.") | {"usageMetadata": USAGE}
    with pytest.raises(ModelIncompleteError) as cut:
        await (streamed(server, body) if stream else answered(server, body))
    assert cut.value.reason == ("max_output_tokens" if word == "MAX_TOKENS" else "content_filter")
    assert cut.value.content == "So far"
    assert cut.value.usage.output_tokens == 37
    assert word in str(cut.value)
    assert "It is so." in str(cut.value)


@pytest.mark.parametrize(
    "word", ["MALFORMED_FUNCTION_CALL", "OTHER", "MISSING_THOUGHT_SIGNATURE", "NEW_WORD"]
)
async def test_another_end_is_an_error_that_names_it(server: ReplayServer, word: str) -> None:
    with pytest.raises(ModelStreamError, match=f"{word}.*print\\(default_api") as ended:
        await streamed(server, chunk(finish=word, finishMessage="print(default_api.add())"))
    assert ended.type is ModelStreamError


async def test_a_malformed_call_is_asked_for_again(server: ReplayServer) -> None:
    server.replies = [sse(chunk(finish="MALFORMED_FUNCTION_CALL")), sse(chunk(text("Hello"), finish="STOP"))]
    model = Gemini("gemini-2.5-flash", base_url=server.url, api_key="any")
    sink = Sink()
    answer = await model.respond(ModelRequest([Message("user", "Hi")], stream=True), sink)
    assert answer.message.content == "Hello"
    assert len(sink.retries) == 1


async def test_a_call_of_what_there_is_not_goes_to_the_run_which_says_so(server: ReplayServer) -> None:
    answer = await answered(server, chunk(call("gone", {}), finish="UNEXPECTED_TOOL_CALL"))
    assert [each.name for each in answer.message.tool_calls] == ["gone"]
    assert (answer.finish_reason, answer.provider_finish_reason) == ("tool_calls", "UNEXPECTED_TOOL_CALL")
    with pytest.raises(ModelStreamError, match="UNEXPECTED_TOOL_CALL"):
        await answered(server, chunk(finish="UNEXPECTED_TOOL_CALL"))


async def test_a_bad_end_is_not_taken_back_by_a_good_one(server: ReplayServer) -> None:
    with pytest.raises(ModelIncompleteError, match="SAFETY"):
        await streamed(server, chunk(text("x"), finish="SAFETY"), chunk(text("y"), finish="STOP"))


async def test_text_after_the_end_needs_another_end(server: ReplayServer) -> None:
    with pytest.raises(ModelStreamError, match="continued after"):
        await streamed(server, chunk(text("One"), finish="STOP"), chunk(text(" two")))
    answer = await streamed(
        server,
        chunk(text("One"), finish="STOP"),
        chunk(text(" two"), finish="STOP"),
        {"usageMetadata": USAGE},
    )
    assert answer.message.content == "One two"
    assert answer.usage.total_tokens == 157


@pytest.mark.parametrize("stream", [False, True])
async def test_a_blocked_prompt_is_an_error_with_its_reason(server: ReplayServer, stream: bool) -> None:
    body = {
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "Not that."},
        "usageMetadata": {"promptTokenCount": 5, "totalTokenCount": 5},
    }
    with pytest.raises(ModelIncompleteError) as blocked:
        await (streamed(server, body) if stream else answered(server, body))
    assert blocked.value.reason == "content_filter"
    assert "the prompt was blocked: Not that." in str(blocked.value)
    assert "PROHIBITED_CONTENT" in str(blocked.value)
    assert blocked.value.usage.input_tokens == 5


async def test_an_error_inside_of_a_stream_is_the_providers_failure(server: ReplayServer) -> None:
    error = {"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}
    with pytest.raises(ModelServerStreamError, match="overloaded") as failed:
        await streamed(server, chunk(text("One")), error)
    assert (failed.value.status, failed.value.code) == (503, "UNAVAILABLE")


async def test_an_answer_of_unknown_parts_alone_is_none(
    server: ReplayServer, caplog: pytest.LogCaptureFixture
) -> None:
    strange = {"hologram": {"data": "x"}}
    with pytest.raises(ModelBehaviorError, match="hologram"):
        await answered(server, chunk(strange, finish="STOP"))
    answer = await answered(server, chunk(strange, text("Hi"), finish="STOP"))
    assert answer.message.content == "Hi"
    assert "hologram" in caplog.text


async def test_a_second_candidate_is_passed_over_and_nothing_is_an_empty_answer(server: ReplayServer) -> None:
    body = chunk(text("first"), finish="STOP")
    body["candidates"].append(chunk(text("second"), finish="SAFETY", index=1)["candidates"][0])
    assert (await answered(server, body)).message.content == "first"
    empty = await streamed(server, {"candidates": [{"finishReason": "STOP"}]})
    assert (empty.message.content or "", empty.message.tool_calls) == ("", [])


DAMAGED: list[Any] = [
    {},
    {"candidates": []},
    {"candidates": "x"},
    {"candidates": [None]},
    {"candidates": [{"content": "x"}]},
    {"candidates": [{"content": {"parts": "x"}}]},
    {"candidates": [{"content": {"parts": [None, 5, {}, {"text": 5}, {"functionCall": 5}]}}]},
    {"promptFeedback": 5},
    {"error": {"code": "x", "message": 5}},
    [],
    [{"candidates": []}],
    5,
    "x",
    None,
]


@pytest.mark.parametrize("body", DAMAGED, ids=repr)
async def test_what_is_no_answer_ends_in_an_error(server: ReplayServer, body: Any) -> None:
    with pytest.raises(ModelError):
        await answered(server, body)


async def test_halves_of_characters_are_joined_in_texts_and_replaced_elsewhere(server: ReplayServer) -> None:
    first, second = json.dumps("\U0001f6d2")[1:7], json.dumps("\U0001f6d2")[7:13]
    chunks = [
        chunk(text(f"Cart {first}", thought=True)),
        chunk(text(f"{second}.", thought=True), text(f"A{first}")),
        chunk(text(f"{second}B"), call("add", {"x": f"!{first}!"}, thoughtSignature="c2ln"), finish="STOP"),
    ]
    chunks[2]["candidates"][0]["groundingMetadata"] = {"webSearchQueries": [first]}
    body = "".join(f"data: {json.dumps(each)}\n\n" for each in chunks).replace("\\\\ud", "\\ud")
    server.replies = [Reply([body.encode()])]
    model = Gemini("gemini-3-pro", base_url=server.url, api_key="any", max_retries=0)
    sink = Sink()
    answer = await model.respond(ModelRequest([Message("user", "Hi")], stream=True), sink)
    assert (answer.message.content, answer.message.reasoning_content) == ("A\U0001f6d2B", "Cart \U0001f6d2.")
    assert (sink.text(), sink.text("reasoning")) == ("A\U0001f6d2B", "Cart \U0001f6d2.")
    assert json.loads(answer.message.tool_calls[0].arguments) == {"x": "!\ufffd!"}
    assert json.loads(answer.message.provider_calls[0].arguments) == {"queries": ["\ufffd"]}


ODD: list[dict[str, Any]] = [
    call("a", "text"),
    call("a", [1]),
    {"functionCall": {"id": 5, "args": {"x": 1}}},
    {"executableCode": {}},
    {"codeExecutionResult": {"outcome": 5}},
    {"toolResponse": {"id": "x"}},
    {"inlineData": {"data": "%%%", "mimeType": 5}},
    {"fileData": {}},
    text("x", thoughtSignature=5),
    text("x", thought="yes"),
]


@pytest.mark.parametrize("part", ODD, ids=repr)
async def test_odd_parts_end_in_an_answer_or_in_an_error_of_kerns(
    server: ReplayServer, part: dict[str, Any]
) -> None:
    body = chunk(part, text("and"), finish="STOP", groundingMetadata=5, citationMetadata={"citations": [5]})
    try:
        answer = await answered(server, body)
    except ModelError:
        return
    stored = Message.from_dict(json.loads(json.dumps(answer.message.to_dict())))
    assert stored.parts == answer.message.parts
