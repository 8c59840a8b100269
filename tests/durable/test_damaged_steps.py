"""Steps that cannot be read, or could not be read back; and what a cancelled continuation leaves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from kern import Agent, tool
from kern.db import InMemoryDb, SqliteDb
from kern.db.journals import EventRow
from kern.durable import DbJournal
from kern.errors import StoreError, UsageError
from kern.messages import ToolCall
from kern.testing import ScriptedModel, tool_call
from tests.databases import ask


class Movie(BaseModel):
    title: str


async def cut(task: asyncio.Task[Any], waits: asyncio.Event) -> None:
    await asyncio.wait_for(waits.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def agent(db: Any, *answers: Any, waits: asyncio.Event | None = None, **more: Any) -> Agent:
    @tool(effect="idempotent")
    async def work() -> str:
        """Work."""
        if waits is not None:
            waits.set()
            await asyncio.sleep(60)
        return "worked"

    return Agent(id="a", model=ScriptedModel(answers), tools=[work], db=db, journal=DbJournal(db), **more)


@pytest.mark.parametrize("kind", ["base", "model", "prompt"])
@pytest.mark.parametrize("data", ["[]", "{", '{"at": "x"}', '{"at": 1.0}'])
async def test_a_damaged_step_is_a_store_error_and_lets_go(tmp_path: Path, kind: str, data: str) -> None:
    place = str(tmp_path / "a.db")
    db, waits = SqliteDb(place), asyncio.Event()
    first = agent(db, tool_call("work"), waits=waits)
    await cut(asyncio.create_task(first.arun("q", session_id="s", run_id="R")), waits)
    whole = ask(place, f"SELECT data FROM {{t}}_steps WHERE kind = '{kind}'")
    ask(place, f"UPDATE {{t}}_steps SET data = '{data}' WHERE kind = '{kind}'")
    with pytest.raises(StoreError, match="cannot be read"):
        await agent(db, "end").arun("q", session_id="s", run_id="R")
    assert await db.load_run("R") is None, "that is no end of the run"
    assert await DbJournal(db).unfinished() == ["R"], "nobody holds it"
    whole = whole.replace("'", "''")
    ask(place, f"UPDATE {{t}}_steps SET data = '{whole}' WHERE kind = '{kind}'")
    assert (await agent(db, "end").arun("q", session_id="s", run_id="R")).content == "end"
    await db.aclose()


async def begun(place: str) -> SqliteDb:
    """A run that has begun, and that no process has."""
    db, waits = SqliteDb(place), asyncio.Event()
    first = agent(db, tool_call("work"), waits=waits)
    await cut(asyncio.create_task(first.arun("q", session_id="s", run_id="R")), waits)
    return db


@pytest.mark.parametrize("damage", ["'garbage'", "1e999", "x'ff00'", "'[]'"])
@pytest.mark.parametrize("column", ["begun_at", "attempt"])
async def test_a_damaged_number_of_a_claim_keeps_nobody_from_the_run(
    tmp_path: Path, column: str, damage: str
) -> None:
    place = str(tmp_path / "a.db")
    db = await begun(place)
    ask(place, f"UPDATE {{t}}_claims SET {column} = {damage}")
    again = agent(db, "end")
    running = await again.alist_runs(status="RUNNING")
    assert [(output.run_id, output.created_at > 0) for output in running] == [("R", column == "attempt")]
    assert (await again.arun("q", session_id="s", run_id="R")).content == "end"
    await db.aclose()


async def test_a_step_whose_key_is_damaged_is_a_store_error(tmp_path: Path) -> None:
    place = str(tmp_path / "a.db")
    db = await begun(place)
    ask(place, "UPDATE {t}_steps SET key = x'ff00' WHERE kind = 'prompt'")
    with pytest.raises(StoreError, match="a step of run 'R' is damaged"):
        await agent(db, "end").arun("q", session_id="s", run_id="R")
    await db.aclose()


@pytest.mark.parametrize("damage", ["'garbage'", "x'ff00'", "'[]'"])
async def test_an_event_whose_number_is_damaged_is_left_out(tmp_path: Path, damage: str) -> None:
    place = str(tmp_path / "a.db")
    db = await begun(place)
    found = await db.claim_run("R", "somebody", 60.0)
    assert found is not None
    rows = [EventRow(last_seq=found.last_seq + number, data=b"[]") for number in (1, 2)]
    assert await db.append_steps(found.claim, 60.0, [], rows)
    await db.release_claim(found.claim)
    ask(place, f"UPDATE {{t}}_events SET last_seq = {damage} WHERE last_seq = {rows[1].last_seq}")
    again = agent(db, "end")
    handle = await again.astart("q", session_id="s", run_id="R")
    told = [event.event async for event in again.follow("R")]
    assert (await handle.result()).content == "end"
    assert told[-1] == "RunCompleted"
    assert [row.last_seq for row in await db.load_events("R", after=found.last_seq)][:1] == [rows[0].last_seq]
    await db.aclose()


async def test_an_input_that_could_not_be_read_back_is_refused() -> None:
    db, deep = InMemoryDb(), {"d": 1}
    for _ in range(220):
        deep = {"d": deep}
    with pytest.raises(UsageError, match="is nested too deeply"):
        await agent(db, "x").arun(deep, session_id="s", run_id="R")
    assert await DbJournal(db).unfinished() == []
    assert (await agent(db, "x").arun("q", session_id="s", run_id="R")).content == "x"


@pytest.mark.parametrize("call_id", ["\ud83d", "x\0y", "a/b", "x" * 100_000])
async def test_a_call_of_any_id_is_kept_and_found_again(tmp_path: Path, call_id: str) -> None:
    db, waits = SqliteDb(tmp_path / "a.db"), asyncio.Event()
    call = ToolCall(id=call_id, name="work", arguments="{}")
    first = agent(db, call, tool_call("work"), post_hooks=[], waits=None)
    first = Agent(
        id="a",
        model=ScriptedModel([call, tool_call("stop")]),
        tools=[*first.tools, stopping(waits)],
        db=db,
        journal=DbJournal(db),
    )
    await cut(asyncio.create_task(first.arun("q", session_id="s", run_id="R")), waits)
    second = Agent(id="a", model=ScriptedModel(["end"]), tools=[stopping(None)], db=db, journal=DbJournal(db))
    output = await second.arun("q", session_id="s", run_id="R")
    assert [one.result for one in output.tools] == ["worked", "stopped"]
    await db.aclose()


def stopping(waits: asyncio.Event | None) -> Any:
    @tool(effect="idempotent")
    async def stop() -> str:
        """Stop."""
        if waits is not None:
            waits.set()
            await asyncio.sleep(60)
        return "stopped"

    return stop


@pytest.mark.parametrize("made", ["a text", ["a", "list"], Movie(title="new")])
async def test_what_a_hook_has_made_of_the_answer_is_taken_as_it_was(made: Any) -> None:
    db, waits, seen = InMemoryDb(), asyncio.Event(), []

    def change(run_output: Any) -> None:
        run_output.content = made

    async def wait(run_output: Any) -> None:
        waits.set()
        await asyncio.sleep(60)

    def look(run_output: Any) -> None:
        seen.append(run_output.content)

    answer = '{"title": "T"}'
    first = agent(db, answer, output_schema=Movie, post_hooks=[change, wait])
    await cut(asyncio.create_task(first.arun("q", session_id="s", run_id="R")), waits)
    second = agent(db, output_schema=Movie, post_hooks=[change, look])
    output = await second.arun("q", session_id="s", run_id="R")
    assert output.content == made
    assert seen == [made]


async def test_a_cancelled_continuation_leaves_no_steps() -> None:
    db, waits = InMemoryDb(), asyncio.Event()

    @tool(effect="idempotent", requires_confirmation=True)
    async def book() -> str:
        """Book."""
        waits.set()
        await asyncio.sleep(60)
        return "booked"

    desk = Agent(id="a", model=ScriptedModel([tool_call("book")]), tools=[book], db=db, journal=DbJournal(db))
    output = await desk.arun("q", session_id="s", run_id="R")
    for requirement in output.requirements:
        requirement.confirm()
    task = asyncio.create_task(desk.acontinue_run(run_id="R", requirements=output.requirements))
    await cut(task, waits)
    assert await DbJournal(db).unfinished() == ["R"]
    assert await desk.acancel_run("R")
    assert await DbJournal(db).unfinished() == []
    assert (await desk.arun("q", session_id="s", run_id="R")).status.value == "CANCELLED"


async def test_a_session_whose_generation_is_bytes_is_a_store_error(tmp_path: Path) -> None:
    place = str(tmp_path / "a.db")
    db = SqliteDb(place)

    @tool(requires_confirmation=True)
    def book() -> str:
        """Book."""
        return "booked"

    model = ScriptedModel([tool_call("book"), "end"])
    desk = Agent(id="a", model=model, tools=[book], db=db, journal=DbJournal(db))
    paused = await desk.arun("q", session_id="s", run_id="R")
    paused.requirements[0].confirm()
    ask(place, "UPDATE {t} SET generation = CAST(generation AS BLOB)")
    with pytest.raises(StoreError, match="session"):
        await desk.acontinue_run(paused)
    await db.aclose()
