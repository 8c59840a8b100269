"""What is read back from a row is data from outside: the next run answers, or says what is wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import shutil
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, KernError, RunContext, tool
from kern.db.sqlite import SqliteDb
from kern.messages import Image
from kern.testing import FunctionModel, tool_call

TABLES = {
    "kern_sessions": "session_id",
    "kern_sessions_runs": "run_id",
    "kern_sessions_changes": "seq",
    "kern_sessions_media": "rowid",
}
JSON = {"state", "data", "patch", "agent_path"}
BIG = "x" * 1_000_000


def add(run_context: RunContext, item: str) -> str:
    """Add an item."""
    run_context.session_state.setdefault("items", []).append(item)
    return "added"


@tool(requires_confirmation=True)
def pay(amount: int) -> str:
    """Pay."""
    return f"paid {amount}"


def agent_on(path: Path) -> Agent:
    def play(request: Any) -> Any:
        asked = [message.content or "" for message in request.messages if message.role == "user"][-1]
        if request.messages[-1].role == "tool" or asked == "plain":
            return "answer"
        return tool_call("pay", amount=1) if asked == "pay" else tool_call("add", item="milk")

    return Agent(
        name="A",
        id="a",
        model=FunctionModel(play),
        tools=[add, pay],
        db=SqliteDb(path),
        session_id="s",
        add_history_to_context=True,
        num_history_runs=5,
        read_chat_history=True,
        user_id="ann",
    )


async def make(path: Path) -> str:
    """A file with each kind of row; the id of its paused run."""
    agent = agent_on(path)
    await agent.arun("first", images=[Image(content=b"png", name="a.png")], metadata={"k": "v"})
    paused = await agent.arun("pay")
    await agent.arun("plain")
    await agent.aset_session_name("Name")
    await agent.db.aclose()
    return paused.run_id


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp("rows") / "whole.db"
    return path, asyncio.run(make(path))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all members of a JSON value, however deep."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, member in items:
        yield (*path, name)
        yield from places(member, (*path, name))


def changed(value: Any, place: tuple[Any, ...], how: str) -> Any:
    """The value with one member dropped, null, of another type, or huge."""
    value = json.loads(json.dumps(value))
    parent = value
    for name in place[:-1]:
        parent = parent[name]
    if how == "dropped":
        del parent[place[-1]]
    else:
        parent[place[-1]] = damage(parent[place[-1]], how)
    return value


def damage(value: Any, how: str) -> Any:
    if how == "null":
        return None
    if how == "huge":
        return BIG
    return 7 if not isinstance(value, int | float) else {"other": []}


HOWS = ("dropped", "null", "type", "huge")


def cases(path: Path) -> Iterator[tuple[str, str, Any]]:
    """For each damage: what it is, and the statement that does it, with its values."""
    raw = sqlite3.connect(path)
    for table, key in TABLES.items():
        rows = raw.execute(f"SELECT {key} AS the_key, * FROM {table}")
        columns = [column[0] for column in rows.description][1:]
        for the_key, *values in rows.fetchall():
            for column, value in zip(columns, values, strict=True):
                where = f"UPDATE {table} SET {column} = ? WHERE {key} = ?"
                for how in HOWS[1:]:
                    new = damage(value, how)
                    new = new if not isinstance(new, dict) else "other"
                    yield f"{table}.{column} {how}", where, (new, the_key)
                if column in JSON and table != "kern_sessions_media":
                    data = json.loads(value)
                    for place in places(data):
                        for how in HOWS:
                            new = json.dumps(changed(data, place, how))
                            yield f"{table}.{column} {place} {how}", where, (new, the_key)
            yield f"{table} deleted", f"DELETE FROM {table} WHERE {key} = ?", (the_key,)
    raw.close()


def flips(path: Path, count: int) -> Iterator[tuple[str, str, Any]]:
    """Seeded flips of one byte each, of every row's JSON."""
    raw = sqlite3.connect(path)
    for table, key in TABLES.items():
        for column in JSON:
            try:
                rows = raw.execute(f"SELECT {key}, CAST({column} AS BLOB) FROM {table}").fetchall()
            except sqlite3.OperationalError:
                continue
            for the_key, value in rows:
                chance = random.Random(f"{table}{column}{value[:20]!r}")
                for _ in range(count):
                    at, bit = chance.randrange(len(value)), chance.randrange(8)
                    new = value[:at] + bytes([value[at] ^ (1 << bit)]) + value[at + 1 :]
                    sql = f"UPDATE {table} SET {column} = CAST(? AS TEXT) WHERE {key} = ?"
                    yield f"{table}.{column} byte {at} bit {bit}", sql, (new, the_key)
    raw.close()


def apply(path: Path, sql: str, values: Any) -> bool:
    raw = sqlite3.connect(path)
    try:
        with raw:
            raw.execute(sql, values)
        return True
    except sqlite3.IntegrityError:  # the table itself does not take it
        return False
    finally:
        raw.close()


async def outcome(call: Callable[[], Awaitable[Any]]) -> bool:
    """Whether it answers; it may only raise an error of ours."""
    try:
        await call()
    except KernError:
        return False
    return True


async def try_out(path: Path, paused: str, *, all_calls: bool) -> bool:
    """Whether the next run answers. Nothing that is asked of the session raises a foreign error."""
    agent = agent_on(path)
    answered = await outcome(lambda: agent.arun("next"))
    if all_calls:
        for call in (
            lambda: agent.aget_session_messages(user_id="ann"),
            lambda: agent.aget_chat_history(user_id="ann"),
            lambda: agent.aget_last_run_output(user_id="ann"),
            lambda: agent.aget_run_output(paused, user_id="ann"),
            lambda: agent.aget_session_state(user_id="ann"),
            lambda: agent.aget_session_state(revision=1, user_id="ann"),
            lambda: agent.asession_state_history(user_id="ann"),
            lambda: agent.aget_session_name(user_id="ann"),
            lambda: agent.afork_session(revision=1, user_id="ann"),
            lambda: agent.alist_sessions(user_id="ann"),
            lambda: agent.alist_runs(status="PAUSED"),
            lambda: agent.alist_runs(user_id="ann"),
            lambda: agent.aget_session_metrics(user_id="ann"),
            lambda: look_at(agent),
            lambda: agent.aupdate_session_state(lambda state: None, user_id="ann"),
            lambda: go_on(agent, paused),
            lambda: agent.acancel_run(paused),
            lambda: agent.aupdate_session_state({"a": 1}, user_id="ann"),
        ):
            await outcome(call)
    await SqliteDb(path).aclose()
    return answered


async def look_at(agent: Agent) -> None:
    session = await agent.aget_session(user_id="ann")
    if session is not None:
        await session.aruns()
        _ = session.state


async def go_on(agent: Agent, paused: str) -> None:
    output = await agent.aget_run_output(paused, user_id="ann")
    for requirement in output.requirements if output is not None else ():
        requirement.confirm()
    await agent.acontinue_run(run_id=paused, requirements=output.requirements if output else ())


async def try_all(whole: Path, paused: str, chosen: list[tuple[str, str, Any]], folder: Path) -> float:
    answered = tried = 0
    for name, sql, values in chosen:
        path = folder / "a.db"
        shutil.copy(whole, path)
        if not apply(path, sql, values):
            continue
        tried += 1
        try:
            answered += await try_out(path, paused, all_calls=True)
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
        for companion in folder.glob("a.db*"):  # noqa: ASYNC240
            companion.unlink()
    assert tried
    return answered / tried


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="kern")


async def test_the_next_run_answers_or_raises_an_error_of_ours(
    whole: tuple[Path, str], tmp_path: Path
) -> None:
    everything = list(cases(whole[0]))
    chosen = random.Random(1).sample(everything, 150)
    assert await try_all(*whole, chosen, tmp_path) >= 0.5


async def test_a_flipped_byte_does_no_more(whole: tuple[Path, str], tmp_path: Path) -> None:
    everything = list(flips(whole[0], 500))
    chosen = random.Random(2).sample(everything, 100)
    assert await try_all(*whole, chosen, tmp_path) >= 0.5


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", range(8))
async def test_all_damages(whole: tuple[Path, str], tmp_path: Path, number: int) -> None:
    everything = [*cases(whole[0]), *flips(whole[0], 500)]
    assert await try_all(*whole, everything[number::8], tmp_path) >= 0.5
