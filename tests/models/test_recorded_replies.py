"""How recorded answers of real providers go back: as the recorded request that followed them, and unrefused.

The folder of recordings lies beside the project, not in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kern.errors import KernError
from kern.messages import Message
from kern.models.anthropic import AnthropicMessages
from kern.models.base import Model, ModelRequest
from kern.models.openai import OpenAIChat, OpenAIResponses
from kern.testing import ModelServer
from tests.models.replay import ReplayServer, Reply, Sink

FOLDERS = {"openai-chat": "openai", "gemini-compat": "google-chat"}
KINDS = {"/chat/completions": OpenAIChat, "/responses": OpenAIResponses}


def _folder() -> Path | None:
    folders = (parent / "shared" / "recorded" for parent in Path(__file__).resolve().parents)
    return next((folder for folder in folders if folder.is_dir()), None)


FOLDER = _folder()
needs_folder = pytest.mark.skipif(FOLDER is None, reason="no folder shared/recorded beside the project")


def exchange(name: str) -> Any:
    assert FOLDER is not None
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def names(pattern: str) -> list[str]:
    found = []
    for file in sorted(FOLDER.glob(pattern)) if FOLDER is not None else ():
        path = json.loads(file.read_text(encoding="utf-8"))["request"]["path"] or ""
        if path.endswith(tuple(KINDS)):
            found.append(f"{file.parent.name}/{file.stem}")
    return found


def model_of(recorded: Any, base_url: str, server: str | None = None) -> OpenAIChat | OpenAIResponses:
    path, body = recorded["request"]["path"], recorded["request"]["json"] or {}
    model_id = body.get("model") or "m"
    if path.endswith("/responses"):
        return OpenAIResponses(model_id, base_url=base_url, api_key="any", max_retries=0)
    return OpenAIChat(model_id, server=server, base_url=base_url, api_key="any", max_retries=0)


def server_of(name: str) -> str:
    folder = name.partition("/")[0]
    return FOLDERS.get(folder, folder)


async def answered(
    server: ReplayServer, sink: Sink, recorded: Any, model: OpenAIChat | OpenAIResponses
) -> Message:
    """The recorded answer, served byte for byte and read, and through a database."""
    response = recorded["response"]
    kind = next(value for name, value in response["headers"].items() if name.lower() == "content-type")
    server.replies = [Reply([response["body"].encode()], status=response["status"], content_type=kind)]
    streamed = "event-stream" in kind
    answer = await model.respond(ModelRequest([Message("user", "?")], stream=streamed), sink)
    return Message.from_dict(json.loads(json.dumps(answer.message.to_dict())))


def results(message: Message) -> list[Message]:
    return [Message("tool", "ok", tool_call_id=call.id, tool_name=call.name) for call in message.tool_calls]


def parts(body: Any) -> list[dict[str, Any]]:
    """What of a conversation is the assistant's, without what two requests may differ in."""
    given = body.get("messages") or body["input"]
    own = [
        item
        for item in given
        if item.get("role") == "assistant" or item.get("type") in ("reasoning", "function_call")
    ]
    return [comparable(item) for item in own]


def comparable(value: Any) -> Any:
    if isinstance(value, dict):
        # What was null or empty may as well be left out; a status and an index tell nothing here.
        kept = {k: comparable(v) for k, v in value.items() if k not in ("status", "index", "format")}
        return {k: v for k, v in kept.items() if v not in (None, "", []) or k == "summary"}
    if isinstance(value, list):
        return [comparable(item) for item in value]
    if isinstance(value, str) and value.startswith("{"):
        return json.loads(value)
    return value


@needs_folder
@pytest.mark.parametrize("known", [True, False], ids=["known", "any server"])
@pytest.mark.parametrize("first", names("*/*-1.json"))
async def test_an_answer_goes_back_as_the_recorded_next_request_has_it(
    server: ReplayServer, sink: Sink, first: str, known: bool
) -> None:
    assert FOLDER is not None
    second = first.removesuffix("1") + "2"
    if not (FOLDER / f"{second}.json").exists():
        pytest.skip("only the first of the two was recorded")
    recorded = exchange(first)
    model = model_of(recorded, server.url, server_of(first) if known else None)
    message = await answered(server, sink, recorded, model)
    body = model._body(ModelRequest([Message("user", "?"), message, *results(message)]))
    assert parts(body) == parts(exchange(second)["request"]["json"])


@needs_folder
@pytest.mark.parametrize("name", ["mistral/thinking-replayed", "zai/preserved-thinking-2"])
async def test_an_answer_of_which_only_the_next_request_is_recorded_goes_back_as_it_has_it(
    server: ReplayServer, sink: Sink, name: str
) -> None:
    recorded = exchange(name)
    said = next(
        message for message in recorded["request"]["json"]["messages"] if message["role"] == "assistant"
    )
    first = {"choices": [{"message": said, "finish_reason": "stop"}]}
    before = {
        "request": recorded["request"],
        "response": {
            "status": 200,
            "headers": {"content-type": "application/json"},
            "body": json.dumps(first),
        },
    }
    model = model_of(recorded, server.url, server_of(name))
    message = await answered(server, sink, before, model)
    body = model._body(ModelRequest([Message("user", "?"), message, Message("user", "And?")]))
    assert parts(body) == parts(recorded["request"]["json"])


@needs_folder
@pytest.mark.parametrize("name", names("*/*.json"))
async def test_what_follows_a_recorded_answer_is_refused_by_no_server(
    server: ReplayServer, sink: Sink, name: str
) -> None:
    recorded = exchange(name)
    if recorded["response"].get("body") is None:
        pytest.skip("the answer is binary")
    try:
        message = await answered(server, sink, recorded, model_of(recorded, server.url))
    except KernError:
        return  # which is no answer, and goes nowhere
    asked = [Message("user", "?"), message, *results(message), Message("user", "And?")]
    async with ModelServer(lambda request: "ok") as judge:
        kinds = (*KINDS.values(), AnthropicMessages)
        models: list[Model] = [kind("other", base_url=judge.base_url, api_key="any") for kind in kinds]
        own = model_of(recorded, judge.base_url)
        if name.startswith("openai") or isinstance(own, OpenAIChat):  # other makers' items have other ids
            models.append(own)
        for model in models:
            assert (await model.respond(ModelRequest(asked), sink)).message.content == "ok"
