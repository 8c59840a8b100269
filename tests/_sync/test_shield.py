"""Waiting in spite of cancellation: nothing is left half done, and no cancellation is lost."""

from __future__ import annotations

import asyncio

import pytest

from kern._sync.shield import uninterrupted, wait_until_done


async def test_every_cancellation_is_outlasted_and_handed_back() -> None:
    work = asyncio.get_running_loop().create_future()
    asked: list[str] = []

    async def wait() -> str:
        cancelled = await wait_until_done(work, on_cancel=lambda: asked.append("end"))
        return f"cancelled: {cancelled}"

    task = asyncio.create_task(wait())
    for reason in ("first", "second"):
        await asyncio.sleep(0)
        task.cancel(reason)
        await asyncio.sleep(0)
        assert not task.done()
    work.set_result(None)
    assert await task == "cancelled: second"
    assert asked == ["end", "end"]


async def test_work_that_is_cancelled_itself_cancels_nobody_who_waits() -> None:
    work = asyncio.get_running_loop().create_future()
    work.cancel()
    assert await wait_until_done(work) is None


async def test_a_grace_begins_with_the_first_cancellation() -> None:
    work = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(wait_until_done(work, grace=0.02))
    await asyncio.sleep(0.04)
    assert not task.done()
    task.cancel()
    assert isinstance(await task, asyncio.CancelledError)
    assert not work.done()


async def test_the_error_of_an_uninterrupted_coroutine_is_raised() -> None:
    async def fail() -> None:
        raise LookupError("no")

    with pytest.raises(LookupError):
        await uninterrupted(fail)


async def test_the_time_for_an_uninterrupted_coroutine_has_an_end() -> None:
    end = asyncio.Event()
    with pytest.raises(TimeoutError):
        await uninterrupted(end.wait, seconds=0.01)
    end.set()
    await asyncio.sleep(0)
