"""The service of docs/fastapi.md whose streams reconnect, on uvicorn, with clients that come and go."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from kern.models.openai import OpenAIChat
from kern.testing import Answer, Fault, ModelServer
from tests.test_examples import events_of, serve

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "fastapi.md"
TEXT = "".join(f"word {number} " for number in range(150)).strip()
EVENTS = "/chats/1/questions/q/events"


def program() -> str:
    """The page's second program, without the client at its end."""
    programs = re.findall(
        r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return str(programs[1].partition("\nwith TestClient(")[0])


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the program."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(program(), names)
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


WORKER = """
import socket, sys, uvicorn
from kern.durable import DbJournal
from kern.models.openai import OpenAIChat

exec(sys.stdin.read())
agent.model = OpenAIChat(id="m", base_url=sys.argv[1], api_key="any")
agent.journal = DbJournal(agent.db, claim_seconds=1)
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
uvicorn.Server(uvicorn.Config(app, log_config=None)).run(sockets=[listener])
"""


@contextmanager
def worker(folder: Path, models: ModelServer) -> Iterator[tuple[httpx.AsyncClient, subprocess.Popen[str]]]:
    """A worker of the service: a process of its own, and Ann's client of it."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, models.base_url],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(program())
        process.stdin.close()
        try:
            address = f"http://127.0.0.1:{int(process.stdout.readline())}"
            yield httpx.AsyncClient(base_url=address, headers={"x-user": "ann"}, timeout=20), process
        finally:
            process.kill()


async def ask(client: httpx.AsyncClient) -> int:
    question = {"id": "q", "text": "Tell me"}
    return (await client.post("/chats/1/questions", json=question)).status_code


async def read(client: httpx.AsyncClient, *, after: int = 0, most: int | None = None) -> list[Any]:
    """The events after that one; the connection is cut after so many."""
    events: list[Any] = []
    async with client.stream("GET", EVENTS, headers={"last-event-id": str(after)}) as response:
        assert response.status_code == 200, response.status_code
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
        assert await ask(client) == 202
        events: list[Any] = []
        while not events or events[-1]["event"] != "RunCompleted":
            events += await read(client, after=events[-1]["seq"] if events else 0, most=5)
        assert text_of(events) == TEXT
        assert len({event["seq"] for event in events}) == len(events)
        assert len(server.requests) == 1


async def test_two_clients_of_one_run_read_the_same(
    service: dict[str, Any], client: httpx.AsyncClient
) -> None:
    async with ModelServer([Answer(TEXT, pace=0.002)]) as server:
        use(service, server)
        assert await ask(client) == 202
        assert await ask(client) == 202  # the question was sent twice
        both: list[list[Any]] = [[], []]

        async def follow(number: int) -> None:
            both[number] = await read(client)

        async with anyio.create_task_group() as group:
            group.start_soon(follow, 0)
            group.start_soon(follow, 1)
        assert both[0] == both[1]
        assert text_of(both[0]) == TEXT
        assert len(server.requests) == 1


async def test_who_comes_after_the_end_reads_the_same_and_is_told_when_there_is_no_more(
    service: dict[str, Any], client: httpx.AsyncClient
) -> None:
    async with ModelServer([Answer(TEXT)]) as server:
        use(service, server)
        assert await ask(client) == 202
        first = await read(client)
        assert await ask(client) == 202  # the question is sent again, after its end
        assert await read(client) == first
        assert first[-1]["content"] == TEXT
        nothing = await client.get(EVENTS, headers={"last-event-id": str(first[-1]["seq"])})
        assert nothing.status_code == 204
        assert len(server.requests) == 1


async def test_a_run_is_cancelled_by_its_owner_alone_and_read_by_nobody_else(
    service: dict[str, Any], client: httpx.AsyncClient
) -> None:
    async with ModelServer([Answer(TEXT, fault=Fault.stall(after=20))]) as server:
        use(service, server)
        assert await ask(client) == 202
        assert (await read(client, most=3))[-1]["event"] == "RunContent"
        bob = {"x-user": "bob"}
        assert (await client.get(EVENTS, headers=bob)).status_code == 404
        question = EVENTS.removesuffix("/events")
        assert (await client.delete(question, headers=bob)).json() != {"result": "cancelled"}
        assert (await client.delete(question)).json() == {"result": "cancelled"}
        assert (await read(client))[-1]["event"] == "RunCancelled"


async def test_any_worker_tells_the_run_of_another_one(tmp_path: Path) -> None:
    async with ModelServer([Answer(TEXT, pace=0.002)]) as server:
        with worker(tmp_path, server) as (one, _), worker(tmp_path, server) as (two, _):
            assert await ask(one) == 202
            assert await ask(two) == 202  # sent again, to another worker, while the run goes on
            events: list[Any] = []
            readers = [one, two]
            while not events or events[-1]["event"] != "RunCompleted":
                readers.reverse()
                events += await read(readers[0], after=events[-1]["seq"] if events else 0, most=5)
            assert text_of(events) == TEXT
            assert len(server.requests) == 1
            await one.aclose()
            await two.aclose()


async def test_the_question_sent_again_goes_on_with_the_run_of_a_worker_that_was_killed(
    tmp_path: Path,
) -> None:
    async with ModelServer([Answer(TEXT, fault=Fault.stall(after=20)), Answer(TEXT)]) as server:
        with worker(tmp_path, server) as (one, process), worker(tmp_path, server) as (two, _):
            assert await ask(one) == 202
            events = await read(one, most=3)
            assert events[-1]["event"] == "RunContent"
            process.kill()
            process.wait()
            assert await ask(two) == 202  # once: the claim of the dead lasts for a second
            events += await read(two, after=events[-1]["seq"])
            names = [event["event"] for event in events]
            assert names[-1] == "RunCompleted"
            assert text_of(events[names.index("RunContinued") :]) == TEXT
            await one.aclose()
            await two.aclose()
