"""One database, many at once in one process: tasks and event loops, some of them cancelled or closed."""

from __future__ import annotations

import asyncio
import threading

import pytest

from kern.db.base import SessionRow
from kern.testing.db import counting_commit, run_row, state_commit
from tests.databases import opened
from tests.db.counted_commits import counted


async def test_a_close_amid_commits_lets_them_end(place: str) -> None:
    db = opened(place)
    commits = [asyncio.create_task(db.commit(counting_commit())) for _ in range(20)]
    for _ in range(10):
        await db.aclose()
        await asyncio.sleep(0)
    await asyncio.gather(*commits)
    row = await db.load_session("s")
    assert row is not None
    assert row.version == 20


async def test_an_open_that_is_cancelled_leaves_nothing_behind(place: str) -> None:
    for steps in range(4):
        task = asyncio.create_task(opened(place).load_session("s"))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await opened(place).aclose()
    assert await opened(place).load_session("s") is None


def test_objects_on_many_loops_share_one_writer(place: str) -> None:
    errors: list[BaseException] = []

    async def work() -> None:
        for _ in range(25):
            await opened(place).commit(counting_commit())

    def thread() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=thread) for _ in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert errors == []
    assert counted(place) == 150


async def test_a_loop_that_ends_does_not_disturb_those_of_others(place: str) -> None:
    db, ends, failed = opened(place), threading.Event(), []

    def others() -> None:
        async def work() -> None:
            while not ends.is_set():
                await db.commit(counting_commit())

        try:
            asyncio.run(work())
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=others) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        await asyncio.to_thread(asyncio.run, db.commit(counting_commit()))  # a loop of its own, which ends
    ends.set()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert failed == []
    await db.aclose()
    assert await asyncio.to_thread(counted, place) > 20


async def test_a_cancelled_task_leaves_the_connections_to_the_others(place: str) -> None:
    db = opened(place)
    await db.commit(state_commit(b'{"count":0}'))
    for steps in range(30):
        tasks = [asyncio.create_task(db.commit(counting_commit())) for _ in range(12)]
        for _ in range(steps):
            await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [each for each in done[1::2] if isinstance(each, BaseException)] == []
    row = await db.load_session("s")
    assert row is not None
    assert row.state == b'{"count":%d}' % (row.version - 1)
    await db.aclose()


async def test_what_a_resolver_raises_of_the_system_s_is_not_the_database_s(place: str) -> None:
    db = opened(place)

    def fail(row: SessionRow | None) -> None:
        raise ConnectionResetError("of somebody else")

    for _ in range(2):
        with pytest.raises(ConnectionResetError, match="of somebody else"):
            await db.commit(state_commit(runs=[run_row("r")], seen=fail))
        await db.commit(state_commit(b'{"a":1}'))
    assert await db.load_run("r") is None
    await db.aclose()
