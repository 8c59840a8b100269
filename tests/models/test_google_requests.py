"""What a request to the Gemini API holds, and how a conversation stands in it."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import traceback
from pathlib import Path
from typing import Any

import pytest

from kern.errors import MissingKeyError, ModelAuthError, UsageError
from kern.messages import (
    Audio,
    File,
    Image,
    Message,
    Origin,
    Part,
    ProviderCall,
    ReasoningPart,
    TextPart,
    ToolCall,
    Video,
)
from kern.models.base import ModelRequest, ResponseFormat, ToolDefinition
from kern.models.google import Gemini
from tests.models.replay import ReplayServer, Reply, Sink

OWN = Origin("google", "gemini-3-pro")
OTHER = Origin("google", "gemini-2.5-flash")
FOREIGN = Origin("anthropic", "claude")
SKIP = "skip_thought_signature_validator"
KEY = "secret-0123456789abcdef"
HI = Message("user", "Hi")


def body_of(*messages: Message, model: str = "gemini-3-pro", **options: Any) -> dict[str, Any]:
    fields = {
        name: options.pop(name) for name in ("tools", "tool_choice", "response_format") if name in options
    }
    gemini = Gemini(model, api_key="any", **options)
    body: dict[str, Any] = json.loads(
        gemini._encode(ModelRequest(messages or [HI], **fields), gemini._resolve_base_url())
    )
    return body


def contents_of(*messages: Message, model: str = "gemini-3-pro") -> list[tuple[str, list[Any]]]:
    return [(content["role"], content["parts"]) for content in body_of(*messages, model=model)["contents"]]


def said(*parts: Part, origin: Origin | None = OWN, **fields: Any) -> Message:
    for part in parts:
        part.origin = origin
    return Message("assistant", parts=list(parts), **fields)


def result(call_id: str, text: str, **fields: Any) -> Message:
    return Message("tool", text, tool_call_id=call_id, tool_name="add", **fields)


def test_the_systems_words_have_a_place_of_their_own_and_neighbours_are_one_turn() -> None:
    body = body_of(
        Message("system", "Be brief."),
        Message("developer", "Be kind."),
        Message("user", "One."),
        Message("user", "Two."),
        Message("assistant", "Yes."),
        Message("assistant", "And no."),
        Message("system", "Stop soon."),
        Message("user", "Three."),
    )
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "Be kind."}]}
    assert [
        (content["role"], [part["text"] for part in content["parts"]]) for content in body["contents"]
    ] == [
        ("user", ["One.", "Two."]),
        ("model", ["Yes.", "And no."]),
        ("user", ["Stop soon.", "Three."]),
    ]


def test_a_conversation_begins_with_the_user_and_is_never_empty() -> None:
    assert contents_of(Message("system", "Alone.")) == [("user", [{"text": "Alone."}])]
    assert [role for role, _ in contents_of(said(TextPart("Hello")), HI)] == ["user", "model", "user"]
    assert contents_of(Message("user", "")) == [("user", [{"text": " "}])]
    assert contents_of(HI, Message("assistant", "")) == [("user", [{"text": "Hi"}])]


def test_what_the_model_said_goes_back_as_it_came() -> None:
    run = {"executableCode": {"code": "1"}, "thoughtSignature": "cnVu"}
    out = {"codeExecutionResult": {"outcome": "OUTCOME_OK"}}
    message = said(
        ReasoningPart("Hm."),
        ReasoningPart("Signed.", signature="dA=="),
        TextPart("Words", provider_data={"thoughtSignature": "dw=="}),
        TextPart("", provider_data={"thoughtSignature": "ZQ=="}),
        TextPart(""),
        ProviderCall("p", "code_execution", provider_data={"call": run, "result": out}),
        ProviderCall("q", "google_search", provider_data={"searchEntryPoint": {}}),
        ToolCall("c", "add", '{"item":"milk"}', {"id": "c", "thoughtSignature": "Yw=="}),
        ToolCall("d", "add", "{}"),
    )
    assert contents_of(HI, message, result("c", "ok"), result("d", '{"n": [1]}', tool_call_error=True)) == [
        ("user", [{"text": "Hi"}]),
        (
            "model",
            [
                {"text": "Signed.", "thought": True, "thoughtSignature": "dA=="},
                {"text": "Words", "thoughtSignature": "dw=="},
                {"text": "", "thoughtSignature": "ZQ=="},
                run,
                out,
                {
                    "functionCall": {"name": "add", "id": "c", "args": {"item": "milk"}},
                    "thoughtSignature": "Yw==",
                },
                {"functionCall": {"name": "add", "args": {}}},
            ],
        ),
        (
            "user",
            [
                {"functionResponse": {"name": "add", "id": "c", "response": {"output": "ok"}}},
                {"functionResponse": {"name": "add", "response": {"error": {"n": [1]}}}},
            ],
        ),
    ]


@pytest.mark.parametrize("origin", [OTHER, FOREIGN, None])
def test_what_another_model_said_goes_back_in_words_and_plain_calls(origin: Origin | None) -> None:
    message = said(
        ReasoningPart("Hm.", signature="foreign-1", redacted="foreign-2"),
        TextPart("Words", provider_data={"thoughtSignature": "foreign-3", "id": "foreign-4"}),
        ProviderCall("foreign-5", "web_search", "{}", provider_data={"call": {"text": "foreign-6"}}),
        ToolCall("foreign-7", "add", "broken", {"id": "foreign-8", "thoughtSignature": "foreign-9"}),
        ToolCall("foreign-0", "add", "{}"),
        origin=origin,
    )
    asked = (HI, message, result("foreign-7", "ok"), result("foreign-0", "ok"))
    body = json.dumps(body_of(*asked))
    assert "foreign" not in body
    assert "Hm." not in body
    (_, _), (_, parts), (_, answers) = contents_of(*asked)
    assert parts[0] == {"text": "Words"}
    assert parts[-2] == {
        "functionCall": {"name": "add", "args": {"invalid_json": "broken"}},
        "thoughtSignature": SKIP,
    }
    assert parts[-1] == {"functionCall": {"name": "add", "args": {}}}
    assert [list(answer) for answer in answers] == [["functionResponse"]] * 2
    earlier = contents_of(*asked, model="gemini-2.5-pro")
    assert "thoughtSignature" not in json.dumps(earlier)


def test_results_stand_in_the_order_of_their_calls_and_of_each_call_there_is_one() -> None:
    calls = [ToolCall(name, "add", "{}") for name in ("a", "b", "c")]
    _, _, (_, parts) = contents_of(
        HI, said(*calls), result("c", "3"), result("a", "1"), Message("user", "Go on")
    )
    answers = [part["functionResponse"]["response"] for part in parts[:-1]]
    assert answers == [{"output": "1"}, {"error": "This call was not carried out."}, {"output": "3"}]
    assert parts[-1] == {"text": "Go on"}


def test_a_result_without_its_call_is_said_in_words() -> None:
    words = {"text": "(result of the tool add)"}
    assert contents_of(HI, result("gone", "found")) == [("user", [{"text": "Hi"}, words, {"text": "found"}])]


def test_media_go_inline_or_by_their_address(tmp_path: Path) -> None:
    picture = tmp_path / "p.jpg"
    picture.write_bytes(b"jpg")
    data = base64.b64encode(b"abc").decode()
    message = Message(
        "user",
        "Look",
        images=[Image(content=b"abc"), Image(filepath=picture), Image(url=f"data:image/gif;base64,{data}")],
        audio=[Audio(content=b"abc", mime_type="audio/mp3")],
        videos=[Video(url="https://www.youtube.com/watch?v=x")],
        files=[
            File(content=b"%PDF-1.7"),
            File(content=b"words"),
            File(id="files/abc"),
            File(url="gs://bucket/a.csv"),
        ],
    )
    ((_, parts),) = contents_of(message)
    assert parts == [
        {"text": "Look"},
        {"inlineData": {"mimeType": "image/png", "data": data}},
        {"inlineData": {"mimeType": "image/jpeg", "data": base64.b64encode(b"jpg").decode()}},
        {"inlineData": {"mimeType": "image/gif", "data": data}},
        {"inlineData": {"mimeType": "audio/mp3", "data": data}},
        {"fileData": {"fileUri": "https://www.youtube.com/watch?v=x", "mimeType": "video/mp4"}},
        {"inlineData": {"mimeType": "application/pdf", "data": base64.b64encode(b"%PDF-1.7").decode()}},
        {"inlineData": {"mimeType": "text/plain", "data": base64.b64encode(b"words").decode()}},
        {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}},
        {"fileData": {"fileUri": "gs://bucket/a.csv", "mimeType": "text/csv"}},
    ]


def test_media_that_cannot_be_sent_are_refused_when_new_and_mentioned_when_old() -> None:
    lost = Image(id="file-openai", name="cat.png")
    with pytest.raises(UsageError, match="Files API"):
        body_of(Message("user", "Look", images=[lost]))
    with pytest.raises(UsageError, match="no longer stored"):
        body_of(Message("user", "Look", images=[Image(sha256="0" * 64)]))
    with pytest.raises(UsageError, match="base64"):
        body_of(Message("user", "Look", images=[Image(url="data:text/plain,words")]))
    with pytest.raises(UsageError, match="not in a system message"):
        body_of(Message("system", "Look", images=[Image(content=b"x")]), HI)
    old = Message("user", "Look", images=[lost], from_history=True)
    assert contents_of(old) == [("user", [{"text": "Look"}, {"text": "[image: cat.png]"}])]


def test_media_of_a_result_stand_within_it_or_beside_it_for_earlier_models() -> None:
    shown = result("c", "[image]", images=[Image(content=b"abc")])
    blob = {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(b"abc").decode()}}
    asked = (HI, said(ToolCall("c", "add", "{}")), shown)
    assert contents_of(*asked)[2][1] == [
        {"functionResponse": {"name": "add", "response": {"output": "[image]"}, "parts": [blob]}}
    ]
    assert contents_of(*asked, model="gemini-2.5-pro")[2][1] == [
        {"functionResponse": {"name": "add", "response": {"output": "[image]"}}},
        blob,
    ]


def test_what_the_model_drew_goes_back_as_its_own_and_anothers_picture_as_the_users() -> None:
    data = base64.b64encode(b"abc").decode()
    blob = {"inlineData": {"mimeType": "image/png", "data": data}}
    own = Image(content=b"abc", mime_type="image/png", provider_data={"thoughtSignature": "c2ln"})
    assert contents_of(HI, said(own), HI)[1] == ("model", [{**blob, "thoughtSignature": "c2ln"}])
    foreign = Image(content=b"abc", mime_type="image/png")
    _, (_, words), (_, shown) = contents_of(HI, said(TextPart("Here"), foreign, origin=FOREIGN), HI)
    assert words == [{"text": "Here"}]
    assert shown == [{"text": "(attached by the assistant)"}, blob, {"text": "Hi"}]


TOOL = ToolDefinition(
    "add", "Add.", {"type": "object", "properties": {"n": {"type": "integer", "exclusiveMinimum": 0}}}
)
NOTHING = ToolDefinition("now", "The time.", {"type": "object", "properties": {}})


def test_tools_are_declared_in_the_dialect_of_the_model() -> None:
    made = body_of(tools=[TOOL, NOTHING])
    assert made["tools"] == [
        {
            "functionDeclarations": [
                {
                    "name": "add",
                    "description": "Add.",
                    "parametersJsonSchema": {
                        "type": "object",
                        "properties": {"n": {"type": "integer", "minimum": 1}},
                    },
                },
                {
                    "name": "now",
                    "description": "The time.",
                    "parametersJsonSchema": {"type": "object", "properties": {}},
                },
            ]
        }
    ]
    assert "toolConfig" not in made
    early = body_of(tools=[TOOL, NOTHING], model="gemini-2.0-flash")["tools"][0]["functionDeclarations"]
    assert early[0]["parameters"]["propertyOrdering"] == ["n"]
    assert early[1] == {"name": "now", "description": "The time."}


@pytest.mark.parametrize(
    ("choice", "config"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ({"name": "add"}, {"mode": "ANY", "allowedFunctionNames": ["add"]}),
    ],
)
def test_a_choice_is_a_mode(choice: Any, config: dict[str, Any]) -> None:
    made = body_of(tools=[TOOL], tool_choice=choice)
    assert made["toolConfig"] == {"functionCallingConfig": config}


def test_the_schema_of_an_answer_and_all_settings_stand_in_the_configuration() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"]}},
        "additionalProperties": False,
    }
    made = body_of(
        response_format=ResponseFormat("x", schema),
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        max_output_tokens=100,
        stop="END",
        seed=7,
        thinking="low",
        include_thoughts=True,
        safety_settings={"HARM_CATEGORY_HARASSMENT": "BLOCK_NONE"},
        extra_body={"cachedContent": "c", "generationConfig": {"mediaResolution": "LOW"}},
    )
    assert made["generationConfig"] == {
        "temperature": 0.5,
        "topP": 0.9,
        "topK": 5,
        "maxOutputTokens": 100,
        "stopSequences": ["END"],
        "seed": 7,
        "thinkingConfig": {"thinkingLevel": "low", "includeThoughts": True},
        "responseMimeType": "application/json",
        "responseJsonSchema": schema,
        "mediaResolution": "LOW",
    }
    assert made["safetySettings"] == [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]
    assert made["cachedContent"] == "c"
    early = body_of(response_format=ResponseFormat("x", schema), model="gemini-2.0-flash", thinking=0)
    assert early["generationConfig"] == {
        "thinkingConfig": {"thinkingBudget": 0},
        "responseMimeType": "application/json",
        "responseSchema": {
            "type": "object",
            "properties": {"a": {"type": "string", "nullable": True}},
            "propertyOrdering": ["a"],
        },
    }


def test_extra_tools_stand_beside_the_functions_and_the_conversation_is_the_runs() -> None:
    made = body_of(tools=[TOOL], extra_body={"tools": [{"googleSearch": {}}]})
    assert made["tools"][1] == {"googleSearch": {}}
    for extra in ({"contents": []}, {"systemInstruction": {}}, {"tools": {}}):
        with pytest.raises(UsageError, match="extra_body"):
            Gemini("m", extra_body=extra)


OK = Reply(
    [json.dumps({"candidates": [{"content": {"parts": [{"text": "ok"}]}, "finishReason": "STOP"}]}).encode()],
    content_type="application/json",
)


async def ask(model: Gemini, *, stream: bool = False) -> None:
    await model.respond(ModelRequest([HI], stream=stream), Sink())


async def test_the_key_goes_in_a_header_and_never_in_the_address(
    server: ReplayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies = [OK]
    await ask(Gemini("gemini-3-pro", base_url=server.url, api_key=KEY))
    await ask(Gemini("tunedModels/x y", base_url=server.url, api_key=KEY), stream=True)
    monkeypatch.setenv("GOOGLE_API_KEY", "second")
    await ask(Gemini("m", base_url=server.url))
    monkeypatch.setenv("GEMINI_API_KEY", "first")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", server.url)
    await ask(Gemini("m"))
    assert [asked.path for asked in server.asked] == [
        "/v1/models/gemini-3-pro:generateContent",
        "/v1/tunedModels/x%20y:streamGenerateContent?alt=sse",
        "/v1/models/m:generateContent",
        "/v1/models/m:generateContent",
    ]
    keys = [asked.headers["x-goog-api-key"] for asked in server.asked]
    assert keys == [KEY, KEY, "second", "first"]
    assert not any("authorization" in asked.headers for asked in server.asked)


async def test_a_server_of_ones_own_needs_no_key_and_google_does(server: ReplayServer) -> None:
    server.replies = [OK]
    await ask(Gemini("m", base_url=server.url))
    assert "x-goog-api-key" not in server.asked[0].headers
    with pytest.raises(MissingKeyError, match="GEMINI_API_KEY"):
        await ask(Gemini("m"))
    with pytest.raises(MissingKeyError):
        await ask(Gemini("m", base_url="https://europe-west4-aiplatform.googleapis.com/v1/projects/p"))


async def test_vertex_is_asked_with_a_token_which_may_be_fresh_each_time(server: ReplayServer) -> None:
    server.replies = [OK]
    tokens = iter("abcdef")

    async def later() -> str:
        await asyncio.sleep(0)
        return f"later-{next(tokens)}"

    base = f"{server.url}/projects/p/locations/l/publishers/google"
    await ask(Gemini("m", base_url=base, access_token="fixed"))
    changing = Gemini("m", base_url=base, access_token=lambda: next(tokens))
    await ask(changing)
    await ask(changing, stream=True)
    await ask(Gemini("m", base_url=base, access_token=later))
    await ask(Gemini("m", base_url=base, default_headers={"Authorization": "Bearer own"}))
    assert server.asked[0].path == "/v1/projects/p/locations/l/publishers/google/models/m:generateContent"
    given = [asked.headers["authorization"] for asked in server.asked]
    assert given == ["Bearer fixed", "Bearer a", "Bearer b", "Bearer later-c", "Bearer own"]
    with pytest.raises(UsageError, match="not both"):
        Gemini("m", api_key="x", access_token="y")


async def test_a_token_is_shown_nowhere(server: ReplayServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    echo = json.dumps(
        {"error": {"code": 401, "message": f"Bad token Bearer {KEY}", "status": "UNAUTHENTICATED"}}
    )
    server.replies = [Reply([echo.encode()], status=401, content_type="application/json")]
    models = [
        Gemini("m", base_url=server.url, access_token=KEY),
        Gemini("m", base_url=server.url, access_token=lambda: KEY),
        Gemini("m", base_url=server.url, api_key=KEY),
    ]
    for model in models:
        with pytest.raises(ModelAuthError) as caught:
            await ask(model)
        told = [str(caught.value), repr(model), *traceback.format_exception(caught.value), caplog.text]
        assert KEY not in "\n".join(told)
        assert "Bad token" in str(caught.value)
