"""Many who follow one run in one process ask the database as often as one does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest

from kern.db import InMemoryDb
from kern.db.journals import EventRow, RunningRow
from kern.durable import InMemoryDeltas
from kern.errors import SessionOwnershipError
from kern.run.events import Event
from kern.runtime import tail
from tests.durable.listener import Heard
from tests.durable.test_deltas import Desk, Follower


class Counted(InMemoryDb):
    """Counts what those who follow ask."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()

    async def running_runs(self, **which: Any) -> list[RunningRow]:
        self.asked["running_runs"] += 1
        await asyncio.sleep(0)  # as each real database takes its time
        return await super().running_runs(**which)

    async def load_events(self, run_id: str, *, after: int = 0, limit: int = 100) -> list[EventRow]:
        self.asked["load_events"] += 1
        return await super().load_events(run_id, after=after, limit=limit)


async def listened(desk: Desk, run_id: str, after: int = 0) -> list[Event]:
    return [event async for event in desk.agent.follow(run_id, after=after)]


async def test_fifty_who_follow_a_run_that_has_ended_ask_as_often_as_one() -> None:
    db = Counted()
    desk = Desk(db, None)
    desk.model.say("a text", None)
    await (await desk.agent.astart("go", session_id="s", run_id="r")).result()
    costs, heard = [], []
    for followers in (1, 50):
        db.asked.clear()
        heard += await asyncio.gather(*(listened(desk, "r") for _ in range(followers)))
        costs.append(dict(db.asked))
    assert costs[0] == costs[1]
    assert len(heard) == 51
    assert all([event.seq for event in one] == [event.seq for event in heard[0]] for one in heard)


async def test_fifty_who_wait_for_what_a_run_tells_ask_as_often_as_one() -> None:
    db = Counted()
    desk = Desk(db, None)
    await desk.agent.astart("go", session_id="s", run_id="r")
    desk.model.say("begun")
    followers = [Follower(desk.agent.follow("r")) for _ in range(50)]
    for follower in followers:
        await follower.until("r", "begun")
    await asyncio.sleep(0.3)  # the pauses between two looks grow
    db.asked.clear()
    began = time.monotonic()
    await asyncio.sleep(1.0)
    looks = db.asked["load_events"]
    assert 1 <= looks <= (time.monotonic() - began) / tail.FIRST_PAUSE / 3
    desk.model.say(None)
    assert {(await follower.task).texts["r"] for follower in followers} == {"begun"}


async def test_a_follower_that_leaves_while_it_looks_leaves_the_others_what_comes() -> None:
    desk = Desk(InMemoryDb(), None)
    await desk.agent.astart("go", session_id="s", run_id="r")
    desk.model.say("one ")
    followers = [Follower(desk.agent.follow("r")) for _ in range(3)]
    for follower in followers:
        await follower.until("r", "one ")
    for gone in followers[:2]:
        gone.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone.task
    desk.model.say("two", None)
    assert (await followers[2].task).texts["r"] == "one two"


async def test_one_who_comes_late_or_is_slow_hears_all_although_the_window_is_small(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tail, "WINDOW_BYTES", 500)
    desk = Desk(InMemoryDb(), None)
    await desk.agent.astart("go", session_id="s", run_id="r")
    quick, text = Follower(desk.agent.follow("r")), ""
    slow = desk.agent.follow("r")
    heard = [await anext(slow)]
    for number in range(6):
        text += f"word{number} "
        desk.model.say(f"word{number} ")
        await quick.until("r", text)
    late = Follower(desk.agent.follow("r"))
    await late.until("r", text)
    desk.model.say(None)
    heard += [event async for event in slow]
    numbers = [event.seq for event in (await quick.task).seen]
    assert numbers == [event.seq for event in (await late.task).seen] == [event.seq for event in heard]
    assert quick.ears.texts["r"] == text


async def test_a_number_that_is_far_too_high_keeps_nobody_else_from_the_run() -> None:
    desk = Desk(InMemoryDb(), None)
    await desk.agent.astart("go", session_id="s", run_id="r")
    far = asyncio.create_task(listened(desk, "r", 10**15))
    await asyncio.sleep(0.1)
    near = Follower(desk.agent.follow("r"))
    desk.model.say("a text")
    await near.until("r", "a text")
    desk.model.say(None)
    assert (await near.task).ended
    assert await far == []


async def test_who_shares_a_tail_is_still_asked_who_he_is() -> None:
    desk = Desk(InMemoryDb(), None)
    await desk.agent.astart("go", session_id="s", run_id="r", user_id="u")
    own = Follower(desk.agent.follow("r", user_id="u"))
    desk.model.say("secret")
    await own.until("r", "secret")
    with pytest.raises(SessionOwnershipError):
        await anext(desk.agent.follow("r", user_id="somebody else"))
    desk.model.say(None)
    assert (await own.task).ended


async def test_one_who_is_behind_hears_what_was_told_live_and_then_stored_once() -> None:
    desk = Desk(InMemoryDb(), InMemoryDeltas())
    handle = await desk.agent.astart("go", session_id="s", run_id="r")
    slow = desk.agent.follow("r")
    ears, quick, text = Heard(), Follower(desk.agent.follow("r")), ""
    for number in range(6):
        text += f"word{number} "
        desk.model.say(f"word{number} ")
        await quick.until("r", text)
        if number == 2:
            while ears.texts["r"] != text:
                ears.add(await anext(slow))
    desk.model.say(None)
    assert (await quick.task).texts["r"] == text
    async for event in slow:
        ears.add(event)
    assert ears.texts["r"] == (await handle.result()).content == text
