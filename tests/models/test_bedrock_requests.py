"""What goes to Bedrock: settings, tools, media, cache points, and conversations of any provenance.

The judge in bedrock_wire.py refuses what the service refuses.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("botocore", reason="the extra bedrock is not installed")

from kern.errors import UsageError
from kern.messages import (
    Audio,
    File,
    Image,
    Message,
    Origin,
    ProviderCall,
    ReasoningPart,
    TextPart,
    ToolCall,
    Video,
)
from kern.models.base import ModelRequest, ResponseFormat, ToolDefinition
from kern.models.bedrock import BedrockConverse, SystemTool
from tests.models.bedrock_wire import judge

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
NOVA = "amazon.nova-pro-v1:0"
LLAMA = "meta.llama3-3-70b-instruct-v1:0"
MISTRAL = "mistral.mistral-large-2407-v1:0"
WRITER = "writer.palmyra-x5-v1:0"
OWN = Origin("bedrock", CLAUDE)
PNG = b"\x89PNG\r\n\x1a\n...."
ADD = ToolDefinition("add", "Add.", {"type": "object", "properties": {"item": {"type": "string"}}})
CALL = ToolCall("a", "add", '{"item": "milk"}')


def body_of(request: ModelRequest | Sequence[Message], id: str = CLAUDE, **settings: Any) -> Any:
    model = BedrockConverse(id, region="us-east-1", api_key="any", **settings)
    asked = request if isinstance(request, ModelRequest) else ModelRequest(request)
    body = json.loads(model._encode(asked, model._resolve_base_url()))
    judge(body)
    return body


def turns(body: Any) -> list[Any]:
    return [
        (turn["role"], [block.get("text") or next(iter(block)) for block in turn["content"]])
        for turn in body["messages"]
    ]


def test_system_texts_stand_apart_and_turns_alternate() -> None:
    body = body_of(
        [
            Message("system", "Be brief."),
            Message("developer", "Really."),
            Message("user", "One"),
            Message("user", "Two"),
            Message("assistant", "Three"),
            Message("assistant", "Four"),
            Message("user", "Five"),
        ]
    )
    assert body["system"] == [{"text": "Be brief."}, {"text": "Really."}]
    assert turns(body) == [("user", ["One", "Two"]), ("assistant", ["Three", "Four"]), ("user", ["Five"])]


def test_blank_texts_are_left_out_and_an_empty_conversation_says_so() -> None:
    assert turns(body_of([Message("user", " \n")])) == [("user", ["(no text)"])]
    assert turns(body_of([Message("assistant", "Hi "), Message("user", "")])) == [
        ("user", ["(no text)"]),
        ("assistant", ["Hi"]),
    ]


def test_settings_go_where_converse_has_them() -> None:
    body = body_of(
        [Message("user", "Hi")],
        max_output_tokens=100,
        temperature=0.5,
        top_p=0.9,
        stop="END",
        additional_fields={"top_k": 5},
        extra_body={
            "guardrailConfig": {"guardrailIdentifier": "abc", "guardrailVersion": "1"},
            "inferenceConfig": {"topP": 0.1},
            "additionalModelRequestFields": {"other": True},
        },
    )
    assert body["inferenceConfig"] == {
        "maxTokens": 100,
        "temperature": 0.5,
        "topP": 0.1,
        "stopSequences": ["END"],
    }
    assert body["additionalModelRequestFields"] == {"top_k": 5, "other": True}
    assert body["guardrailConfig"]["guardrailIdentifier"] == "abc"


def results_of(id: str = CLAUDE) -> Any:
    calls = [CALL, ToolCall("b", "add", ""), ToolCall("c", "add", "[1]"), ToolCall("d", "add", "{}")]
    return body_of(
        ModelRequest(
            [
                Message("user", "Hi"),
                Message("assistant", "I add.", tool_calls=calls),
                Message("user", "Quick!"),
                Message("tool", '{"added": 2}', tool_call_id="b"),
                Message("tool", "first", tool_call_id="a", images=[Image(content=PNG)]),
                Message("tool", "It broke.", tool_call_id="c", tool_call_error=True),
                Message("tool", "of another", tool_call_id="x", tool_name="look"),
            ],
            tools=[ADD],
        ),
        id,
    )


def test_results_are_texts_json_and_failures_in_the_order_of_their_calls() -> None:
    body = results_of()
    asked = [block["toolUse"]["input"] for block in body["messages"][1]["content"][1:]]
    assert asked == [{"item": "milk"}, {}, {"invalid_json": "[1]"}, {}]
    *results, quick, of_other, other = body["messages"][2]["content"]
    told = [(r["toolResult"]["toolUseId"], r["toolResult"]["status"]) for r in results]
    assert told == [("a", "success"), ("b", "success"), ("c", "error"), ("d", "error")]
    first, second, third, fourth = (result["toolResult"]["content"] for result in results)
    picture = {"format": "png", "source": {"bytes": base64.b64encode(PNG).decode()}}
    assert first == [{"text": "first"}, {"image": picture}]
    assert second == [{"json": {"added": 2}}]
    assert third == [{"text": "It broke."}]
    assert fourth == [{"text": "This call was not carried out."}]
    assert [quick, of_other, other] == [
        {"text": "Quick!"},
        {"text": "(result of the tool look)"},
        {"text": "of another"},
    ]


def test_media_that_no_result_may_hold_are_shown_beside_it() -> None:
    shown = {"images": [Image(content=PNG)], "files": [File(content=b"%PDF-")]}
    messages = [
        Message("user", "Hi"),
        Message("assistant", None, tool_calls=[CALL]),
        Message("tool", "ok", tool_call_id="a", audio=[Audio(content=b"..", mime_type="audio/wav")], **shown),
    ]
    told: dict[str, tuple[list[str], list[str]]] = {}
    for id in (CLAUDE, NOVA, LLAMA):
        body = body_of(ModelRequest(messages, tools=[ADD]), id)
        blocks = [
            block for turn in body["messages"][2:] if turn["role"] == "user" for block in turn["content"]
        ]
        inner = [kind for block in blocks[0]["toolResult"]["content"] for kind in block]
        told[id] = inner, [kind for block in blocks[1:] for kind in block if kind != "text"]
    assert told == {
        CLAUDE: (["text", "image", "document"], ["audio"]),
        NOVA: (["text", "image"], ["audio", "document"]),
        LLAMA: (["text"], ["image", "audio", "document"]),
    }


def test_an_arn_that_tells_no_model_is_given_the_model_behind_it() -> None:
    arn = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123"
    plain, told = BedrockConverse(arn), BedrockConverse(arn, base_model=CLAUDE)
    assert (plain.structured_output, told.structured_output) == ("tool", "native")
    request = ModelRequest([Message("user", "Hi")], tools=[ADD], tool_choice="required")
    assert body_of(request, arn, base_model=CLAUDE)["toolConfig"]["toolChoice"] == {"any": {}}


def test_models_that_take_less_of_results_get_less() -> None:
    """Mistral's take JSON only, Writer's no status, and most no words beside results."""
    for id in (LLAMA, MISTRAL, WRITER):
        body = results_of(id)
        roles = [(turn["role"], len(turn["content"])) for turn in body["messages"]]
        assert roles == [("user", 1), ("assistant", 5), ("user", 4), ("assistant", 1), ("user", 5)]
    mistral = [block["toolResult"] for block in results_of(MISTRAL)["messages"][2]["content"]]
    assert mistral[0]["content"][0] == {"json": {"result": "first"}}
    assert mistral[1]["content"] == [{"json": {"added": 2}}]
    writer = [block["toolResult"] for block in results_of(WRITER)["messages"][2]["content"]]
    assert all("status" not in result for result in writer)


def test_ids_and_names_are_as_bedrock_takes_them_and_unique() -> None:
    calls = [ToolCall("a b", "look at", "{}"), ToolCall("x" * 80, "add", "{}"), ToolCall("", "add", "{}")]
    messages = [Message("user", "Hi")]
    for number in range(2):
        messages.append(Message("assistant", f"{number}", tool_calls=calls))
        messages += [Message("tool", "ok", tool_call_id=call.id) for call in calls]
    body = body_of(ModelRequest(messages, tools=[ADD]))
    ids = [b["toolUse"]["toolUseId"] for t in body["messages"] for b in t["content"] if "toolUse" in b]
    assert ids[0] == "a_b"
    assert ids[3] == "a_b-2"
    assert len(set(ids)) == 6


@pytest.mark.parametrize(
    ("id", "choice", "expected"),
    [
        (CLAUDE, None, None),
        (CLAUDE, "auto", {"auto": {}}),
        (CLAUDE, "none", {"auto": {}}),
        (CLAUDE, "required", {"any": {}}),
        (NOVA, {"name": "add"}, {"tool": {"name": "add"}}),
        (LLAMA, {"name": "add"}, None),
        (LLAMA, "required", None),
    ],
)
def test_a_call_is_forced_where_the_model_can_be(id: str, choice: Any, expected: Any) -> None:
    body = body_of(ModelRequest([Message("user", "Hi")], tools=[ADD], tool_choice=choice), id)
    assert body["toolConfig"].get("toolChoice") == expected
    spec = body["toolConfig"]["tools"][0]["toolSpec"]
    assert spec == {"name": "add", "description": "Add.", "inputSchema": {"json": ADD.parameters}}


def test_a_model_that_thinks_is_not_forced() -> None:
    request = ModelRequest([Message("user", "Hi")], tools=[ADD], tool_choice="required")
    body = body_of(request, additional_fields={"thinking": {"type": "enabled", "budget_tokens": 1024}})
    assert body["toolConfig"]["toolChoice"] == {"auto": {}}
    assert body["additionalModelRequestFields"]["thinking"]["budget_tokens"] == 1024


def test_strict_tools_are_strict_where_the_model_enforces_schemas() -> None:
    strict = ToolDefinition(
        "add", "", {"type": "object", "properties": {"n": {"type": "integer"}}}, strict=True
    )
    spec = body_of(ModelRequest([Message("user", "Hi")], tools=[strict]))["toolConfig"]["tools"][0][
        "toolSpec"
    ]
    assert spec["strict"] is True
    assert spec["inputSchema"]["json"]["additionalProperties"] is False
    assert "description" not in spec
    other = body_of(ModelRequest([Message("user", "Hi")], tools=[strict]), NOVA)
    assert "strict" not in other["toolConfig"]["tools"][0]["toolSpec"]


def test_a_conversation_with_calls_names_its_tools_also_where_none_are_offered() -> None:
    body = body_of(
        [
            Message("user", "Hi"),
            Message("assistant", None, tool_calls=[CALL]),
            Message("tool", "ok", tool_call_id="a"),
        ]
    )
    assert [tool["toolSpec"]["name"] for tool in body["toolConfig"]["tools"]] == ["add"]


def test_bedrocks_own_tools_stand_beside_the_agents() -> None:
    request = ModelRequest([Message("user", "Hi")], tools=[ADD], server_tools=[SystemTool("nova_grounding")])
    tools = body_of(request, NOVA)["toolConfig"]["tools"]
    assert tools[1] == {"systemTool": {"name": "nova_grounding"}}


def thought(origin: Origin | None) -> Message:
    parts = [
        ReasoningPart("Hm.", signature="SIGNED", origin=origin),
        ReasoningPart(redacted="UkVEQUNURUQ=", origin=origin),
        TextPart("I look.", origin=origin),
        ToolCall("a", "add", "{}", origin=origin),
    ]
    return Message("assistant", parts=parts)


RESULT = Message("tool", "ok", tool_call_id="a")


def test_reasoning_goes_back_to_the_model_that_made_it() -> None:
    request = ModelRequest([Message("user", "Hi"), thought(OWN), RESULT], tools=[ADD])
    fields = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
    body = body_of(request, additional_fields=fields)
    assert body["messages"][1]["content"][:2] == [
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "SIGNED"}}},
        {"reasoningContent": {"redactedContent": "UkVEQUNURUQ="}},
    ]
    assert body["additionalModelRequestFields"] == fields


@pytest.mark.parametrize("origin", [None, Origin("anthropic", CLAUDE), Origin("bedrock", "other")])
def test_reasoning_of_others_is_left_out_and_the_model_does_not_think_in_their_turn(
    origin: Origin | None,
) -> None:
    request = ModelRequest([Message("user", "Hi"), thought(origin), RESULT], tools=[ADD])
    body = body_of(request, additional_fields={"thinking": {"type": "enabled", "budget_tokens": 1024}})
    assert "SIGNED" not in json.dumps(body)
    assert "additionalModelRequestFields" not in body
    later = [*request.messages, Message("assistant", "Done."), Message("user", "And?")]
    again = body_of(ModelRequest(later, tools=[ADD]), additional_fields={"thinking": {"type": "enabled"}})
    assert "thinking" in again["additionalModelRequestFields"]


def test_encrypted_reasoning_of_openais_models_goes_back_to_them() -> None:
    id = "global.openai.gpt-5.6"
    request = ModelRequest([Message("user", "Hi"), thought(Origin("bedrock", id)), RESULT], tools=[ADD])
    sent = body_of(request, id)["messages"][1]["content"]
    assert sent[0] == {"reasoningContent": {"redactedContent": "UkVEQUNURUQ="}}
    assert "SIGNED" not in json.dumps(sent)


def test_a_result_with_half_a_character_is_mended() -> None:
    call = ToolCall("a", "add", '{"name": "caf\udce9"}')
    result = Message("tool", '{"files": ["caf\udce9.txt"]}', tool_call_id="a")
    body = body_of([Message("user", "Hi"), Message("assistant", None, tool_calls=[call]), result])
    assert body["messages"][1]["content"][0]["toolUse"]["input"] == {"name": "caf\ufffd"}
    sent = body["messages"][2]["content"][0]["toolResult"]["content"]
    assert sent == [{"json": {"files": ["caf\ufffd.txt"]}}]


def test_no_answer_ends_with_reasoning() -> None:
    message = Message("assistant", parts=[ReasoningPart("Hm.", signature="SIGNED", origin=OWN)])
    assert turns(body_of([Message("user", "Hi"), message, Message("user", "Well?")])) == [
        ("user", ["Hi", "Well?"])
    ]


def test_a_call_of_bedrocks_goes_back_with_its_result_or_not_at_all() -> None:
    origin = Origin("bedrock", NOVA)
    call = {"toolUseId": "t1", "name": "nova_grounding", "input": {"query": "x"}, "type": "server_tool_use"}
    result = {"toolUseId": "t1", "content": [{"text": "[HIDDEN]"}], "status": "success", "type": "x_result"}
    kept = {"call": call, "result": result}
    done = ProviderCall("t1", "nova_grounding", "{}", provider_data=kept, origin=origin)
    half = ProviderCall("t2", "nova_grounding", "{}", provider_data={"call": call}, origin=origin)
    spoiled = ProviderCall(
        "t3", "nova_grounding", "{}", provider_data={"call": 7, "result": []}, origin=origin
    )
    parts = [done, half, spoiled, TextPart("Done.")]
    messages = [Message("user", "Hi"), Message("assistant", parts=parts), Message("user", "And?")]
    request = ModelRequest(messages, server_tools=[SystemTool("nova_grounding")])
    content = body_of(request, NOVA)["messages"][1]["content"]
    assert content == [{"toolUse": call}, {"toolResult": result}, {"text": "Done."}]
    assert [list(block) for block in body_of(request)["messages"][1]["content"]] == [["text"]]


def test_media_are_bytes_or_lie_in_s3(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("# Notes", encoding="utf-8")
    inline = "data:image/gif;base64," + base64.b64encode(b"GIF89a..").decode()
    body = body_of(
        [
            Message(
                "user",
                "Look",
                images=[Image(content=PNG), Image(url="s3://bucket/a.webp"), Image(url=inline)],
                files=[
                    File(content=b"%PDF-1.7", name="My report (v2).pdf"),
                    File(content=b"%PDF-1.7", name="My report (v2).pdf"),
                    File(filepath=tmp_path / "notes.md"),
                    File(content="Grüße".encode()),
                    File(url="s3://bucket/b.csv"),
                ],
                videos=[Video(url="s3://bucket/c.mp4")],
                audio=[Audio(content=b"ID3", mime_type="audio/mpeg")],
            )
        ]
    )
    blocks = [block for block in body["messages"][0]["content"] if "text" not in block]
    told = [
        (kind, block["format"], block.get("name"), next(iter(block["source"])))
        for item in blocks
        for kind, block in item.items()
    ]
    assert sorted(told, key=str) == sorted(
        [
            ("image", "png", None, "bytes"),
            ("image", "webp", None, "s3Location"),
            ("image", "gif", None, "bytes"),
            ("document", "pdf", "My report (v2) pdf", "bytes"),
            ("document", "pdf", "My report (v2) pdf (2)", "bytes"),
            ("document", "md", "document", "bytes"),
            ("document", "txt", "document (2)", "bytes"),
            ("document", "csv", "document (3)", "s3Location"),
            ("video", "mp4", None, "s3Location"),
            ("audio", "mp3", None, "bytes"),
        ],
        key=str,
    )


def test_names_that_are_numbered_stay_each_ones_own() -> None:
    names = ["a", "a", "a (2)", "", "document", "ü/ü", "a" * 300, "a" * 299]
    files = [File(content=b"%PDF-", name=name) for name in names]
    body_of([Message("user", "Look", files=files)])  # the judge wants each name once


@pytest.mark.parametrize(
    "media",
    [
        Image(url="https://a.example/p.png"),
        Image(content=b"BM..", mime_type="image/bmp"),
        Image(id="file-1"),
        File(url="https://a.example/p.pdf"),
        File(content=b"\xff\x00", mime_type="application/zip"),
        File(url="data:application/pdf;base64,%%%"),
        Audio(content=b"..", mime_type="audio/midi"),
    ],
)
def test_what_bedrock_does_not_take_is_refused_of_the_user_and_a_word_of_others(media: Any) -> None:
    kind = {Image: "images", File: "files", Audio: "audio"}[type(media)]
    with pytest.raises(UsageError):
        body_of([Message("user", "Look", **{kind: [media]})])
    old = Message("user", "Look", from_history=True, **{kind: [media]})
    assert "[" in json.dumps(body_of([old, Message("user", "And?")])["messages"][0])


def test_pictures_of_an_answer_are_shown_as_the_users() -> None:
    answer = Message("assistant", parts=[TextPart("Here."), Image(content=PNG)])
    body = body_of([Message("user", "Draw"), answer, Message("user", "Nice")])
    assert turns(body)[2] == ("user", ["(attached by the assistant)", "image", "Nice"])


def test_a_system_message_holds_no_media() -> None:
    with pytest.raises(UsageError, match="only in user messages"):
        body_of([Message("system", "Hi", images=[Image(content=PNG)]), Message("user", "Hi")])


def points(body: Any) -> list[Any]:
    tools = body.get("toolConfig", {}).get("tools", [])
    lists = [tools, body.get("system", []), *(turn["content"] for turn in body["messages"])]
    return [
        (where, at, block["cachePoint"].get("ttl", "5m"))
        for where, blocks in enumerate(lists)
        for at, block in enumerate(blocks)
        if "cachePoint" in block
    ]


def test_cache_points_by_hand_and_never_more_than_four() -> None:
    marked = ToolDefinition("add", "Add.", {"type": "object"}, cache="5m")
    messages = [
        Message("system", "Be brief.", cache="5m"),
        Message("user", "Look", files=[File(content=b"%PDF-", cache="5m")], cache="5m"),
        Message("assistant", None, tool_calls=[CALL], cache="5m"),
        Message("tool", "ok", tool_call_id="a", cache="1h"),
    ]
    body = body_of(ModelRequest(messages, tools=[marked]))
    assert points(body) == [(1, 1, "1h"), (2, 2, "1h"), (3, 1, "1h"), (4, 1, "1h")]


def test_automatic_points_stand_behind_the_system_text_and_at_the_end() -> None:
    said = [Message("system", "Be brief."), Message("user", "Hi")]
    assert points(body_of(said)) == []
    assert points(body_of(said, cache="5m")) == [(1, 1, "5m"), (2, 1, "5m")]
    assert points(body_of(said, cache="1h")) == [(1, 1, "1h"), (2, 1, "1h")]
    tools = ModelRequest([Message("user", "Hi")], tools=[ADD])
    assert points(body_of(tools, cache="5m")) == [(0, 1, "5m"), (2, 1, "5m")]


FORM = ResponseFormat(
    "person", {"type": "object", "properties": {"name": {"type": "string", "minLength": 1}}}
)


def test_a_schema_is_enforced_or_asked_for_in_words() -> None:
    body = body_of(ModelRequest([Message("user", "Hi")], response_format=FORM))
    told = body["outputConfig"]["textFormat"]
    schema = json.loads(told["structure"]["jsonSchema"]["schema"])
    assert (told["type"], told["structure"]["jsonSchema"]["name"]) == ("json_schema", "person")
    assert (schema["additionalProperties"], "minLength" in schema["properties"]["name"]) == (False, False)
    open_ = ResponseFormat("any", {"type": "object", "additionalProperties": True})
    body = body_of(ModelRequest([Message("user", "Hi")], response_format=open_))
    assert "outputConfig" not in body
    assert "JSON schema" in body["system"][-1]["text"]


@pytest.mark.parametrize(
    ("id", "way"),
    [
        (CLAUDE, "native"),
        ("global.anthropic.claude-opus-4-6-v1:0", "native"),
        ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", "tool"),
        ("qwen.qwen3-32b-v1:0", "native"),
        (NOVA, "tool"),
        ("an-imported-model", "tool"),
    ],
)
def test_the_way_of_a_structured_answer_is_the_models(id: str, way: str) -> None:
    assert BedrockConverse(id).structured_output == way
    assert BedrockConverse(id, structured_output="none").structured_output == "none"


def test_documents_may_be_cited_by_claude_and_not_beside_a_schema() -> None:
    asked = [Message("user", "Hi", files=[File(content=b"Facts.")])]
    (document,) = (
        b["document"] for b in body_of(asked, citations=True)["messages"][0]["content"] if "document" in b
    )
    assert document["citations"] == {"enabled": True}
    plain = (
        body_of(asked, NOVA, citations=True),
        body_of(ModelRequest(asked, response_format=FORM), citations=True),
    )
    assert all("citations" not in json.dumps(body) for body in plain)
