"""A busy database is waited for once, and not once more for each run of a session."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from kern import Agent
from kern.db import InMemoryDb, SqliteDb
from kern.errors import StoreBusyError, StoreError
from kern.runner.compile import database_of
from kern.testing import FunctionModel


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Another writer has the file."""
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


class Waiting(SqliteDb):
    """Counts the commits that waited for all of the time."""

    waited = 0

    async def commit(self, commit: Any) -> Any:
        try:
            return await super().commit(commit)
        except StoreBusyError:
            self.waited += 1
            raise


async def test_the_time_does_not_add_up_per_run_of_a_session(tmp_path: Path) -> None:
    file = tmp_path / "a.db"
    db = Waiting(file, busy_timeout=0.5)
    agent = Agent(model=FunctionModel(lambda r: "hi"), db=db, session_id="s")
    await agent.arun("go")
    with held(file):
        results = await asyncio.gather(*(agent.arun("go") for _ in range(12)), return_exceptions=True)
    assert all(isinstance(result, StoreBusyError) for result in results)
    assert db.waited <= 2  # one wait, or two, and not twelve
    assert all(result.run_output.session_state == {} for result in results)
    assert (await agent.arun("go")).content == "hi"
    assert len(await database_of(agent).load_runs("s")) == 2


class Counting(InMemoryDb):
    """A database that is busy, and counts how often it is asked."""

    def __init__(self, verb: str) -> None:
        super().__init__()
        self.verb = verb
        self.busy = True
        self.asked = 0

    async def load_session(self, session_id: str) -> Any:
        await self._maybe("load_session")
        return await super().load_session(session_id)

    async def commit(self, commit: Any) -> Any:
        await self._maybe("commit")
        return await super().commit(commit)

    async def _maybe(self, verb: str) -> None:
        if self.busy and verb == self.verb:
            self.asked += 1
            await asyncio.sleep(0.02)
            raise StoreBusyError("busy for all of the time")


@pytest.mark.parametrize("verb", ["load_session", "commit"])
async def test_who_has_waited_through_an_attempt_does_not_make_one_of_his_own(verb: str) -> None:
    db = Counting(verb)
    agent = Agent(model=FunctionModel(lambda r: "hi"), db=db, session_id="s")
    results = await asyncio.gather(*(agent.arun("go") for _ in range(20)), return_exceptions=True)
    assert all(isinstance(result, StoreError) for result in results)
    assert db.asked <= 3
    with pytest.raises(StoreBusyError):
        await agent.arun("one that comes later asks anew")
    assert db.asked <= 4
    db.busy = False
    assert (await agent.arun("go")).content == "hi"
