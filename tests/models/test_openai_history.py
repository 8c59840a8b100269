"""Earlier answers on their way back to a server: nothing of them makes it refuse the conversation."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kern.errors import UsageError
from kern.messages import Audio, File, Image, Message, ToolCall, Video
from kern.models.base import ModelRequest
from kern.models.openai import OpenAIChat, OpenAIResponses

ASK = Message("user", "Hi")
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
BARE = {"type": "reasoning", "id": "rs_1", "summary": []}
SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search"}}
CALL = {"type": "function_call", "call_id": "c1", "id": "fc_1"}


def sent(model: Any, *messages: Message) -> list[dict[str, Any]]:
    """The conversation as it goes out."""
    body = model._body(ModelRequest([ASK, *messages]))
    items: list[dict[str, Any]] = body["messages" if isinstance(model, OpenAIChat) else "input"]
    return items[1:]


def answered(items: Any, text: str | None = None, *calls: ToolCall, **record: Any) -> Message:
    data = {"openai": {"model": "gpt-5.2", "items": items, **record}}
    return Message("assistant", text, tool_calls=list(calls), provider_data=data)


CHAT, RESPONSES = OpenAIChat("m"), OpenAIResponses("gpt-5.2")


def result_of(call_id: str = "c1") -> Message:
    return Message("tool", "ok", tool_call_id=call_id, tool_name="t")


def call(**changed: Any) -> ToolCall:
    return ToolCall(**{"id": "c1", "name": "t", "arguments": "{}", **changed})


def test_items_go_back_under_their_ids_with_their_reasoning() -> None:
    message = answered([REASONING, SEARCH, CALL], None, call(), whole=True)
    reasoning, search, called, _ = sent(RESPONSES, message, result_of())
    assert (reasoning, search) == (REASONING, SEARCH)
    assert (called["id"], called["call_id"], called["arguments"]) == ("fc_1", "c1", "{}")


def test_without_the_reasoning_that_they_need_items_go_back_without_their_ids() -> None:
    message = answered([BARE, SEARCH, CALL], None, call(), whole=False)
    assert [item.get("id") for item in sent(RESPONSES, message, result_of())] == [None, None]
    # What an older version stored does not tell whether reasoning was left out.
    message = answered([SEARCH, CALL], None, call())
    assert [item["type"] for item in sent(RESPONSES, message, result_of())] == [
        "function_call",
        "function_call_output",
    ]


def test_reasoning_by_its_id_goes_back_only_where_the_store_has_it_and_in_the_same_turn() -> None:
    stored = OpenAIResponses("gpt-5.2", store=True)
    message = answered([BARE, CALL], None, call(), whole=False)
    assert [item.get("id") for item in sent(stored, message, result_of())] == ["rs_1", "fc_1", None]
    later = sent(stored, message, result_of(), Message("assistant", "Done"), Message("user", "And?"))
    assert not any("id" in item for item in later)


@pytest.mark.parametrize(
    "item",
    [
        {"note": "no type"},
        {"type": ["message"]},
        {"type": None, "id": "x"},
        {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c9", "name": "x", "input": "4"},
        {"type": "mcp_approval_request", "id": "mcpr_1", "name": "x", "arguments": "{}"},
        {"type": "note", "id": "n_1"},
        {**REASONING, "id": None},
        {**REASONING, "summary": None},
        {**REASONING, "summary": [{"text": 3}]},
        {**REASONING, "content": "x"},
        {**REASONING, "encrypted_content": {}},
        {**REASONING, "encrypted_content": 3},
    ],
)
def test_an_item_that_cannot_go_back_takes_the_ids_of_the_others_with_it(item: dict[str, Any]) -> None:
    text = {"type": "message", "id": "msg_1", "chars": 4, "phase": "final_answer"}
    [said] = sent(RESPONSES, answered([REASONING, item, text], "fine", whole=True))
    assert "id" not in said
    assert (said["type"], said["phase"], said["content"][0]["text"]) == ("message", "final_answer", "fine")


@pytest.mark.parametrize(
    "provider_data",
    [
        {"openai": None},
        {"openai": {"model": "gpt-5.2"}},
        {"openai": {"model": "gpt-5.2", "items": "none"}},
        {"openai": {"model": "gpt-5.2", "items": [None, 3]}},
        {"openai": {"model": "gpt-5.2", "items": [{"type": "message"}]}},
        {"openai": {"model": "gpt-5.2", "items": [{"type": "message", "chars": -1}]}},
        {"openai": {"model": "gpt-5.2", "items": [{"type": "message", "chars": 10**9}]}},
        {"openai": {"model": "gpt-5.2", "items": [{"type": "message", "chars": 4, "of": {}, "start": 0}]}},
        {"openai": {"model": "gpt-5.2", "items": [CALL]}},
        {"openai-chat": {"model": "m", "reasoning": "role", "reasoning_details": 3, "extra_content": []}},
        {"openai-chat": {"model": "m", "reasoning": ["x"]}},
        [1],
    ],
)
def test_a_record_that_is_damaged_leaves_the_plain_answer(provider_data: Any) -> None:
    message = Message("assistant", "fine", provider_data=provider_data)
    assert sent(CHAT, message) == [{"role": "assistant", "content": "fine"}]
    [said] = sent(RESPONSES, message)
    assert (said["role"], said["content"][0]["text"]) == ("assistant", "fine")


def test_an_assistants_text_is_a_typed_message_of_typed_parts() -> None:
    assert sent(RESPONSES, Message("assistant", "fine")) == [
        {
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "fine", "annotations": []}],
        }
    ]


@pytest.mark.parametrize("model", [CHAT, RESPONSES], ids=["chat", "responses"])
@pytest.mark.parametrize(
    ("written", "goes_back"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ("", "{}"),
        ("  ", "{}"),
        ("null", "{}"),
        ('{"a": "he said', None),
        ('["a"]', None),
        ('"{}"', None),
        ("7", None),
        ('{"a": NaN}', None),
        ('{"a": -Infinity}', None),
        ("{" * 5_000, None),
        ('{"a": 1} {"a": 1}', None),
    ],
)
def test_arguments_go_back_as_a_json_object(model: Any, written: str, goes_back: str | None) -> None:
    message = Message("assistant", tool_calls=[call(arguments=written)])
    said = sent(model, message, result_of())[0]
    arguments = said["arguments"] if model is RESPONSES else said["tool_calls"][0]["function"]["arguments"]
    assert isinstance(json.loads(arguments, parse_constant=pytest.fail), dict)
    assert goes_back is None or arguments == goes_back
    assert goes_back is not None or json.loads(arguments) == {"invalid_json": written}


def test_text_beside_tool_calls_is_never_null() -> None:
    assert sent(CHAT, Message("assistant", tool_calls=[call()]), result_of())[0]["content"] == ""


@pytest.mark.parametrize(("model", "longest"), [(CHAT, 40), (RESPONSES, 64)], ids=["chat", "responses"])
def test_a_long_id_is_cut_alike_in_the_call_and_its_result(model: Any, longest: int) -> None:
    ids = ["chatcmpl-tool-" + "0" * 60 + end for end in "ab"]
    message = Message("assistant", tool_calls=[call(id=call_id) for call_id in ids])
    said = sent(model, message, *map(result_of, ids))
    calls = (
        [i["call_id"] for i in said[:2]] if model is RESPONSES else [c["id"] for c in said[0]["tool_calls"]]
    )
    results = [item.get("call_id") or item.get("tool_call_id") for item in said[-2:]]
    assert calls == results
    assert len(set(calls)) == 2
    assert max(map(len, calls)) <= longest


@pytest.mark.parametrize("model", [CHAT, RESPONSES], ids=["chat", "responses"])
def test_pictures_of_an_assistant_follow_the_results_of_its_calls_as_the_users(model: Any) -> None:
    picture = Image(content=b"png", mime_type="image/png")
    message = Message("assistant", "Look", tool_calls=[call()], images=[picture])
    last = sent(model, message, result_of(), Message("user", "Nice"))[-2]
    assert last["role"] == "user"
    assert "cG5n" in json.dumps(last)


@pytest.mark.parametrize("role", ["assistant", "tool", "history"])
@pytest.mark.parametrize("model", [CHAT, RESPONSES], ids=["chat", "responses"])
def test_earlier_media_that_cannot_be_sent_are_mentioned(model: Any, role: str) -> None:
    media: dict[str, Any] = {"videos": [Video(url="http://x.test/v.mp4", name="v.mp4")]}
    if model is CHAT:
        media["files"] = [File(url="http://x.test/a.pdf", name="a.pdf")]
    else:
        media["audio"] = [Audio(content=b"wav", name="a.wav")]
    message = Message("user", "See", from_history=True, **media)
    if role == "assistant":
        message = Message("assistant", "See", **media)
    if role == "tool":
        message = Message("tool", "See", tool_call_id="c1", **media)
    opening = [Message("assistant", tool_calls=[call()])] if role == "tool" else []
    text = json.dumps(sent(model, *opening, message))
    assert "[video: v.mp4]" in text
    assert "a.pdf]" in text or "a.wav]" in text
    with pytest.raises(UsageError):
        sent(model, Message("user", "See", **media))


def test_what_a_chat_server_has_signed_goes_back_to_its_model_alone() -> None:
    details = [{"type": "reasoning.text", "text": "Hm", "signature": "s", "index": 0}]
    extra = {"google": {"thought_signature": "AV"}}
    record = {"model": "m", "reasoning_details": details, "extra_content": extra, "reasoning": "reasoning"}
    one = call(provider_data={"openai-chat": {"model": "m", "extra_content": extra}})
    data = {"openai-chat": record}
    message = Message("assistant", tool_calls=[one], reasoning_content="Hm", provider_data=data)
    said = sent(CHAT, message, result_of())[0]
    assert said["reasoning_details"] == details
    assert said["extra_content"] == said["tool_calls"][0]["extra_content"] == extra
    assert "reasoning" not in said  # the same again, unsigned
    other = sent(OpenAIChat("n"), message, result_of())[0]
    assert not other.keys() & {"reasoning_details", "extra_content", "reasoning"}
    assert "extra_content" not in other["tool_calls"][0]


def test_a_call_goes_back_in_its_namespace() -> None:
    one = call(provider_data={"openai": {"model": "gpt-5.2", "namespace": "crm"}})
    message = Message("assistant", tool_calls=[one])
    assert sent(RESPONSES, message, result_of())[0]["namespace"] == "crm"
    assert "namespace" not in sent(OpenAIResponses("gpt-5"), message, result_of())[0]


def test_a_picture_that_the_provider_made_is_mentioned_and_not_sent_again() -> None:
    made = {"type": "image_generation_call", "id": "ig_1", "revised_prompt": "a cat"}
    message = answered(
        [REASONING, made, {"type": "message", "id": "msg_1", "chars": 5}], "Here.", whole=False
    )
    message.images = [Image(content=b"png", mime_type="image/png")]
    assert [item["content"][0]["text"] for item in sent(RESPONSES, message)] == [
        "Here.",
        "[image, made with image_generation: a cat]",
    ]
    assert "cG5n" in json.dumps(sent(OpenAIResponses("gpt-5"), message))  # another model has not seen it
