"""Pieces of texts beside the database: live over Redis, whole turns without it, no text lost or doubled."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kern import Agent
from kern.db import Db, InMemoryDb, SqliteDb
from kern.db.journals import JournalDb
from kern.durable import DbJournal, Delta, DeltaStream, InMemoryDeltas
from kern.durable.redis import RedisDeltas
from kern.errors import SessionOwnershipError, UsageError
from kern.models.base import DeltaSink, Model, ModelRequest, ModelResponse
from kern.run.events import Event
from tests.durable.listener import Heard
from tests.redis_server import RedisServer, redis_server


@pytest.fixture(params=["memory", "redis"])
async def deltas(request: pytest.FixtureRequest) -> AsyncIterator[DeltaStream]:
    if request.param == "memory":
        yield InMemoryDeltas(max_deltas=50)
        return
    made = RedisDeltas(
        request.getfixturevalue("shared_redis").url, prefix=f"{request.node.name}:", max_deltas=50
    )
    yield made
    await made.aclose()


class Spoken(Model):
    """Says what it is told to say, piece by piece; each answer ends with None."""

    id = provider = "spoken"

    def __init__(self) -> None:
        self.pieces: asyncio.Queue[str | None] = asyncio.Queue()

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        said = ""
        while (piece := await self.pieces.get()) is not None:
            said += piece
            sink.content(piece)
        return ModelResponse.of(said)

    def say(self, *pieces: str | None) -> None:
        for piece in pieces:
            self.pieces.put_nowait(piece)


class Desk:
    """An agent that says what it is told to, and whose runs are followed."""

    def __init__(self, db: Db, deltas: DeltaStream | None) -> None:
        self.model = Spoken()
        # So long that no renewal writes what was told between steps.
        self.journal = DbJournal(db, deltas=deltas, claim_seconds=600)
        self.agent = Agent(id="desk", name="Desk", model=self.model, db=db, journal=self.journal)


class Follower:
    """Follows a run, and can be asked what it has heard."""

    def __init__(self, events: AsyncIterator[Event]) -> None:
        self.ears = Heard()
        self._events = events
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> Heard:
        async for event in self._events:
            self.ears.add(event)
        return self.ears

    async def until(self, run_id: str, text: str) -> None:
        async with asyncio.timeout(20):
            while self.ears.texts[run_id] != text:
                await asyncio.sleep(0.01)


async def rows(db: Db, run_id: str) -> list[str]:
    assert isinstance(db, JournalDb)
    return [row.data.decode() for row in await db.load_events(run_id)]


# What all streams do.


async def test_what_is_published_is_read_in_its_order_and_after_a_number(deltas: DeltaStream) -> None:
    first, second = Delta(0, 5, b"[1]"), Delta(5, 9, b"[2]")
    deltas.publish("r", first)
    deltas.publish("r", second)
    deltas.publish("other", Delta(0, 3, b"[3]"))
    found = list(await deltas.read("r", 0, 5.0))
    while len(found) < 2:
        found += await deltas.read("r", found[-1].last_seq, 5.0)
    assert found == [first, second]
    assert await deltas.read("r", 5, 5.0) == [second]
    assert list(await deltas.read("r", 9, 0.02)) == []
    assert list(await deltas.read("nobody", 0, 0.02)) == []


async def test_who_reads_is_told_what_comes_later(deltas: DeltaStream) -> None:
    reading = asyncio.create_task(deltas.read("r", 0, 20.0))
    await asyncio.sleep(0.1)
    deltas.publish("r", Delta(0, 4, b"[]"))
    assert await reading == [Delta(0, 4, b"[]")]


async def test_a_stream_is_bounded(deltas: DeltaStream) -> None:
    for number in range(1, 501):
        deltas.publish("r", Delta(number - 1, number, b"[]"))
    found: list[Delta] = []
    while not found or found[-1].last_seq < 500:
        found += await deltas.read("r", found[-1].last_seq if found else 400, 5.0)
    assert found[-1].last_seq == 500
    assert len(await deltas.read("r", 0, 5.0)) <= 200


async def test_a_stream_in_redis_expires(shared_redis: RedisServer) -> None:
    from redis.asyncio import Redis

    made = RedisDeltas(shared_redis.url, prefix="expires:", keep_seconds=60)
    made.publish("r", Delta(0, 4, b"[]"))
    assert await made.read("r", 0, 5.0)
    async with Redis(unix_socket_path=str(shared_redis.socket)) as client:
        assert 0 < await client.ttl("expires:r") <= 60
    await made.aclose()


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("http://localhost", {}),
        ("localhost:6379", {}),
        ("redis://localhost:port", {}),
        ("redis://localhost?socket_timeout=soon", {}),
        ("redis://localhost", {"max_deltas": 0}),
        ("redis://localhost", {"timeout": 0}),
    ],
)
def test_settings_that_are_of_no_use_are_refused(url: str, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        RedisDeltas(url, **options)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(RedisDeltas("redis://user:secret@localhost:6379/2"))


# What followers hear.


async def test_pieces_come_live_and_the_database_has_the_turn_once_it_is_kept(deltas: DeltaStream) -> None:
    db = InMemoryDb()
    desk = Desk(db, deltas)
    handle = await desk.agent.astart("go", session_id="s", run_id="r")
    by_handle, by_id = Follower(handle.follow()), Follower(Desk(db, deltas).agent.follow("r"))
    for piece, text in (("It is", "It is"), (" a fine", "It is a fine"), (" day", "It is a fine day")):
        desk.model.say(piece)
        await by_handle.until("r", text)
        await by_id.until("r", text)
    assert not any("RunContent" in row for row in await rows(db, "r"))
    desk.model.say(None)
    for ears in (await by_handle.task, await by_id.task):
        assert ears.texts["r"] == (await handle.result()).content == "It is a fine day"
        assert [event.seq for event in ears.seen] == sorted({event.seq for event in ears.seen})
    assert sum(row.count('"RunContent"') for row in await rows(db, "r")) == 1


async def test_a_client_cut_at_any_event_hears_the_rest_with_and_without_the_stream(
    deltas: DeltaStream,
) -> None:
    db = InMemoryDb()
    desk = Desk(db, deltas)
    handle = await desk.agent.astart("go", session_id="s", run_id="r")
    live, text = Follower(handle.follow()), ""
    for number in range(8):
        text += f"word{number} "
        desk.model.say(f"word{number} ")
        await live.until("r", text)
    desk.model.say(None)
    heard = (await live.task).seen
    assert len([event for event in heard if event.kind == "RunContent"]) == 8
    for reader in (Desk(db, deltas), Desk(db, None)):  # the second has the database alone
        for cut in range(len(heard) + 1):
            ears = Heard()
            for event in heard[:cut]:
                ears.add(event)
            async for event in reader.agent.follow("r", after=ears.last):
                ears.add(event)
            assert ears.texts["r"] == text, cut
            assert [event.kind for event in ears.seen if event.kind != "RunContent"] == [
                event.kind for event in heard if event.kind != "RunContent"
            ]


async def test_a_redis_that_is_lost_costs_the_pieces_alone_and_is_used_again(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, "kern")
    db = SqliteDb(tmp_path / "a.db")
    with redis_server() as redis:
        deltas = RedisDeltas(redis.url, timeout=10.0)
        desk = Desk(db, deltas)
        handle = await desk.agent.astart("go", session_id="s", run_id="r")
        live = Follower(handle.follow())
        desk.model.say("before ")
        await live.until("r", "before ")
        redis.kill()
        desk.model.say("meanwhile ")
        await asyncio.sleep(0.3)
        assert live.ears.texts["r"] == "before "
        desk.model.say("and after", None)
        assert (await live.task).texts["r"] == "before meanwhile and after"
        redis.start()
        await asyncio.sleep(1.0)
        handle = await desk.agent.astart("go", session_id="s", run_id="r2")
        again, text = Follower(handle.follow()), ""
        while not any(event.kind == "RunContent" for event in again.ears.seen):
            desk.model.say("live ")
            text += "live "
            await asyncio.sleep(0.2)
        desk.model.say(None)
        assert (await again.task).texts["r2"] == text
        await deltas.aclose()
    about = [record.message for record in caplog.records if "Redis" in record.message]
    assert len(about) == 2
    assert "fails" in about[0]
    assert "is back" in about[1]
    await db.aclose()


async def test_a_redis_that_stands_still_holds_up_no_run(tmp_path: Path) -> None:
    with redis_server() as redis:
        deltas = RedisDeltas(redis.url, timeout=0.3)
        desk = Desk(InMemoryDb(), deltas)
        handle = await desk.agent.astart("go", session_id="s", run_id="r")
        live = Follower(handle.follow())
        desk.model.say("one ")
        await live.until("r", "one ")
        redis.tell(signal.SIGSTOP)
        desk.model.say("two ", "three", None)
        assert (await live.task).texts["r"] == (await handle.result()).content == "one two three"
        redis.tell(signal.SIGCONT)
        await deltas.aclose()


async def test_nobody_hears_pieces_of_another_users_run(deltas: DeltaStream) -> None:
    desk = Desk(InMemoryDb(), deltas)
    handle = await desk.agent.astart("go", session_id="s", run_id="r", user_id="u")
    desk.model.say("secret")
    own = Follower(desk.agent.follow("r", user_id="u"))
    await own.until("r", "secret")
    with pytest.raises(SessionOwnershipError):
        await anext(desk.agent.follow("r", user_id="somebody else"))
    desk.model.say(None)
    await handle.result()
    await own.task


@pytest.mark.parametrize("after", ["7", -1, 2**63, True, None])
async def test_a_number_that_is_none_is_refused(after: Any) -> None:
    desk = Desk(InMemoryDb(), None)
    with pytest.raises(UsageError, match="after must be"):
        await anext(desk.agent.follow("r", after=after))


async def test_a_run_of_another_database_that_has_the_same_id_is_not_heard(deltas: DeltaStream) -> None:
    first, second = Desk(InMemoryDb(), deltas), Desk(InMemoryDb(), deltas)
    handles = []
    for desk, text in ((first, "of the first"), (second, "of the second")):
        handles.append(await desk.agent.astart("go", session_id="s", run_id="r"))
        desk.model.say(text)
        follower = Follower(desk.agent.follow("r"))
        await follower.until("r", text)
        desk.model.say(None)
        assert (await follower.task).texts["r"] == text
    assert [(await handle.result()).content for handle in handles] == ["of the first", "of the second"]


async def test_a_server_that_takes_no_writes_is_told_of_once_and_once_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from redis.asyncio import Redis

    def said() -> list[str]:
        return [text for text in caplog.messages if text.startswith("Redis at")]

    with redis_server() as server:
        made, number = RedisDeltas(server.url), 0
        async with Redis(unix_socket_path=str(server.socket)) as client:
            await client.config_set("maxmemory-policy", "noeviction")
            for limit, lines in (("1", 1), ("0", 2)):
                await client.config_set("maxmemory", limit)
                async with asyncio.timeout(20):
                    while len(said()) < lines:
                        made.publish("r", Delta(number, number + 1, b"[]"))
                        number += 1
                        await made.read("r", number, 0.1)
                for _ in range(10):
                    made.publish("r", Delta(number, number + 1, b"[]"))
                    number += 1
                    await made.read("r", number, 0.1)
                assert len(said()) == lines
        assert "fails" in said()[0]
        assert "is back" in said()[1]
        await made.aclose()


@pytest.mark.parametrize("number", ["18446744073709551614-0", "4000000000-0", "*"])
async def test_a_foreign_entry_of_a_stream_takes_no_text_and_no_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, number: str
) -> None:
    from redis.asyncio import Redis

    with redis_server() as server:
        deltas = RedisDeltas(server.url)
        desk = Desk(SqliteDb(tmp_path / "a.db"), deltas)
        handle = await desk.agent.astart("go", session_id="s", run_id="r")
        follower = Follower(desk.agent.follow("r"))
        desk.model.say("one ")
        await follower.until("r", "one ")
        async with Redis(unix_socket_path=str(server.socket)) as client:
            (key,) = await client.keys("kern:*")
            await client.xadd(key, {"after": "0", "events": "[]"}, id=number)
        desk.model.say("two ")
        await asyncio.sleep(0.5)
        desk.model.say("three", None)
        ears = await follower.task
        assert ears.texts["r"] == (await handle.result()).content == "one two three"
        assert ears.ended
        assert len([text for text in caplog.messages if "stream of deltas cannot be read" in text]) == 1
        await deltas.aclose()


async def test_a_key_that_is_no_stream_takes_the_pieces_of_its_own_run_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from redis.asyncio import Redis

    with redis_server() as server:
        made = RedisDeltas(server.url)
        async with Redis(unix_socket_path=str(server.socket)) as client:
            await client.set("kern:poisoned", "x")
        poisoned = asyncio.create_task(made.read("poisoned", 0, 2.0))
        for number in range(5):
            made.publish("poisoned", Delta(number, number + 1, b"[]"))
            made.publish("r", Delta(number, number + 1, b"[]"))
            found = await made.read("r", number, 5.0)
            assert found == [Delta(number, number + 1, b"[]")]
        assert list(await poisoned) == []
        assert [text for text in caplog.messages if text.startswith("Redis at")] == []
        await made.aclose()
