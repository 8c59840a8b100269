"""Another user who tries to continue a paused run is refused, and does not hold its owner up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kern import Agent, CancelResult, RunStatus, tool
from kern.db.sqlite import SqliteDb
from kern.errors import SessionOwnershipError
from kern.run import RunOutput
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
