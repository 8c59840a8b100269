"""A replay server, a sink, and a loop that every test leaves clean."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator

import pytest

from kern.models import _body, _clients, _transport
from kern.models._clients import close_clients
from tests.models.replay import ReplayServer, Sink


@pytest.fixture(params=["httpx", "aiohttp"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The HTTP client under the models: what httpx brings, or the extra `fast`."""
    if request.param == "aiohttp":
        pytest.importorskip("aiohttp", reason="the extra fast is not installed")
    else:
        monkeypatch.setattr(_clients, "fast_client", functools.cache(lambda: None))
    return str(request.param)


@pytest.fixture
async def server(client: str) -> AsyncIterator[ReplayServer]:
    """The server; at its end no task of the client's side is left."""
    before = asyncio.all_tasks()
    server = ReplayServer()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    yield server
    await close_clients()
    listener.close()
    await server.close()
    await listener.wait_closed()
    for _ in range(20):  # asyncio ends the generators of a body that was not read to its end
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - before
    assert not [task for task in left if "TestRunner" not in repr(task)]


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key and no address of the machine's own; retries follow at once."""
    for name in (
        *("OPENAI_API_KEY", "OPENAI_BASE_URL", "KERN_MODEL", "GEMINI_API_KEY", "GOOGLE_API_KEY"),
        "GOOGLE_GEMINI_BASE_URL",
        "GOOGLE_BASE_URL",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_transport, "FIRST_DELAY", 0.0)
    monkeypatch.setattr(_body, "_TAIL_TICK", 0.01)
