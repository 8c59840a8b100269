"""Clients that move between servers, servers that are killed, and a Redis that is killed under them all."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from kern.run.output import TeamRunOutput
from tests.databases import SHARED, place_of
from tests.durable.listener import Heard, listen, post
from tests.durable.serving import team_on
from tests.durable.test_following import servers, survivals
from tests.redis_server import RedisServer, redis_server


@asynccontextmanager
async def shaken(redis: RedisServer) -> AsyncIterator[None]:
    """Meanwhile the server is killed and started again, and stands still, at random moments."""

    async def shake() -> None:
        while True:
            await asyncio.sleep(random.uniform(0.1, 1.0))
            if random.random() < 0.5:
                redis.tell(signal.SIGSTOP)
                await asyncio.sleep(random.uniform(0.05, 0.6))
                redis.tell(signal.SIGCONT)
            else:
                redis.kill()
                await asyncio.sleep(random.uniform(0, 0.3))
                await asyncio.to_thread(redis.start)

    shaking = asyncio.create_task(shake())
    try:
        yield
    finally:
        shaking.cancel()
        await asyncio.wait([shaking])


async def moved(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, redis: str, runs: int, each: int
) -> None:
    """Clients that change the server after each few events."""
    place = place_of(kind, tmp_path, request)
    team = team_on(place)
    await team.aget_session_state(session_id="none")  # the tables are there
    with servers(place, redis, 15.0) as forge:
        ports = dict(forge.one_more() for _ in range(2))
        try:
            for number in range(runs):
                run_id, ears, turn = f"r{number}", Heard(), 0
                first, *_ = ports.values()
                assert await post(first, f"/runs/{run_id}") == "started"
                until = time.monotonic() + 25
                while not ears.ended and time.monotonic() < until:
                    turn += 1
                    await listen(list(ports.values())[turn % 2], run_id, ears, each)
                output = await team.aget_run_output(run_id)
                assert isinstance(output, TeamRunOutput)
                for run in (output, *output.member_responses):
                    assert ears.texts[run.run_id] == run.content
                assert [event.seq for event in ears.seen] == sorted({event.seq for event in ears.seen})
                assert turn >= len(ears.seen) // each
                print(f"\n{len(ears.seen)} events in {turn} connections")
        finally:
            for pid in ports:
                os.kill(pid, signal.SIGKILL)
    assert team.db is not None
    await team.db.aclose()


@pytest.mark.parametrize("kind", SHARED)
async def test_a_client_that_changes_the_server_after_every_event_has_the_whole_text(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, shared_redis: RedisServer
) -> None:
    await moved(kind, tmp_path, request, shared_redis.url, 1, 1)


@pytest.mark.timeout(120)  # of work that takes a few seconds on an idle machine
async def test_a_client_whose_server_is_killed_has_the_whole_text_over_redis(
    tmp_path: Path, request: pytest.FixtureRequest, shared_redis: RedisServer
) -> None:
    await survivals("sqlite", 2, tmp_path, request, shared_redis.url)


@pytest.mark.timeout(120)
async def test_servers_and_redis_are_killed_and_the_text_is_whole(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with redis_server() as redis:
        async with shaken(redis):
            await survivals("sqlite", 2, tmp_path, request, redis.url)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", SHARED)
@pytest.mark.parametrize("each", [1, 2, 3])
async def test_clients_that_change_the_server_all_the_time_have_the_whole_texts(
    kind: str, each: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with redis_server() as redis:
        async with shaken(redis):
            await moved(kind, tmp_path, request, redis.url, 12, each)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", SHARED)
async def test_twenty_four_clients_whose_servers_are_killed_have_the_whole_text_over_redis(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, shared_redis: RedisServer
) -> None:
    await survivals(kind, 24, tmp_path, request, shared_redis.url)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", SHARED)
async def test_twenty_four_clients_have_the_whole_text_where_redis_is_killed_as_well(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    with redis_server() as redis:
        async with shaken(redis):
            await survivals(kind, 24, tmp_path, request, redis.url)
