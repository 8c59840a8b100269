"""Answers of the Chat Completions API with sound: the words are the text, the sound a part beside it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kern import Agent
from kern.db import InMemoryDb
from kern.messages import Audio, Message
from kern.models.base import ModelRequest
from kern.models.openai import OpenAIChat
from tests.models.replay import ReplayServer, Reply, Sink, sse

STREAMED = ModelRequest([Message("user", "?")], stream=True)
WAV = b"RIFF\x24\0\0\0WAVEfmt "


def text64(sound: bytes) -> str:
    return base64.b64encode(sound).decode()


def whole(audio: dict[str, Any]) -> Reply:
    choice = {"message": {"role": "assistant", "content": None, "audio": audio}, "finish_reason": "stop"}
    return Reply([json.dumps({"choices": [choice]}).encode()], content_type="application/json")


def spoken(*pieces: dict[str, Any]) -> Reply:
    events = [{"choices": [{"index": 0, "delta": {"audio": piece}}]} for piece in pieces]
    return Reply([sse(*events, {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, "[DONE]")])


def model(server: ReplayServer) -> OpenAIChat:
    return OpenAIChat("m", server="openai", base_url=server.url, api_key="any", max_retries=0)


@pytest.mark.parametrize(
    ("sound", "kind"),
    [
        (WAV, "audio/wav"),
        (b"ID3\x04\0", "audio/mpeg"),
        (b"\xff\xf3\x84\xc4", "audio/mpeg"),
        (b"\xff\xf1\x50\x80", "audio/aac"),
        (b"fLaC\0", "audio/flac"),
        (b"OggS\0\x02", "audio/ogg"),
        (b"\x15\0\x17\0", "audio/pcm"),
    ],
)
async def test_a_spoken_answer_has_its_words_and_its_sound(
    server: ReplayServer, sink: Sink, sound: bytes, kind: str
) -> None:
    said = {"id": "audio_1", "data": text64(sound), "expires_at": 1, "transcript": "Hi there!"}
    server.replies = [whole(said)]
    message = (await model(server).respond(ModelRequest([Message("user", "?")]), sink)).message
    assert message.content == "Hi there!"
    assert [(audio.content, audio.mime_type) for audio in message.audio] == [(sound, kind)]
    assert Message.from_dict(json.loads(json.dumps(message.to_dict()))).audio == message.audio


async def test_a_streamed_sound_is_joined_from_pieces_that_are_encoded_one_by_one(
    server: ReplayServer, sink: Sink
) -> None:
    server.replies = [
        spoken(
            {"id": "audio_1", "transcript": "Hi"},
            {"id": "audio_1", "data": text64(b"\x15")},
            {"id": "audio_1", "transcript": " there"},
            {"id": "audio_1", "data": text64(b"\0\x17\0")},
            {"id": "audio_1", "expires_at": 1},
        )
    ]
    message = (await model(server).respond(STREAMED, sink)).message
    assert (message.content, sink.text()) == ("Hi there", "Hi there")
    assert [audio.content for audio in message.audio] == [b"\x15\0\x17\0"]


async def test_sound_that_is_not_base64_is_skipped_with_a_remark(
    server: ReplayServer, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    server.replies = [spoken({"transcript": "Hi"}, {"data": "%%%"}, {"data": 3, "id": [], "transcript": {}})]
    message = (await model(server).respond(STREAMED, sink)).message
    assert (message.content, message.audio) == ("Hi", [])
    assert "audio that is not base64 is skipped" in caplog.text


async def test_of_a_spoken_answer_the_words_go_back_and_the_sound_is_in_the_output(
    server: ReplayServer,
) -> None:
    """The service keeps a sound for an hour only, and other models do not take any."""
    said = {"id": "audio_1", "data": text64(WAV), "transcript": "Hi there!"}
    server.replies = [whole(said), whole({**said, "transcript": "Bye!"})]
    agent = Agent(model=model(server), db=InMemoryDb(), add_history_to_context=True)
    output = await agent.arun("Hello", session_id="s")
    assert [audio.content for audio in output.audio] == [WAV]
    assert (await agent.arun("Bye", session_id="s")).content == "Bye!"
    assert [message["content"] for message in server.asked[1].body["messages"]] == [
        "Hello",
        "Hi there!",
        "Bye",
    ]


async def test_sound_without_words_goes_back_as_an_attachment(server: ReplayServer) -> None:
    messages = [
        Message("user", "?"),
        Message("assistant", "", audio=[Audio(content=WAV, mime_type="audio/wav")]),
        Message("user", "!"),
    ]
    body = model(server)._body(ModelRequest(messages))
    assert body["messages"][2]["content"][-1]["type"] == "input_audio"
