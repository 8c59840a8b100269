from __future__ import annotations

import asyncio

from kern._sync.loops import LoopLocal


def test_a_loop_has_its_own_resource_and_closes_it_when_it_shuts_down() -> None:
    closed: list[object] = []

    async def close(resource: object) -> None:
        await asyncio.sleep(0)
        closed.append(resource)

    local = LoopLocal(object, close)

    async def main() -> object:
        assert local.get() is local.get()
        return local.get()

    first = asyncio.run(main())
    assert closed == [first]
    second = asyncio.run(main())
    assert second is not first
    assert closed == [first, second]


async def test_aclose_closes_now_and_the_next_get_makes_another() -> None:
    closed: list[object] = []

    async def close(resource: object) -> None:
        closed.append(resource)

    local = LoopLocal(object, close)
    first = local.get()
    await local.aclose()
    assert closed == [first]
    assert local.get() is not first
    await local.aclose()


def test_a_loop_that_has_ended_is_forgotten() -> None:
    import gc
    import weakref

    async def close(resource: object) -> None:
        pass

    local = LoopLocal(object, close)
    loops: list[weakref.ref[asyncio.AbstractEventLoop]] = []

    async def main() -> None:
        local.get()
        loops.append(weakref.ref(asyncio.get_running_loop()))

    for _ in range(3):
        asyncio.run(main())
    gc.collect()
    assert [ref() for ref in loops] == [None] * 3


def test_a_loop_that_was_closed_without_its_shutdown_is_forgotten_when_another_comes() -> None:
    import gc
    import weakref

    async def close(resource: object) -> None:
        raise AssertionError("its loop is closed")

    local = LoopLocal(object, close)

    async def get() -> None:
        local.get()

    left = asyncio.new_event_loop()
    left.run_until_complete(get())
    left.close()
    ref = weakref.ref(left)
    del left
    other = asyncio.new_event_loop()
    other.run_until_complete(get())
    other.close()
    gc.collect()
    assert ref() is None
