"""Each field of each recorded step damaged: the run goes on, or ends in an error of Kern's that names it."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from kern import Agent, RunContext, Team, tool
from kern.db.in_memory import InMemoryDb
from kern.db.journals import RunAbout, StepRow
from kern.durable import DbJournal
from kern.errors import KernError, ModelStatusError, RunMismatch, SessionDeletedError, UsageError
from kern.models.base import DeltaSink, Model, ModelRequest, ModelResponse
from kern.runtime import recorded_steps
from kern.testing import ScriptedModel, tool_call

VALUES: Sequence[Any] = (None, 1, -1, True, "x", "", [], {}, [[]], [None], {"a": 1}, {"a": [{}]}, 1e999)
TEXTS: Sequence[bytes] = (b"", b"[]", b"null", b"{", b"{}", b'"x"', b"\xff\x00", b'{"at": {}}', b"[" * 300)


class Broken(Model):
    """A model that the provider refuses."""

    id, provider, structured_output = "broken", "played", "native"

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        raise ModelStatusError("slow down", status=429, retry_after=1.0, provider="played", model="broken")


def team(db: InMemoryDb, *answers: Any, waits: asyncio.Event | None = None) -> Team:
    @tool(effect="idempotent")
    def inc(run_context: RunContext) -> str:
        """Count."""
        run_context.session_state["n"] += 1
        return "counted"

    @tool(effect="read")
    def fail() -> str:
        """Fail."""
        raise LookupError("nothing")

    @tool(requires_confirmation=True, effect="idempotent")
    def pay() -> str:
        """Pay."""
        return "paid"

    @tool(effect="once")
    async def stop() -> str:
        """Stop."""
        if waits is not None:
            waits.set()
            await asyncio.sleep(60)
        return "stopped"

    def check(run_input: Any) -> None:
        run_input.input_content = f"please: {run_input.input_content}"

    member = Agent(id="m", name="m", model=ScriptedModel(["m done"] if waits else ["m again"]))
    broken = Agent(id="b", name="b", model=Broken())
    return Team(
        [member, broken],
        id="t",
        model=ScriptedModel([*answers]),
        tools=[inc, fail, pay, stop],
        db=db,
        journal=DbJournal(db),
        session_state={"n": 0},
        pre_hooks=[check],
    )


ASKED: dict[str, Any] = {"session_id": "s", "user_id": "u", "run_id": "R"}


async def recorded(*, continued: bool) -> tuple[InMemoryDb, list[StepRow]]:
    """The steps of a run that died in a call, and its database without them."""
    db, waits = InMemoryDb(), asyncio.Event()
    work = [
        tool_call("inc"),
        ModelResponse.of(
            None, *(tool_call("delegate_task_to_member", member_id=who, task="x") for who in "mb")
        ),
        tool_call("fail"),
    ]
    last = tool_call("stop")
    desk = team(db, *([tool_call("pay")] if continued else []), *work, last, waits=waits)
    going_on = desk.arun("q", **ASKED)
    if continued:
        paused = await going_on
        paused.requirements[0].confirm()
        going_on = desk.acontinue_run(paused)
    task = asyncio.create_task(going_on)
    waiting = asyncio.create_task(waits.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    assert not task.done(), task
    task.cancel()
    await asyncio.wait([task])
    found = await db.claim_run("R", "reader", 60.0)
    assert found is not None
    assert await db.forget_run("R")
    return db, list(found.steps)


def another(db: InMemoryDb) -> InMemoryDb:
    """What is stored there, in a database of its own."""
    other = InMemoryDb()
    other._runs, other._sessions = dict(db._runs), copy.deepcopy(db._sessions)
    return other


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where there is something in JSON data."""
    items: Any = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in items:
        yield (*at, key)
        if isinstance(below, dict | list):
            yield from places(below, (*at, key))


def damaged(row: StepRow) -> Iterator[tuple[str, StepRow]]:
    """The row with each of its fields as something else."""
    for text in TEXTS:
        yield f"{text[:20]!r}", replace(row, data=text)
    for place in places(json.loads(row.data)):
        for value in (*VALUES, ...):
            data = json.loads(row.data)
            holder = data
            for key in place[:-1]:
                holder = holder[key]
            if value is ...:
                del holder[place[-1]]
            else:
                holder[place[-1]] = value
            yield f"{place} = {value!r}", replace(row, data=json.dumps(data).encode())


async def ends(db: InMemoryDb, rows: Sequence[StepRow]) -> BaseException | None:
    """What the run raises that goes on with these steps."""
    about = RunAbout(session_id="s", user_id="u", runner_id="t", is_team=True)
    found = await db.claim_run("R", "writer", 60.0, about)
    assert found is not None
    await db.append_steps(found.claim, 60.0, rows)
    await db.release_claim(found.claim)
    before = asyncio.all_tasks()
    try:
        await asyncio.wait_for(team(db, "end", "end").arun("q", **ASKED), 10)
    except BaseException as error:
        return error
    finally:
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - before
        assert not left, left
    return None


async def wrong(continued: bool, share: float) -> list[str]:
    """What comes of damages, that share of all, which is none of Kern's errors and names no step."""
    db, rows = await recorded(continued=continued)
    kinds = {row.kind for row in rows}
    assert {"base", "model", "tool", "delegation", "change", "begun"} <= kinds, kinds
    seed = time.time_ns()
    dice, found, count = random.Random(seed), [], 0
    for at, row in enumerate(rows):
        for what, other in damaged(row):
            if dice.random() >= share:
                continue
            count += 1
            error = await ends(another(db), [*rows[:at], other, *rows[at + 1 :]])
            if error is None or (isinstance(error, KernError) and _names_it(error)):
                continue
            found.append(f"{row.key}: {what}: {error!r}")
    print(f"{count} damages, seed {seed}", *found, sep="\n")
    return found


def _names_it(error: KernError) -> bool:
    """It says which step it is, or what is another now: nobody can know that the record is what is wrong."""
    told = isinstance(error, RunMismatch | SessionDeletedError | UsageError)
    return told or "recorded step" in str(error)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A step that nobody asks for is given up at once, and nothing is logged."""
    monkeypatch.setattr(recorded_steps, "STALL_SECONDS", 0.01)
    caplog.set_level(logging.CRITICAL, "kern")


@pytest.mark.parametrize("continued", [False, True], ids=["run", "continuation"])
async def test_a_damaged_step_ends_in_an_error_of_kerns_that_names_it(continued: bool) -> None:
    assert await wrong(continued, 0.03) == []


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("continued", [False, True], ids=["run", "continuation"])
async def test_each_damaged_field_ends_in_an_error_of_kerns_that_names_its_step(continued: bool) -> None:
    assert await wrong(continued, 1.0) == []
