"""What Google's Gemini API has sent, served byte for byte and decoded: recorded exchanges.

The folder of recordings lies beside the project, not in it. What a body says is read here by other means
than Kern's.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from kern.errors import ModelError, ModelIncompleteError, ModelNotFoundError, ModelRateLimitError
from kern.messages import Message, ReasoningPart, TextPart
from kern.models.base import ModelRequest
from kern.models.google import Gemini
from tests.models.replay import ReplayServer, Reply, Sink
from tests.models.test_recorded_traffic import FOLDER, needs_folder, pieces

METHODS = (":generateContent", ":streamGenerateContent")
CUT = {"MAX_TOKENS", "SAFETY"}


def exchanges() -> dict[str, str | None]:
    """The files of Google's, each with the reason why it is left out, if it is."""
    found: dict[str, str | None] = {}
    for file in sorted(FOLDER.glob("gemini/*.json")) if FOLDER is not None else ():
        path = json.loads(file.read_text(encoding="utf-8"))["request"]["path"]
        left_out = None if path.endswith(METHODS) else f"{path} is another protocol than generateContent"
        found[file.stem] = left_out
    return found


EXCHANGES = exchanges()
READ = [name for name, left_out in EXCHANGES.items() if left_out is None]


def exchange(name: str) -> Any:
    assert FOLDER is not None
    return json.loads((FOLDER / f"gemini/{name}.json").read_text(encoding="utf-8"))


def model_of(recorded: Any, base_url: str) -> Gemini:
    model = recorded["request"]["path"].rpartition("/")[2].partition(":")[0]
    return Gemini(model, base_url=base_url, api_key="any", max_retries=0)


def served(recorded: Any, seed: int = 0) -> Reply:
    answer = recorded["response"]
    headers = dict(answer["headers"])
    kind = headers.pop("content-type")
    return Reply(
        pieces(answer["body"].encode(), seed), status=answer["status"], headers=headers, content_type=kind
    )


@dataclass
class Said:
    """What a body says."""

    text: str = ""
    thoughts: list[str] = field(default_factory=list)
    calls: list[tuple[str | None, str, Any, str | None]] = field(default_factory=list)
    runs: list[tuple[Any, Any]] = field(default_factory=list)
    cited: list[tuple[str, str]] = field(default_factory=list)  # the words of the answer, and the page
    words: list[str] = field(default_factory=list)
    searches: int = 0
    blocked: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    version: str | None = None
    answer_id: str | None = None


def objects(recorded: Any) -> Iterator[dict[str, Any]]:
    body = recorded["response"]["body"]
    if "event-stream" not in recorded["response"]["headers"]["content-type"]:
        yield json.loads(body)
        return
    for line in body.splitlines():
        if line.startswith("data:"):
            yield json.loads(line.removeprefix("data:"))


def said_by(recorded: Any) -> Said:
    said = Said()
    thinking = False
    for chunk in objects(recorded):
        said.blocked = (chunk.get("promptFeedback") or {}).get("blockReason", said.blocked)
        said.usage = chunk.get("usageMetadata", said.usage)
        said.version = chunk.get("modelVersion", said.version)
        said.answer_id = chunk.get("responseId", said.answer_id)
        for candidate in chunk.get("candidates", []):
            if "finishReason" in candidate:
                said.words.append(candidate["finishReason"])
            for part in candidate.get("content", {}).get("parts", []):
                if part.get("thought"):
                    if thinking:
                        said.thoughts[-1] += part["text"]
                    else:
                        said.thoughts.append(part["text"])
                thinking = bool(part.get("thought"))
                if "text" in part and not part.get("thought"):
                    said.text += part["text"]
                if call := part.get("functionCall"):
                    signature = part.get("thoughtSignature")
                    said.calls.append((call.get("id"), call["name"], call["args"], signature))
                if code := part.get("executableCode"):
                    said.runs.append((code, None))
                if result := part.get("codeExecutionResult"):
                    said.runs[-1] = (said.runs[-1][0], result)
            grounding = candidate.get("groundingMetadata", {})
            said.searches = min(len(grounding.get("webSearchQueries", ())), 1) or said.searches  # before 3.0
            pages = grounding.get("groundingChunks", [])
            for support in grounding.get("groundingSupports", []):
                for index in support["groundingChunkIndices"]:
                    said.cited.append((support["segment"]["text"], pages[index]["web"]["uri"]))
    return said


def usage_of(usage: dict[str, Any], searches: int = 0) -> dict[str, Any]:
    """What was sent, and what was made, by Kern's one rule."""

    def tokens(details: str, kind: str) -> int:
        return sum(item["tokenCount"] for item in usage.get(details, ()) if item["modality"] == kind)

    billed = {"web_searches": searches}
    for kind in ("AUDIO", "VIDEO"):
        cached = tokens("cacheTokensDetails", kind)
        billed[f"input_{kind.lower()}_tokens"] = tokens("promptTokensDetails", kind) - cached
        billed[f"cache_{kind.lower()}_read_tokens"] = cached
    billed = {name: value for name, value in billed.items() if value}
    thoughts = usage.get("thoughtsTokenCount", 0)
    counts = {
        "input_tokens": usage.get("promptTokenCount", 0) + usage.get("toolUsePromptTokenCount", 0),
        "output_tokens": usage.get("candidatesTokenCount", 0) + thoughts,
        "total_tokens": usage.get("totalTokenCount", 0),
        "cached_tokens": usage.get("cachedContentTokenCount", 0),
        "reasoning_tokens": thoughts,
    }
    told: dict[str, Any] = {name: value for name, value in counts.items() if value}
    return told | {"requests": 1} | ({"billed": billed} if billed else {})


@needs_folder
def test_all_of_generate_content_is_read_and_what_is_left_out_is_named() -> None:
    for name, left_out in EXCHANGES.items():
        if left_out is not None:
            print(f"left out: gemini/{name}.json: {left_out}")
    assert [name for name, left_out in EXCHANGES.items() if left_out] == ["interactions-call"]
    assert len(READ) >= 14


@needs_folder
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", READ)
async def test_what_google_has_sent_is_decoded_as_the_body_says(
    server: ReplayServer, sink: Sink, name: str, seed: int
) -> None:
    recorded = exchange(name)
    server.replies = [served(recorded, seed)]
    model = model_of(recorded, server.url)
    said = said_by(recorded)
    streamed = recorded["request"]["path"].endswith(":streamGenerateContent")
    request = ModelRequest([Message("user", "Hi")], stream=streamed)
    if recorded["response"]["status"] != 200:
        await check_refused(model, request, sink, recorded)
        return
    if said.blocked or CUT & set(said.words):
        with pytest.raises(ModelIncompleteError) as cut:
            await model.respond(request, sink)
        word = said.blocked or said.words[-1]
        assert cut.value.reason == ("max_output_tokens" if word == "MAX_TOKENS" else "content_filter")
        assert word in str(cut.value)
        assert cut.value.usage.to_dict() == usage_of(said.usage)
        return
    answer = await model.respond(request, sink)
    message = answer.message
    assert (message.content or "") == said.text
    assert [part.text for part in message.parts if isinstance(part, ReasoningPart)] == said.thoughts
    calls = [
        (data.get("id"), call.name, json.loads(call.arguments), data.get("thoughtSignature"))
        for call in message.tool_calls
        for data in [call.provider_data or {}]
    ]
    assert calls == said.calls
    assert all(call.id for call in message.tool_calls)
    assert len({call.id for call in message.tool_calls}) == len(calls)
    runs = [call for call in message.provider_calls if call.name == "code_execution"]
    assert [(json.loads(call.arguments), call.result) for call in runs] == said.runs
    assert [call.status for call in runs] == ["completed"] * len(runs)
    cited = [
        (part.text[citation.start : citation.end], citation.url)
        for part in message.parts
        if isinstance(part, TextPart)
        for citation in part.citations
    ]
    assert cited == said.cited
    assert answer.usage.to_dict() == usage_of(said.usage, said.searches)
    assert (answer.response_id, answer.model) == (said.answer_id, said.version)
    assert answer.provider_finish_reason == said.words[-1]
    assert answer.finish_reason == ("tool_calls" if calls else "stop")
    assert {part.origin for part in message.parts} <= {(model.provider, model.id)}
    shown = (sink.text(), sink.text("reasoning"))
    assert shown == ((said.text, "\n\n".join(said.thoughts)) if streamed else ("", ""))
    stored = Message.from_dict(json.loads(json.dumps(message.to_dict())))
    assert stored.parts == message.parts


async def check_refused(model: Gemini, request: ModelRequest, sink: Sink, recorded: Any) -> None:
    told = json.loads(recorded["response"]["body"])["error"]
    kind = {404: ModelNotFoundError, 429: ModelRateLimitError}[told["code"]]
    with pytest.raises(kind) as caught:
        await model.respond(request, sink)
    assert told["message"].replace("\n", "\\n") in str(caught.value)
    assert caught.value.code == told["status"]
    delays = [detail["retryDelay"] for detail in told.get("details", []) if "retryDelay" in detail]
    assert caught.value.retry_after == (float(delays[0].rstrip("s")) if delays else None)


@needs_folder
@pytest.mark.parametrize("name", [name for name in READ if name.endswith("stream")])
async def test_a_recorded_stream_that_breaks_off_is_never_an_answer(
    server: ReplayServer, sink: Sink, name: str
) -> None:
    recorded = exchange(name)
    if recorded["response"]["status"] != 200:
        pytest.skip("it is an error")
    body = recorded["response"]["body"].encode()
    last = body.rfind(b'"finishReason"')
    model = model_of(recorded, server.url)
    for end in range(0, last, 37):
        for clean in (True, False):
            server.replies = [Reply([body[:end]], cut=not clean)]
            with pytest.raises(ModelError):
                await model.respond(ModelRequest([Message("user", "Hi")], stream=True), sink)


def of_the_model(body: Any) -> list[dict[str, Any]]:
    """The model's parts in a request, without what two requests may differ in."""
    return [
        part for content in body["contents"] if content.get("role") == "model" for part in content["parts"]
    ]


@needs_folder
async def test_an_answer_goes_back_as_the_recorded_next_request_has_it(
    server: ReplayServer, sink: Sink
) -> None:
    first = exchange("thought-signature-1")
    server.replies = [served(first)]
    model = model_of(first, server.url)
    answer = await model.respond(ModelRequest([Message("user", "?")]), sink)
    message = Message.from_dict(json.loads(json.dumps(answer.message.to_dict())))
    (call,) = message.tool_calls
    results = [Message("tool", "ok", tool_call_id=call.id, tool_name=call.name)]
    asked = ModelRequest([Message("user", "?"), message, *results])
    body = json.loads(model._encode(asked, model._resolve_base_url()))
    recorded = exchange("thought-signature-2")["request"]["json"]
    made, expected = of_the_model(body), of_the_model(recorded)
    given = json.loads(first["response"]["body"])["candidates"][0]["content"]["parts"][1]["functionCall"][
        "id"
    ]
    # Google takes the id that it gave, and does without it; the recorded client left it out.
    assert made[0]["functionCall"].pop("id") == given
    assert made == expected
    assert [content["role"] for content in body["contents"]] == ["user", "model", "user"]
    (response,) = body["contents"][2]["parts"]
    (wanted,) = recorded["contents"][2]["parts"]
    assert response["functionResponse"]["name"] == wanted["functionResponse"]["name"]
    assert response["functionResponse"]["id"] == given
    assert base64.b64decode(made[0]["thoughtSignature"])


@needs_folder
@pytest.mark.parametrize(
    "name", [file.stem for file in (FOLDER.glob("gemini/*-2.json") if FOLDER is not None else ())]
)
async def test_a_recorded_request_is_built_again_from_its_own_messages(
    server: ReplayServer, sink: Sink, name: str
) -> None:
    """The model's turns in the request, answered one after the other, go back as they stand."""
    recorded = exchange(name)
    model = model_of(recorded, server.url)
    wanted = recorded["request"]["json"]
    messages: list[Message] = []
    for content in wanted["contents"]:
        if content.get("role") == "model":
            body = {"candidates": [{"content": content, "finishReason": "STOP", "index": 0}]}
            server.replies = [Reply([json.dumps(body).encode()], content_type="application/json")]
            answer = await model.respond(ModelRequest([Message("user", "?")]), sink)
            messages.append(Message.from_dict(json.loads(json.dumps(answer.message.to_dict()))))
            continue
        calls = list(messages[-1].tool_calls) if messages else []
        for part in content["parts"]:
            if "functionResponse" in part:
                call = calls.pop(0)
                messages.append(Message("tool", "ok", tool_call_id=call.id, tool_name=call.name))
            else:
                messages.append(Message("user", part["text"]))
    body = json.loads(model._encode(ModelRequest(messages), model._resolve_base_url()))
    assert of_the_model(body) == of_the_model(wanted)
    assert [content["role"] for content in body["contents"]] == [
        content["role"] for content in wanted["contents"]
    ]
