"""A message is an ordered list of parts, of which its texts and lists are views."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import replace

import pytest

from kern.messages import (
    Citation,
    Image,
    Media,
    Message,
    Origin,
    ProviderCall,
    ReasoningPart,
    TextPart,
    ToolCall,
)

OPENAI = Origin("openai", "gpt-5.2")


def test_a_message_made_of_its_views_has_them_in_the_order_in_which_models_say_them() -> None:
    call, image = ToolCall("c1", "add"), Image(url="https://x/y.png")
    message = Message(
        "assistant",
        "Hi",
        tool_calls=[call],
        images=[image],
        reasoning_content="Hm",
        commentary="I begin.",
    )
    assert message.parts == [
        ReasoningPart("Hm"),
        TextPart("I begin.", commentary=True),
        TextPart("Hi"),
        image,
        call,
    ]
    assert (message.content, message.commentary, message.reasoning_content) == ("Hi", "I begin.", "Hm")
    assert message.tool_calls == [call]
    assert message.images == message.media == [image]


def test_the_views_join_what_stands_apart() -> None:
    message = Message(
        "assistant",
        parts=[
            ReasoningPart("One."),
            TextPart("It rains"),
            TextPart(" in Rome.", citations=[Citation(url="https://x")]),
            ToolCall("c1", "add"),
            ReasoningPart("", redacted="xyz"),
            ReasoningPart("Two."),
            TextPart("And here.", paragraph=True),
        ],
    )
    assert message.content == "It rains in Rome.\n\nAnd here."
    assert message.reasoning_content == "One.\n\nTwo."
    assert message.commentary is None


def test_what_is_changed_in_a_view_is_changed_in_the_parts() -> None:
    one, two = ToolCall("1", "x"), ToolCall("2", "y")
    message = Message("assistant", parts=[TextPart("a"), one, TextPart("b"), two])
    message.tool_calls[1] = ToolCall("3", "y")
    message.tool_calls.append(ToolCall("4", "z"))
    assert message.parts == [
        TextPart("a"),
        ToolCall("1", "x"),
        TextPart("b"),
        ToolCall("3", "y"),
        ToolCall("4", "z"),
    ]
    message.content = "all"
    message.tool_calls.pop(0)
    assert message.parts == [TextPart("all"), ToolCall("3", "y"), ToolCall("4", "z")]
    message.images.append(Image(url="https://x/y.png"))
    message.reasoning_content = "Hm"
    assert [type(part) for part in message.parts] == [ReasoningPart, TextPart, Image, ToolCall, ToolCall]
    message.tool_calls.clear()
    message.content = None
    assert [type(part) for part in message.parts] == [ReasoningPart, Image]


def test_setting_a_view_to_what_it_says_changes_no_part() -> None:
    parts = [TextPart("a"), TextPart("b", provider_data={"id": "1"})]
    message = Message("assistant", parts=parts)
    message.content = message.content
    message.tool_calls = message.tool_calls
    assert message.parts == parts


def test_replace_takes_the_views_and_the_parts() -> None:
    message = Message("assistant", "Hi", reasoning_content="Hm", tool_calls=[ToolCall("1", "x")])
    assert replace(message, content="Ho").parts == [ReasoningPart("Hm"), TextPart("Ho"), ToolCall("1", "x")]
    assert replace(message, content=None, tool_calls=[]).parts == [ReasoningPart("Hm")]
    assert replace(message, parts=[TextPart("new")]).content == "new"
    assert message.content == "Hi"


def test_messages_are_equal_if_they_say_the_same_whoever_made_them() -> None:
    assert Message("assistant", "Hi") == Message("assistant", parts=[TextPart("Hi", origin=OPENAI)])
    assert Message("assistant", "Hi") != Message("assistant", "Ho")


def test_a_copy_of_a_message_or_of_its_calls_is_one_by_itself() -> None:
    message = Message("assistant", "Hi", tool_calls=[ToolCall("1", "x")])
    for twin in (copy.deepcopy(message), pickle.loads(pickle.dumps(message))):
        assert twin == message
        twin.tool_calls.clear()
        assert message.tool_calls
    calls = copy.copy(message.tool_calls)
    calls.clear()
    assert message.tool_calls


def test_a_plain_message_is_written_as_it_always_was() -> None:
    message = Message("user", "Hi", images=[Image(url="https://x/y.png")])
    assert message.to_dict() == {"role": "user", "content": "Hi", "images": [{"url": "https://x/y.png"}]}
    assert Message("assistant", parts=[TextPart("Hi", origin=OPENAI)]).to_dict() == {
        "role": "assistant",
        "content": "Hi",
        "origin": ["openai", "gpt-5.2"],
    }


MESSAGES = [
    Message("user", ""),
    Message("assistant"),
    Message("assistant", "Hi", commentary="First.", reasoning_content="Hm", tool_calls=[ToolCall("1", "x")]),
    Message("user", "Hi", images=[Image(content=b"png", cache="5m")], cache="1h"),
    Message("assistant", parts=[Image(url="https://x", origin=OPENAI), TextPart("a", origin=OPENAI)]),
    Message(
        "assistant", parts=[ReasoningPart("Hm", signature="s", origin=OPENAI), TextPart("a", origin=OPENAI)]
    ),
    Message("assistant", parts=[ReasoningPart(redacted="r"), ReasoningPart("b", provider_data={"id": "r1"})]),
    Message(
        "assistant",
        parts=[
            TextPart("a", citations=[Citation(url="https://x", start=0, end=1, provider_data={"n": 1})]),
            TextPart("", provider_data={"id": "m"}),
            ToolCall("1", "x", "{}", {"id": "f"}, origin=OPENAI),
            ProviderCall(
                "p",
                "web_search",
                '{"query": "x"}',
                result=[{"url": "https://x"}],
                status="failed",
                media=[Image(content=b"png")],
                provider_data={"type": "web_search_call"},
                origin=Origin("anthropic", "claude"),
            ),
            TextPart("b", paragraph=True, origin=OPENAI),
            Image(content=b"png", origin=OPENAI),
            TextPart("c", commentary=True),
            ToolCall("2", "y"),
            Image(url="https://x"),
        ],
    ),
]


@pytest.mark.parametrize("message", MESSAGES)
def test_what_is_written_is_read_back(message: Message) -> None:
    data = json.loads(json.dumps(message.to_dict()))
    read = Message.from_dict(data)
    assert read == message
    assert [part.origin for part in read.parts] == [part.origin for part in message.parts]
    assert read.to_dict() == data
    assert (data.get("content"), data["role"]) == (message.content, message.role)


def test_the_bytes_of_a_providers_call_lie_on_the_shelf_too() -> None:
    shelf: dict[str, bytes] = {}
    message = MESSAGES[-1]
    read = Message.from_dict(message.to_dict(shelf))
    assert list(shelf.values()) == [b"png"]
    lacking: list[Media] = [media for media in read.media if media.content is None and media.url is None]
    assert len(lacking) == 2
    assert all(media.sha256 in shelf for media in lacking)


@pytest.mark.parametrize(
    "damage",
    [
        {"parts": [1]},
        {"parts": [{"type": "dream"}]},
        {"parts": [{"type": "text", "text": 1}]},
        {"parts": [{"type": "tool_call"}]},
        {"parts": [], "tool_calls": [{"id": "1", "name": "x"}]},
        {"parts": [{"type": "text"}], "content": None},
        {"parts": [{"type": "text", "citations": [{"url": 1}]}]},
        {"parts": [{"type": "text", "citations": [1]}]},
        {"parts": [{"type": "provider_call", "id": "p", "name": "n", "status": "lost"}]},
        {"parts": [{"type": "provider_call", "id": "p", "name": "n", "media": [{"kind": "smell"}]}]},
        {"parts": [{"type": "provider_call", "id": "p"}]},
        {"parts": 3},
        {"origin": "openai"},
        {"content": "Hi", "origin": ["openai", 3]},
    ],
)
def test_a_damaged_row_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises((ValueError, KeyError, AttributeError, TypeError)):
        Message.from_dict({"role": "assistant", "content": "Hi", **damage})


def test_without_what_providers_keep_a_message_says_what_anyone_could_have_said() -> None:
    assert MESSAGES[-1].plain().parts == [
        TextPart("a", citations=[Citation(url="https://x", start=0, end=1, provider_data={"n": 1})]),
        TextPart(""),
        ToolCall("1", "x", "{}"),
        TextPart("b", paragraph=True),
        Image(content=b"png"),
        TextPart("c", commentary=True),
        ToolCall("2", "y"),
        Image(url="https://x"),
    ]
