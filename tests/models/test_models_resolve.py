"""Models by name, and the switch that forbids real requests."""

from __future__ import annotations

import asyncio
import threading

import pytest

from kern.errors import MissingKeyError, UsageError
from kern.messages import Message
from kern.models import ModelRequest, allow_requests, default_model, forbid_requests, resolve
from kern.models._switch import is_loopback
from kern.models.openai import OpenAIChat, OpenAIResponses
from tests.models.replay import ReplayServer, Reply, Sink, sse

ASK = ModelRequest([Message("user", "Hi")])


def test_a_name_is_a_provider_and_an_id() -> None:
    model = resolve("openai:gpt-5.2")
    assert type(model) is OpenAIResponses
    assert (model.id, model.provider) == ("gpt-5.2", "openai")
    local = resolve("openai-chat:llama3.1:8b")
    assert type(local) is OpenAIChat
    assert local.id == "llama3.1:8b"


@pytest.mark.parametrize("name", ["gpt-5.2", "openai:", "", ":x", "nobody:gpt", "OpenAI:gpt"])
def test_another_name_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError, match=r'"openai:\.\.\.", "openai-chat:\.\.\."'):
        resolve(name)


def test_the_default_model_is_the_environments_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    model = default_model()
    assert (type(model), model.id) == (OpenAIResponses, "gpt-5.2")
    monkeypatch.setenv("KERN_MODEL", "openai-chat:qwen3")
    model = default_model()
    assert (type(model), model.id) == (OpenAIChat, "qwen3")


async def ask(url: str | None = None) -> None:
    model = OpenAIChat("m", base_url=url, api_key=None, max_retries=0)
    await model.respond(ASK, Sink())


async def forbidden() -> bool:
    """Whether a request to another machine is stopped by the switch."""
    model = OpenAIChat(
        "m", api_key="sk-none-of-this-leaves", base_url="http://model.invalid/v1", max_retries=0
    )
    try:
        await asyncio.wait_for(model.respond(ASK, Sink()), 20)
    except Exception as error:
        return isinstance(error, UsageError) and "forbid_requests" in str(error)
    return False


async def test_a_ban_holds_in_every_thread_until_it_is_lifted() -> None:
    with forbid_requests():
        assert await forbidden()
        found: list[bool] = []
        thread = threading.Thread(target=lambda: found.append(asyncio.run(forbidden())))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert found == [True]
    assert not await forbidden()


async def test_bans_are_counted() -> None:
    outer, inner = forbid_requests(), forbid_requests()
    inner.lift()
    inner.lift()
    assert await forbidden()
    outer.lift()
    assert not await forbidden()


async def test_allow_holds_for_this_task_and_its_children_only() -> None:
    with forbid_requests():
        go, entered = asyncio.Event(), asyncio.Event()

        async def other() -> None:
            with allow_requests():
                entered.set()
                await go.wait()

        task = asyncio.create_task(other())
        await entered.wait()
        assert await forbidden()
        go.set()
        await task
        with allow_requests():
            assert not await asyncio.create_task(forbidden())
        assert await forbidden()


async def test_this_machine_may_be_asked_under_a_ban(server: ReplayServer) -> None:
    server.replies = [
        Reply([sse({"choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}]})])
    ]
    with forbid_requests():
        await ask(server.url)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("api.openai.com", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("192.168.0.1", False),
        ("0.0.0.0", False),
    ],
)
def test_what_this_machine_is(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


async def test_a_missing_key_is_told_before_the_ban() -> None:
    with forbid_requests(), pytest.raises(MissingKeyError):
        await ask()


def test_a_slash_in_place_of_the_colon_is_seen() -> None:
    with pytest.raises(UsageError, match=r'did you mean "openai:gpt-5\.2"'):
        resolve("openai/gpt-5.2")


def test_a_wrong_name_in_the_environment_is_said_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERN_MODEL", "opnai:gpt-5.2")
    with pytest.raises(UsageError, match=r"environment variable KERN_MODEL: no model 'opnai:gpt-5\.2'"):
        default_model()
