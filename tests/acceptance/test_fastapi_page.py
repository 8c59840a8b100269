"""The service of docs/fastapi.md whose streams reconnect, on uvicorn, with clients that come and go."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from kern.models.openai import OpenAIChat
from kern.testing import Answer, Fault, ModelServer
from tests.test_examples import events_of, serve

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fastapi.md"
TEXT = "".join(f"word {number} " for number in range(150)).strip()


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the page's second program, without the client at its end."""
    monkeypatch.chdir(tmp_path)
    programs = re.findall(
        r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    names: dict[str, Any] = {}
    exec(programs[1].partition("\nwith TestClient(")[0], names)
    return names


@pytest.fixture
async def client(service: dict[str, Any]) -> AsyncIterator[httpx.AsyncClient]:
    """Ann's."""
    async with (
        serve(service["app"]) as address,
        httpx.AsyncClient(base_url=address, headers={"x-user": "ann"}, timeout=20) as ann,
    ):
        yield ann


def use(service: dict[str, Any], server: ModelServer) -> None:
    service["agent"].model = OpenAIChat(id="m", base_url=server.base_url, api_key="any")


async def start(client: httpx.AsyncClient) -> str:
    answer = await client.post("/chats/1/questions", json={"id": "q", "text": "Tell me"})
    assert answer.status_code == 202
    return str(answer.json()["run"])


async def read(client: httpx.AsyncClient, run: str, *, after: int = 0, most: int | None = None) -> list[Any]:
    """The events after that one; the connection is cut after so many."""
    events: list[Any] = []
    headers = {"last-event-id": str(after)}
    async with client.stream("GET", f"/runs/{run}/events", headers=headers) as response:
        assert response.status_code == 200
        async for event in events_of(response):
            events.append(event)
            if len(events) == most:
                break
    return events


def text_of(events: list[Any]) -> str:
    return "".join(event["content"] for event in events if event["event"] == "RunContent")


async def test_a_client_that_is_cut_off_again_and_again_has_the_exact_text(
    service: dict[str, Any], client: httpx.AsyncClient
) -> None:
    async with ModelServer([Answer(TEXT, pace=0.002)]) as server:
        use(service, server)
        run = await start(client)
        events: list[Any] = []
        while not events or events[-1]["event"] != "RunCompleted":
            events += await read(client, run, after=events[-1]["seq"] if events else 0, most=40)
        assert text_of(events) == TEXT
        assert len({event["seq"] for event in events}) == len(events)
        assert len(server.requests) == 1


async def test_two_clients_of_one_run_read_the_same(
    service: dict[str, Any], client: httpx.AsyncClient
) -> None:
    async with ModelServer([Answer(TEXT, pace=0.002)]) as server:
        use(service, server)
        run = await start(client)
        assert await start(client) == run  # the question was sent twice
        both: list[list[Any]] = [[], []]

        async def follow(number: int) -> None:
            both[number] = await read(client, run)

        async with anyio.create_task_group() as group:
            group.start_soon(follow, 0)
            group.start_soon(follow, 1)
        assert both[0] == both[1]
        assert text_of(both[0]) == TEXT
        assert len(server.requests) == 1


async def test_who_comes_after_the_end_gets_the_whole_answer(
    service: dict[str, Any], client: httpx.AsyncClient
) -> None:
    async with ModelServer([Answer(TEXT)]) as server:
        use(service, server)
        run = await start(client)
        await read(client, run)
        assert run not in service["live"]
        assert await read(client, run) == [{"status": "COMPLETED", "content": TEXT}]


async def test_a_run_is_cancelled_by_its_owner_alone_and_read_by_nobody_else(
    service: dict[str, Any], client: httpx.AsyncClient
) -> None:
    async with ModelServer([Answer(TEXT, fault=Fault.stall(after=20))]) as server:
        use(service, server)
        run = await start(client)
        await read(client, run, most=10)
        bob = {"x-user": "bob"}
        assert (await client.get(f"/runs/{run}/events", headers=bob)).status_code == 404
        refused = await client.delete(f"/runs/{run}", headers=bob)
        assert refused.status_code == 404
        assert (await client.delete(f"/runs/{run}")).json() == {"result": "cancelled"}
        events = await read(client, run)
        assert events[-1].get("event") == "RunCancelled" or events[-1]["status"] == "CANCELLED"
        assert service["live"] == {}
