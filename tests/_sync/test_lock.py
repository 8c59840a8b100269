"""The lock: fair, across loops and threads, and never lost at a cancellation."""

from __future__ import annotations

import asyncio
import random
import threading
import time

import pytest

from kern._sync.lock import FairLock, LockTimeout, Ticket, WaitAborted


async def test_first_come_first_served() -> None:
    lock = FairLock()
    order: list[int] = []
    await lock.acquire()

    async def wait(number: int) -> None:
        await lock.acquire()
        order.append(number)
        lock.release()

    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(wait(number))
        await asyncio.sleep(0.01)
        assert lock.waiting == 10
        lock.release()
    assert order == list(range(10))
    assert not lock.held


async def test_a_waiter_cancelled_after_it_was_granted_passes_the_lock_on() -> None:
    lock = FairLock()
    await lock.acquire()
    waiter = asyncio.create_task(lock.acquire())
    await asyncio.sleep(0)
    lock.release()  # granted, but the waiter has not run yet
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert not lock.held


async def test_a_wait_is_bounded() -> None:
    lock = FairLock()
    await lock.acquire()
    with pytest.raises(LockTimeout):
        await lock.acquire(0.01)
    assert lock.waiting == 0
    with pytest.raises(LockTimeout):
        await asyncio.to_thread(lock.acquire_blocking, 0.01)
    assert lock.waiting == 0
    lock.release()
    await lock.acquire(0.01)
    lock.release()


async def test_the_wait_of_a_thread_can_be_aborted() -> None:
    lock = FairLock()
    await lock.acquire()
    ticket = Ticket(None)
    thread = asyncio.create_task(asyncio.to_thread(lock.acquire_blocking, None, ticket))
    while not lock.waiting:
        await asyncio.sleep(0.001)
    lock.abort(ticket)
    with pytest.raises(WaitAborted):
        await thread
    with pytest.raises(WaitAborted):
        lock.acquire_blocking(None, ticket)
    lock.release()
    assert not lock.held


def test_a_waiter_on_a_closed_loop_is_passed_over() -> None:
    lock = FairLock()
    assert lock.try_acquire()
    loop = asyncio.new_event_loop()
    task = loop.create_task(lock.acquire())
    loop.run_until_complete(asyncio.sleep(0))
    assert lock.waiting == 1
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # a loop that was closed under its task
    loop.close()
    lock.release()
    assert not lock.held


def test_a_loop_that_stands_still_does_not_own_the_lock() -> None:
    lock = FairLock()
    assert lock.try_acquire()
    loop = asyncio.new_event_loop()
    task = loop.create_task(lock.acquire())
    loop.run_until_complete(asyncio.sleep(0))
    lock.release()
    assert not lock.held
    loop.run_until_complete(task)
    assert lock.held
    loop.close()


def test_two_loops_and_two_threads_lose_nothing_under_cancellation() -> None:
    lock = FairLock()
    count = {"shared": 0, "done": 0}

    def critical() -> None:
        before = count["shared"]
        time.sleep(0)
        count["shared"] = before + 1
        count["done"] += 1

    async def worker(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(100):
            try:
                await asyncio.wait_for(lock.acquire(), rng.choice([None, 0.0005]))
            except TimeoutError:
                continue
            critical()
            if rng.random() < 0.3:
                await asyncio.sleep(0)
            lock.release()

    async def main(seed: int) -> None:
        async with asyncio.TaskGroup() as group:
            for offset in range(5):
                group.create_task(worker(seed + offset))

    def blocking() -> None:
        for _ in range(300):
            lock.acquire_blocking()
            critical()
            lock.release()

    threads = [threading.Thread(target=lambda seed=seed: asyncio.run(main(seed))) for seed in (1, 100)]
    threads += [threading.Thread(target=blocking) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert count["shared"] == count["done"] >= 600
    assert not lock.held
    assert lock.waiting == 0
