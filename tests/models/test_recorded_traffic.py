"""What real providers have sent, served byte for byte and decoded: recorded exchanges of the shared folder.

The folder lies beside the project, not in it. What a body says is read here by other means than Kern's.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kern.errors import (
    ModelAuthError,
    ModelBadRequestError,
    ModelBehaviorError,
    ModelError,
    ModelIncompleteError,
    ModelRateLimitError,
    ModelServerError,
)
from kern.messages import Message, ProviderCall, ReasoningPart, TextPart, ToolCall
from kern.models.base import ModelRequest, ResponseFormat
from kern.models.openai import OpenAIChat, OpenAIResponses
from tests.models.replay import ReplayServer, Reply, Sink

HOW_MANY = 56
PATHS = {"/chat/completions": OpenAIChat, "/responses": OpenAIResponses}
FOLDERS = {"openai-chat": "openai", "gemini-compat": "google-chat"}
"""Folders that have other names than the servers."""
CUT = {"length", "max_output_tokens", "content_filter"}
ERRORS: dict[str, type[Exception]] = {
    "azure/prompt-filtered": ModelIncompleteError,
    "groq/tool-use-failed": ModelBadRequestError,
    "llamacpp/error-500": ModelServerError,
    "mistral/error-model": ModelBadRequestError,
    "openai-responses/error-event": ModelRateLimitError,
    "openrouter/error-429-raw": ModelRateLimitError,
    "openrouter/error-chunk-with-choices": ModelBadRequestError,
    "xai/error-auth-400": ModelAuthError,
}
"""The classes that the errors have, where it is more than `ModelError`."""


def recorded() -> Path | None:
    for parent in Path(__file__).resolve().parents:
        if (parent / "shared" / "recorded").is_dir():
            return parent / "shared" / "recorded"
    return None


FOLDER = recorded()


def exchanges() -> list[str]:
    if FOLDER is None:
        return []
    names = []
    for file in sorted(FOLDER.glob("*/*.json")):
        path = json.loads(file.read_text(encoding="utf-8"))["request"]["path"] or ""
        if path.endswith(tuple(PATHS)):
            names.append(f"{file.parent.name}/{file.stem}")
    return names


def model_of(name: str, base_url: str, *, known: bool = True) -> OpenAIChat | OpenAIResponses:
    """The model object that reads a recorded exchange; `known`: its server is named."""
    assert FOLDER is not None
    path = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["request"]["path"]
    if path.endswith("/responses"):
        return OpenAIResponses("m", base_url=base_url, api_key="any", max_retries=0)
    folder = name.partition("/")[0]
    server = FOLDERS.get(folder, folder) if known else None
    return OpenAIChat("m", server=server, base_url=base_url, api_key="any", max_retries=0)


def cases() -> list[Any]:
    """Each exchange as its own server's, and those of the chat protocol as any server's, too."""
    found = []
    for name in exchanges():
        found.append(pytest.param(name, True, id=name))
        if isinstance(model_of(name, "http://localhost"), OpenAIChat):
            found.append(pytest.param(name, False, id=f"{name} of any server"))
    return found


needs_folder = pytest.mark.skipif(FOLDER is None, reason="no folder shared/recorded beside the project")


@dataclass
class Said:
    """What a body says."""

    text: str = ""
    commentary: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)  # id, name, arguments
    usage: dict[str, Any] = field(default_factory=dict)
    refused: bool = False
    error: str | None = None
    cut: bool = False
    unknown: list[str] = field(default_factory=list)


def objects(body: str, content_type: str) -> list[dict[str, Any]]:
    if not content_type.startswith("text/event-stream"):
        return [json.loads(body)]
    data = [line.removeprefix("data:").strip() for line in body.splitlines() if line.startswith("data:")]
    return [json.loads(text) for text in data if text != "[DONE]"]


def error_text(error: Any) -> str:
    return error if isinstance(error, str) else error["message"]


def usage_of(usage: dict[str, Any] | None, spent: str, said: str, *, apart: bool = False) -> dict[str, Any]:
    """The counts as Kern tells them; `apart`: reasoning is no part of what the server calls completion."""
    usage = usage or {}
    if apart:
        generated = usage["total_tokens"] - usage[spent]
        reasoned = generated - usage[said]
        usage = {**usage, said: generated, f"{said}_details": {"reasoning_tokens": reasoned}}
    details = {
        "cached_tokens": (usage.get(f"{spent}_details") or {}).get("cached_tokens")
        or usage.get("cached_tokens")
        or usage.get("num_cached_tokens"),
        "cache_write_tokens": (usage.get(f"{spent}_details") or {}).get("cache_write_tokens"),
        "reasoning_tokens": (usage.get(f"{said}_details") or {}).get("reasoning_tokens"),
    }
    counts = {
        "input_tokens": usage.get(spent),
        "output_tokens": usage.get(said),
        "total_tokens": usage.get("total_tokens"),
        **details,
    }
    return {name: value for name, value in counts.items() if value} | {"requests": 1}


def told_cost(body: str, content_type: str) -> dict[str, Any]:
    """What OpenRouter, Perplexity and xAI say that an answer has cost."""
    usages = [
        part.get("usage") or part.get("response", {}).get("usage") or {}
        for part in objects(body, content_type)
    ]
    ticks = [usage["cost_in_usd_ticks"] for usage in usages if "cost_in_usd_ticks" in usage]
    costs = [usage.get("cost") for usage in usages] + [tick / 1e10 for tick in ticks]
    cost = ([cost for cost in costs if cost is not None] or [None])[-1]
    total = cost["total_cost"] if isinstance(cost, dict) else cost
    return {} if total is None else {"cost": pytest.approx(total)}


def arguments_of(text: str | None) -> str:
    return "{}" if text in (None, "", "null") else text


def chat(body: str, content_type: str, *, apart: bool = False) -> Said:
    said = Said()
    calls: dict[Any, dict[str, Any]] = {}
    usage, last = None, None
    run_there: set[int] = set()
    for chunk in objects(body, content_type):
        error = chunk.get("error") or (chunk if chunk.get("object") == "error" else None)
        if error:
            said.error = error_text(error)
            break
        usage = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage") or usage
        for choice in chunk.get("choices") or ():
            whole = "message" in choice
            delta = choice["message"] if whole else choice["delta"]
            content = delta.get("content")
            for part in [{"text": content}] if isinstance(content, str) else content or ():
                if part.get("type") == "thinking":
                    said.reasoning += "".join(piece["text"] for piece in part["thinking"])
                else:
                    said.text += part["text"]
            said.reasoning += delta.get("reasoning_content") or delta.get("reasoning") or ""
            said.text += delta.get("refusal") or ""
            said.refused = said.refused or bool(delta.get("refusal"))
            run_there |= {tool.get("index", n) for n, tool in enumerate(delta.get("executed_tools") or ())}
            for number, entry in enumerate(delta.get("tool_calls") or ()):
                if whole:
                    key: Any = number
                elif entry.get("id"):  # with the first delta of a call, in all that is recorded
                    key = last = (entry.get("index"), entry["id"])
                else:
                    key = next(k for k in reversed(calls) if k[0] == entry.get("index")) or last
                call = calls.setdefault(key, {"id": entry.get("id"), "name": "", "arguments": ""})
                function = entry.get("function") or {}
                call["name"] += function.get("name") or ""
                call["arguments"] += function.get("arguments") or ""
            ends = {choice.get("finish_reason"), choice.get("native_finish_reason")}
            said.cut = said.cut or bool(ends & CUT)
    said.calls = [(c["id"], c["name"], arguments_of(c["arguments"])) for c in calls.values()]
    said.usage = usage_of(usage, "prompt_tokens", "completion_tokens", apart=apart)
    if "-search-" in objects(body, content_type)[0].get("model", ""):
        said.usage["billed"] = {"web_searches": 1}
    if run_there:
        said.usage["billed"] = {"server_tools": len(run_there)}
    return said


def responses(body: str, content_type: str) -> Said:
    said = Said()
    last = objects(body, content_type)[-1]
    final = last.get("response", last)
    if final.get("error"):
        said.error = error_text(final["error"])
        return said
    texts: dict[bool, list[str]] = {True: [], False: []}
    reasoning: list[str] = []
    for item in final["output"]:
        if item["type"] == "message":
            said.refused = said.refused or any("refusal" in part for part in item["content"])
            whole = "".join(part.get("text") or part.get("refusal") or "" for part in item["content"])
            texts[item.get("phase") == "commentary"].append(whole)
        elif item["type"] == "function_call":
            said.calls.append((item["call_id"], item["name"], arguments_of(item["arguments"])))
        elif item["type"] == "reasoning":
            reasoning += [part["text"] for part in item.get("content") or item["summary"]]
        else:
            said.unknown.append(item["type"])
    said.text, said.commentary = "\n\n".join(texts[False]), "\n\n".join(texts[True])
    said.reasoning = "\n\n".join(reasoning)
    said.cut = final["status"] == "incomplete"
    said.usage = usage_of(final.get("usage"), "input_tokens", "output_tokens")
    if "cost_in_usd_ticks" in (final.get("usage") or {}):
        said.usage["cost"] = pytest.approx(final["usage"]["cost_in_usd_ticks"] / 1e10)
    if billed := billed_of(final["output"]):
        said.usage["billed"] = billed
    return said


def billed_of(items: list[dict[str, Any]]) -> dict[str, int]:
    """What of the provider's tools is paid for, by the prices of OpenAI's page."""
    kinds = Counter(
        item["type"] for item in items if item.get("action", {}).get("type", "search") == "search"
    )
    names = {
        "web_searches": "web_search_call",
        "storage_searches": "file_search_call",
        "code_executions": "code_interpreter_call",
        "images_generated": "image_generation_call",
    }
    return {name: kinds[kind] for name, kind in names.items() if kinds[kind]}


def pieces(body: bytes, seed: int) -> list[bytes]:
    """The body whole (seed 0), or in pieces of random length."""
    if not seed:
        return [body]
    dice = random.Random(seed)
    largest = dice.choice([3, 40, 400]) if len(body) < 20_000 else 400
    cut, at = [], 0
    while at < len(body):
        size = dice.randint(1, largest)
        cut.append(body[at : at + size])
        at += size
    return cut


def served(name: str, seed: int) -> tuple[Reply, dict[str, Any]]:
    assert FOLDER is not None
    exchange = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    answer = exchange["response"]
    headers = dict(answer["headers"])
    content_type = headers.pop("content-type")
    body = pieces(answer["body"].encode(), seed)
    return Reply(body, status=answer["status"], headers=headers, content_type=content_type), exchange


@needs_folder
def test_all_of_both_protocols_is_here() -> None:
    assert len(exchanges()) == HOW_MANY


@needs_folder
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("name", "known"), cases())
async def test_what_a_provider_has_sent_is_decoded_as_the_body_says(
    server: ReplayServer, sink: Sink, name: str, known: bool, seed: int
) -> None:
    reply, exchange = served(name, seed)
    server.replies = [reply]
    model = model_of(name, server.url, known=known)
    streamed = reply.content_type.startswith("text/event-stream")
    body = exchange["response"]["body"]
    if isinstance(model, OpenAIChat):
        # Gemini's answer does not say how many tokens were reasoning, so that only a known server tells.
        apart = name.startswith("xai/call") or (known and name.startswith("gemini-compat/"))
        said = chat(body, reply.content_type, apart=apart)
        if known and model.tells_cost and said.usage.get("total_tokens"):
            said.usage |= told_cost(body, reply.content_type)
    else:
        said = responses(body, reply.content_type)
    request = ModelRequest([Message("user", "Hi")], stream=streamed)
    if said.error is not None or said.cut:
        kind = ERRORS.get(name, ModelError if said.error is not None else ModelIncompleteError)
        with pytest.raises(kind) as caught:
            await model.respond(request, sink)
        assert (said.error or "incomplete") in str(caught.value)
        assert str(caught.value).startswith(f"{model.provider}/m: ")
        if isinstance(caught.value, ModelIncompleteError) and said.error is None:
            assert caught.value.content == said.text
            assert caught.value.usage.to_dict() == said.usage
        return
    pictures = said.unknown.count("image_generation_call")
    if said.unknown and not (said.text or said.commentary or said.calls or pictures):
        with pytest.raises(ModelBehaviorError) as refused:
            await model.respond(request, sink)
        assert all(kind in str(refused.value) for kind in said.unknown)
        return
    answer = await model.respond(request, sink)
    message = answer.message
    assert (message.content or "", message.commentary or "") == (said.text, said.commentary)
    assert (message.reasoning_content or "") == said.reasoning
    calls = [
        (call.id if given else given, call.name, call.arguments)
        for call, (given, _, _) in zip(message.tool_calls, said.calls, strict=True)
    ]
    assert calls == said.calls
    assert len(message.images) <= pictures  # the base64 of the one that is recorded was cut
    assert all(call.id for call in message.tool_calls)
    assert answer.usage.to_dict() == said.usage
    assert (answer.finish_reason == "refusal") == said.refused
    shown = (sink.text(), sink.text("commentary"), sink.text("reasoning"))
    assert shown == ((said.text, said.commentary, said.reasoning) if streamed else ("", "", ""))


@needs_folder
@pytest.mark.parametrize("name", exchanges())
async def test_a_stream_that_breaks_off_is_never_an_answer(
    server: ReplayServer, sink: Sink, name: str
) -> None:
    reply, _ = served(name, 0)
    if not reply.content_type.startswith("text/event-stream"):
        return
    model = model_of(name, server.url)
    body = reply.body[0]
    ends = [
        body.find(mark)
        for mark in (b'"finish_reason":"', b'"finish_reason": "', b"event: response.completed")
    ]
    end = min((at for at in ends if at >= 0), default=len(body))
    dice = random.Random(name)
    for clean in (True, False):
        server.replies = [Reply([body[: dice.randint(1, end)]], cut=not clean)]
        with pytest.raises(ModelError):
            await model.respond(ModelRequest([Message("user", "Hi")], stream=True), sink)


@needs_folder
async def test_of_two_messages_with_the_same_json_the_last_is_the_answer(
    server: ReplayServer, sink: Sink
) -> None:
    reply, exchange = served("openai-responses/two-messages-same-json", 0)
    server.replies = [reply]
    first, last = (item["content"][0]["text"] for item in json.loads(exchange["response"]["body"])["output"])
    asked = ModelRequest([Message("user", "Hi")], response_format=ResponseFormat("x", {"type": "object"}))
    message = (await OpenAIResponses("m", base_url=server.url).respond(asked, sink)).message
    assert (message.content, message.commentary) == (last, first)
    assert json.loads(message.content or "")


def kinds(output: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What a response's items are as parts: their kinds and what tells them apart, in order."""
    found: list[tuple[str, str]] = []
    for item in output:
        if item["type"] == "message":
            found.append(
                ("TextPart", "".join(p.get("text") or p.get("refusal") or "" for p in item["content"]))
            )
        elif item["type"] == "function_call":
            found.append(("ToolCall", item["call_id"]))
        elif item["type"] in ("reasoning", "compaction"):
            found.append(("ReasoningPart", item.get("encrypted_content") or ""))
        else:
            found.append(("ProviderCall", item["id"]))
    return found


@needs_folder
@pytest.mark.parametrize("name", [name for name in exchanges() if name.startswith("openai-responses/")])
async def test_the_parts_of_a_response_are_its_items_in_their_order(
    server: ReplayServer, sink: Sink, name: str
) -> None:
    reply, exchange = served(name, 0)
    server.replies = [reply]
    streamed = reply.content_type.startswith("text/event-stream")
    try:
        answer = await OpenAIResponses("m", base_url=server.url, max_retries=0).respond(
            ModelRequest([Message("user", "Hi")], stream=streamed), sink
        )
    except (ModelError, ModelBehaviorError):
        return  # which is told of by the other tests
    last = objects(exchange["response"]["body"], reply.content_type)[-1]
    output = last.get("response", last)["output"]
    told = [
        (type(part).__name__, getattr(part, key) or "")
        for part in answer.message.parts
        for kind, key in (
            (TextPart, "text"),
            (ToolCall, "id"),
            (ReasoningPart, "redacted"),
            (ProviderCall, "id"),
        )
        if isinstance(part, kind)
    ]
    expected = kinds(output)
    assert [kind for kind, _ in told] == [kind for kind, _ in expected]
    plain = [
        (kind, mark) for kind, mark in expected if kind != "ReasoningPart"
    ]  # the stream's own form goes back
    assert [(kind, mark) for kind, mark in told if kind != "ReasoningPart"] == plain
    annotations = [
        annotation
        for item in output
        if item["type"] == "message"
        for part in item["content"]
        for annotation in part.get("annotations") or ()
    ]
    cited = [c for part in answer.message.parts if isinstance(part, TextPart) for c in part.citations]
    assert [c.url or c.file_id for c in cited] == [a.get("url") or a.get("file_id") for a in annotations]
    assert (answer.response_id, answer.model) == (
        last.get("response", last)["id"],
        last.get("response", last)["model"],
    )
