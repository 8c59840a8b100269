"""A durable run has its owner on record before it has ended and before its session is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kern import Agent
from kern.db import Db
from kern.durable import DbJournal
from kern.engines import submission
from kern.errors import SessionOwnershipError
from kern.run.cancel import CancelResult
from kern.testing import ScriptedModel
from tests.databases import KINDS, opener


@pytest.fixture(params=KINDS)
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Db]:
    db = opener(request, tmp_path)()
    yield db
    await db.aclose()


async def test_another_user_is_told_that_he_cannot_cancel_a_submitted_run(db: Db) -> None:
    agent = Agent(id="desk", model=ScriptedModel(["done"]), db=db, journal=DbJournal(db))
    run = submission(agent, "go", session_id="s", run_id="anns", user_id="ann")
    assert await DbJournal(db).submit(run)
    with pytest.raises(SessionOwnershipError):
        await agent.acancel_run("anns", user_id="bob")
    wanted = CancelResult.requested if db.shared else CancelResult.unknown
    assert await agent.acancel_run("anns", user_id="ann") is wanted
