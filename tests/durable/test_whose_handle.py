"""A handle is of its user's run alone, and a question that is asked again leaves the record as it is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, CancelResult, RunStatus, Team
from kern.db.sqlite import SqliteDb
from kern.durable import DbJournal
from kern.errors import RunMismatch, SessionError
from kern.models.base import ModelRequest, ModelResponse
from kern.testing import FunctionModel


async def answer(request: ModelRequest) -> ModelResponse:
    await asyncio.sleep(0.3)
    return ModelResponse.of("the secret of ann")


def desk(path: Path) -> Agent:
    return Agent(id="desk", model=FunctionModel(answer), db=SqliteDb(path / "runs.db"))


@pytest.mark.parametrize("session_id", ["ann's", "bob's"])
async def test_another_user_gets_no_handle_of_a_run_that_goes_on(tmp_path: Path, session_id: str) -> None:
    agent = desk(tmp_path)
    handle = await agent.astart("q", session_id="ann's", run_id="r", user_id="ann")
    with pytest.raises(SessionError):
        await agent.astart("q", session_id=session_id, run_id="r", user_id="bob")
    assert (await handle.result()).content == "the secret of ann"


@pytest.mark.parametrize("door", ["astart", "arun"])
@pytest.mark.parametrize("kind", [Agent, Team])
async def test_another_agent_or_team_gets_no_handle_of_a_run_that_goes_on(
    tmp_path: Path, door: str, kind: type[Agent] | type[Team]
) -> None:
    agent = desk(tmp_path)
    members: dict[str, Any] = {"members": [desk(tmp_path)]} if kind is Team else {}
    # A team may even have the id of the agent.
    other = kind(
        id="desk" if members else "other",
        model=agent.model,
        db=agent.db,
        journal=DbJournal(SqliteDb(tmp_path / "runs.db")),
        **members,
    )
    handle = await agent.astart("q", session_id="s", run_id="r")
    with pytest.raises(RunMismatch, match="agent or team"):
        await getattr(other, door)("q", session_id="s", run_id="r")
    assert (await handle.result()).content == "the secret of ann"


async def test_an_agent_without_a_name_waits_for_its_run_that_goes_on(tmp_path: Path) -> None:
    db = SqliteDb(tmp_path / "runs.db")
    first, second = (Agent(model=FunctionModel(answer), db=db) for _ in range(2))
    handles = [await agent.astart("q", session_id="s", run_id="r") for agent in (first, second)]
    assert [(await handle.result()).content for handle in handles] == ["the secret of ann"] * 2


async def test_a_handle_cancels_the_run_of_its_user(tmp_path: Path) -> None:
    handle = await desk(tmp_path).astart("q", session_id="s", run_id="r", user_id="ann")
    assert await handle.cancel() is CancelResult.cancelled
    assert (await handle.result()).status is RunStatus.cancelled


async def test_a_question_that_is_asked_again_leaves_what_the_run_has_told(tmp_path: Path) -> None:
    agent = desk(tmp_path)
    options = {"session_id": "s", "run_id": "r", "user_id": "ann"}
    await (await agent.astart("q", **options)).result()
    told = [(event.seq, event.event) async for event in agent.follow("r", user_id="ann")]
    again = await agent.astart("q", **options)
    assert (await again.result()).content == "the secret of ann"
    assert [(event.seq, event.event) async for event in agent.follow("r", user_id="ann")] == told
    assert told[0][1] == "RunStarted"
