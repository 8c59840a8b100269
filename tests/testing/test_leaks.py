"""`no_leaks` finds what is left, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from kern.testing import Fault, ModelServer, no_leaks

BODY = {"model": "m", "input": "hi"}


async def test_a_task_that_is_left_is_found_by_name() -> None:
    with pytest.raises(AssertionError, match="forgotten"):
        async with no_leaks(grace=0):
            task = asyncio.create_task(asyncio.Event().wait(), name="forgotten")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_task_that_ends_by_itself_is_no_leak() -> None:
    async with no_leaks():
        task = asyncio.create_task(asyncio.sleep(0.01))
    assert task.done()


async def test_tasks_from_before_are_not_counted() -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    async with no_leaks(grace=0):
        pass
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_the_blocks_own_error_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        async with no_leaks(grace=0):
            task = asyncio.create_task(asyncio.Event().wait())
            raise ZeroDivisionError
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_idle_connections_count_only_where_they_should() -> None:
    async with ModelServer(["one", "two"]) as server:
        async with httpx.AsyncClient() as kept, no_leaks(server):
            await kept.post(f"{server.base_url}/responses", json=BODY)
            assert server.open_connections == 1
        async with no_leaks(server, idle_connections=False), httpx.AsyncClient() as closed:
            await closed.post(f"{server.base_url}/responses", json=BODY)
        async with httpx.AsyncClient() as leaked:
            with pytest.raises(AssertionError, match="1 open connection at server 0"):
                async with no_leaks(server, idle_connections=False, grace=0):
                    await leaked.get(f"{server.base_url}/models")


async def test_an_open_request_is_found() -> None:
    async with ModelServer([Fault.hang()]) as server, httpx.AsyncClient(timeout=None) as client:
        with pytest.raises(AssertionError, match="1 open request at server 0"):
            async with no_leaks(server, grace=0):
                asked = asyncio.create_task(client.post(f"{server.base_url}/responses", json=BODY))
                while not server.open_requests:
                    await asyncio.sleep(0)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)


# In fixtures, where the block is the test.


@pytest.fixture
async def clean() -> AsyncIterator[None]:
    async with no_leaks():
        yield


@pytest.fixture(scope="module")
async def clean_module() -> AsyncIterator[None]:
    async with no_leaks():
        yield


@pytest.mark.parametrize("turn", range(2))
async def test_an_async_fixture_does_not_count_its_own_tasks(
    clean: None, clean_module: None, turn: int
) -> None:
    await asyncio.create_task(asyncio.sleep(0))


@pytest.fixture
async def leaking() -> AsyncIterator[list[asyncio.Task[bool]]]:
    tasks: list[asyncio.Task[bool]] = []
    with pytest.raises(AssertionError, match="forgotten"):
        async with no_leaks(grace=0):
            yield tasks
    tasks[0].cancel()
    await asyncio.wait(tasks)


async def test_an_async_fixture_finds_what_its_test_left(leaking: list[asyncio.Task[bool]]) -> None:
    leaking.append(asyncio.create_task(asyncio.Event().wait(), name="forgotten"))


def test_a_block_that_spans_two_runs_of_the_loop_counts_neither_of_their_tasks() -> None:
    """As other frameworks run the two halves of a fixture."""
    context = no_leaks(grace=0)

    with asyncio.Runner() as runner:
        runner.run(context.__aenter__())
        runner.run(asyncio.sleep(0))
        runner.run(context.__aexit__(None, None, None))
