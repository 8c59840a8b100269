"""Who names the id of a run that was begun goes on with it only if it is the same run, and his."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, tool
from kern._json import json_bytes
from kern.db import Db, SqliteDb
from kern.db.journals import JournalDb, RunAbout, StepRow
from kern.durable import DbJournal, Submission
from kern.durable.fingerprint import fingerprint
from kern.errors import KernError, RunConflictError, RunMismatch, SessionBusyError, SessionOwnershipError
from kern.testing import ScriptedModel, tool_call
from tests.databases import KINDS, opener


@pytest.fixture(params=KINDS)
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Db]:
    db = opener(request, tmp_path)()
    yield db
    await db.aclose()


class Desk:
    """An agent whose tool waits in its first life."""

    def __init__(self, db: Db, *answers: Any, agent_id: str = "desk", waits: bool = False) -> None:
        self.waits = asyncio.Event()
        self.model = ScriptedModel(answers)

        @tool(effect="read")
        def secret() -> str:
            """Tell."""
            return "medical data"

        @tool(effect="idempotent")
        async def work() -> str:
            """Work."""
            self.waits.set()
            await asyncio.sleep(60 if waits else 0)
            return "worked"

        self.agent = Agent(id=agent_id, model=self.model, tools=[secret, work], db=db, journal=DbJournal(db))

    async def run(self, **more: Any) -> Any:
        asked = {"input": "of u", "session_id": "s-u", "user_id": "u", "run_id": "R", **more}
        return await self.agent.arun(asked.pop("input"), **asked)


async def begun(db: Db) -> None:
    """A run of which two answers are on record, and that nobody has."""
    desk = Desk(db, tool_call("secret"), tool_call("work"), waits=True)
    task = asyncio.create_task(desk.run())
    await desk.waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"user_id": "eve", "session_id": "s-eve"}, SessionOwnershipError),
        ({"user_id": "eve"}, SessionOwnershipError),
        ({"user_id": "eve", "session_id": None}, SessionOwnershipError),
        ({"user_id": None}, SessionOwnershipError),
        ({"session_id": "s-other"}, RunConflictError),
        ({"input": "another question"}, RunConflictError),
        ({"agent_id": "another"}, RunConflictError),
    ],
)
async def test_a_begun_run_is_not_taken_over_by_who_names_its_id(
    db: Db, asked: dict[str, Any], error: type[KernError]
) -> None:
    await begun(db)
    asked = dict(asked)
    other = Desk(db, "theirs", agent_id=asked.pop("agent_id", "desk"))
    with pytest.raises(error):
        await other.run(**asked)
    assert other.model.requests == [], "nothing of the run is sent anywhere"
    assert await db.load_run("R") is None
    assert isinstance(db, JournalDb)
    (row,) = await db.running_runs(run_id="R")
    assert (row.owner, row.about.session_id, row.about.user_id) == (None, "s-u", "u")
    output = await Desk(db, "done").run()
    assert (output.content, output.user_id, output.session_id) == ("done", "u", "s-u")
    assert [call.result for call in output.tools] == ["medical data", "worked"]


async def test_an_agent_without_a_name_goes_on_with_its_run_in_another_life(db: Db) -> None:
    outputs = []
    for answers in (["x"], []):
        agent = Agent(model=ScriptedModel(answers), db=db, journal=DbJournal(db))
        outputs.append(await agent.arun("q", session_id="s", run_id="R"))
    assert [output.content for output in outputs] == ["x", "x"]


async def test_a_submitted_run_is_begun_by_its_user_only(db: Db) -> None:
    submission = Submission.of(
        run_id="R", runner_id="desk", is_team=False, session_id="s-u", user_id="u", input="of u"
    )
    assert await DbJournal(db).submit(submission)
    with pytest.raises(SessionOwnershipError):
        await Desk(db, "theirs").run(user_id="eve", session_id="s-eve")
    assert await DbJournal(db).unfinished() == ["R"]
    assert (await Desk(db, "done").run()).content == "done"


async def test_a_session_that_is_deleted_takes_its_unfinished_runs_along(db: Db) -> None:
    await Desk(db, "hello").run(run_id="before")
    await begun(db)
    assert await Desk(db).agent.adelete_session("s-u", user_id="u")
    assert await DbJournal(db).unfinished() == []
    assert (await Desk(db, "new").run()).content == "new", "the id is free"


async def test_a_session_that_has_no_row_yet_can_be_deleted_with_its_begun_run(db: Db) -> None:
    await begun(db)
    await Desk(db).agent.adelete_session("s-u", user_id="u")
    assert await DbJournal(db).unfinished() == []
    await begun(db)
    await Desk(db).agent.adelete_user("u")
    assert await DbJournal(db).unfinished() == []


async def test_another_process_that_asks_something_else_is_refused_while_the_run_goes_on(
    tmp_path: Path,
) -> None:
    db = SqliteDb(tmp_path / "kern.db")
    about = RunAbout(session_id="s-u", user_id="u", runner_id="desk", is_team=False)
    found = await db.claim_run("R", "elsewhere", 3600.0, about)
    assert found is not None
    known = fingerprint("of u", [])
    base = StepRow(key="base", kind="base", data=json_bytes({"fingerprint": known}))
    assert await db.append_steps(found.claim, 3600.0, [base])
    desk = Desk(db)
    with pytest.raises(SessionBusyError):
        await desk.run()
    with pytest.raises(RunMismatch, match="input"):
        await desk.run(input="something else")
    assert not desk.model.requests
