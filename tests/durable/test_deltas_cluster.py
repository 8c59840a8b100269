"""A Redis Cluster is not supported, and the log says so once; a cluster of one shard works with a prefix."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator

import pytest
import redis

from kern.durable import Delta
from kern.durable.redis import RedisDeltas
from tests.redis_server import RedisServer, redis_server


def free_port() -> int:
    with socket.socket() as link:
        link.bind(("127.0.0.1", 0))
        port: int = link.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisServer]:
    """A cluster of one node, which serves all slots."""
    ports = "--port", str(free_port()), "--cluster-port", str(free_port()), "--bind", "127.0.0.1"
    with redis_server(*ports, "--cluster-enabled", "yes") as server:
        with redis.Redis(unix_socket_path=str(server.socket)) as client:
            client.execute_command("CLUSTER", "ADDSLOTS", *range(16384))
            while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO", NEVER_DECODE=True):
                pass
        yield server


async def sent_and_read(deltas: RedisDeltas) -> list[int]:
    """How many deltas the readers of five runs get, who wait at the same time."""
    names = [f"run-{number}" for number in range(5)]
    reads = [asyncio.create_task(deltas.read(name, 0, 2.0)) for name in names]
    for name in names:
        deltas.publish(name, Delta(after=0, last_seq=1, data=b"{}"))
    return [len(found) for found in await asyncio.gather(*reads)]


async def test_a_cluster_is_told_of_once(cluster: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    deltas = RedisDeltas(cluster.url)
    with caplog.at_level(logging.WARNING, logger="kern"):
        assert 0 in await sent_and_read(deltas)
        await sent_and_read(deltas)
    await deltas.aclose()
    (record,) = [record for record in caplog.records if "Redis" in record.message]
    assert record.levelno == logging.ERROR
    assert "is a node of a cluster" in record.message
    assert 'prefix="{kern}:"' in record.message


async def test_a_cluster_of_one_shard_serves_streams_in_one_slot(
    cluster: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    deltas = RedisDeltas(cluster.url, prefix="{kern}:")
    with caplog.at_level(logging.WARNING, logger="kern"):
        assert await sent_and_read(deltas) == [1] * 5
    await deltas.aclose()
    assert caplog.records == []
