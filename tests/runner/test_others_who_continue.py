"""Another user who tries to continue a run, or to take its id, is refused, and does not hold its owner up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kern import Agent, CancelResult, RunStatus, tool
from kern.db import InMemoryDb
from kern.db.sqlite import SqliteDb
from kern.errors import RunConflictError, SessionOwnershipError
from kern.run import RunOutput
from kern.runtime.request import OnDuplicate
from kern.testing import ScriptedModel, tool_call


@tool(requires_confirmation=True)
def pay() -> str:
    return "paid"


def clerk(path: Path) -> Agent:
    model = ScriptedModel([tool_call("pay"), "Done."])
    return Agent(model=model, tools=[pay], db=SqliteDb(path / "runs.db"))


async def paused(path: Path) -> tuple[Agent, RunOutput]:
    agent = clerk(path)
    output = await agent.arun("pay", session_id="s", user_id="owner")
    output.requirements[0].confirm()
    return agent, output


async def test_the_owner_continues_while_another_user_tries_without_end(tmp_path: Path) -> None:
    agent, output = await paused(tmp_path)
    other, tried = clerk(tmp_path), 0

    async def attack() -> None:
        nonlocal tried
        while True:
            with pytest.raises(SessionOwnershipError):
                await other.acontinue_run(run_id=output.run_id, user_id="other")
            tried += 1

    attacks = [asyncio.create_task(attack()) for _ in range(3)]
    while tried < 3:
        await asyncio.sleep(0.01)
    ended = await agent.acontinue_run(output, user_id="owner")
    for task in attacks:
        task.cancel()
    assert (ended.status, ended.content) == (RunStatus.completed, "Done.")


async def test_who_is_refused_cannot_cancel_the_run_by_having_asked_to_continue_it(tmp_path: Path) -> None:
    _, output = await paused(tmp_path)
    other = clerk(tmp_path)
    asking = asyncio.create_task(other.acontinue_run(run_id=output.run_id, user_id="other"))
    answers: list[CancelResult | str] = []
    while not asking.done():
        try:
            answers.append(await other.acancel_run(output.run_id, user_id="other"))
        except SessionOwnershipError:
            answers.append("refused")
        await asyncio.sleep(0)
    with pytest.raises(SessionOwnershipError):
        await asking
    assert set(answers) <= {"refused"}


@pytest.mark.parametrize("db", [None, "file"])
@pytest.mark.parametrize("on_duplicate", ["raise", "return", "retry_failed"])
async def test_the_owner_runs_under_an_id_that_another_user_tries_to_take(
    tmp_path: Path, on_duplicate: OnDuplicate, db: str | None
) -> None:
    shared = InMemoryDb() if db is None else SqliteDb(tmp_path / "runs.db")
    owner = Agent(model=ScriptedModel(["first", "second"]), db=shared)
    other = Agent(model=ScriptedModel([]), db=shared)
    await owner.arun("go", session_id="s", user_id="owner")
    tried = 0

    async def attack() -> None:
        nonlocal tried
        while True:
            with pytest.raises(SessionOwnershipError):
                await other.arun("x", session_id="s", run_id="r", user_id="other", on_duplicate=on_duplicate)
            tried += 1
            await asyncio.sleep(0.001)  # a loop that never rests keeps SQLite's thread from the interpreter

    attacks = [asyncio.create_task(attack()) for _ in range(3)]
    while tried < 3:
        await asyncio.sleep(0.001)
    output = await owner.arun("go", session_id="s", run_id="r", user_id="owner", on_duplicate=on_duplicate)
    for task in attacks:
        task.cancel()
    assert output.content == "second"


async def test_two_users_cannot_have_runs_of_one_id_at_the_same_time() -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    async def wait() -> str:
        entered.set()
        await gate.wait()
        return "waited"

    db = InMemoryDb()
    first = Agent(model=ScriptedModel([tool_call("wait"), "Done."]), tools=[wait], db=db)
    going = asyncio.create_task(first.arun("go", session_id="a", user_id="ann", run_id="r"))
    await entered.wait()
    with pytest.raises(RunConflictError, match="run_id 'r' belongs to a run of another session"):
        await Agent(model=ScriptedModel([]), db=db).arun("go", session_id="b", user_id="bob", run_id="r")
    gate.set()
    assert (await going).content == "Done."
