"""A run whose end is not saved leaves nothing that is saved later, and one that is saved counts once."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunContext, Team
from kern.db.base import ChangeRow, Commit, Committed, Db, RunRow
from kern.db.in_memory import InMemoryDb
from kern.db.sqlite import SqliteDb
from kern.errors import StoreError
from kern.state import add
from kern.testing import FunctionModel, tool_call


class Failing:
    """A database that does not commit, loses the answer of a commit, or says nothing at all."""

    fail = False
    lose = False
    retry = False
    silent = False

    async def commit(self, commit: Commit) -> Committed:
        if self.fail:
            raise StoreError("the disk is full")
        done = await super().commit(commit)
        if self.lose:
            raise StoreError("the connection broke")
        return await super().commit(commit) if self.retry else done

    async def load_run(self, run_id: str) -> RunRow | None:
        self._ask()
        row: RunRow | None = await super().load_run(run_id)
        return row

    async def load_changes(self, session_id: str, *, after: int = 0) -> list[ChangeRow]:
        self._ask()
        rows: list[ChangeRow] = await super().load_changes(session_id, after=after)
        return rows

    def _ask(self) -> None:
        if self.silent:
            raise StoreError("no route to host")


class FailingMemory(Failing, InMemoryDb):
    pass


class FailingSqlite(Failing, SqliteDb):
    pass


@pytest.fixture(params=["memory", "sqlite"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return FailingMemory() if request.param == "memory" else FailingSqlite(tmp_path / "a.db")


def charge(run_context: RunContext) -> str:
    """Charge, once."""
    state = run_context.session_state
    state["charged"] = state.get("charged", 0) + 1
    state.setdefault("log", []).append(run_context.run_id)
    return "charged"


def charging(db: Db, **options: Any) -> Agent:
    def play(request: Any) -> Any:
        return "done" if request.messages[-1].role == "tool" else tool_call("charge")

    return Agent(model=FunctionModel(play), tools=[charge], db=db, session_id="s", **options)


class Slow:
    """A run of the same session that goes on until it is let go, and then charges too."""

    def __init__(self, db: Db, **options: Any) -> None:
        self.started, self.go = asyncio.Event(), asyncio.Event()

        def play(request: Any) -> Any:
            told = [message for message in request.messages if message.role == "tool"]
            return "done" if len(told) == 2 else tool_call("charge" if told else "wait")

        agent = Agent(model=FunctionModel(play), tools=[self.wait, charge], db=db, session_id="s", **options)
        self.run = asyncio.create_task(agent.arun("slow"))

    async def wait(self) -> str:
        """Wait."""
        self.started.set()
        await self.go.wait()
        return "waited"


async def stored(db: Db) -> tuple[dict[str, Any], list[str]]:
    row = await db.load_session("s")
    assert row is not None
    rows = await db.load_runs("s")
    return json.loads(row.state), [run.run_id for run in rows if run.status == "COMPLETED"]


@pytest.mark.parametrize("merge", [None, {"charged": add}])
async def test_what_a_failed_run_did_is_not_saved_by_another_run(db: Any, merge: Any) -> None:
    slow = Slow(db, merge=merge)
    await slow.started.wait()
    db.fail = True
    with pytest.raises(StoreError, match="disk is full") as raised:
        await charging(db).arun("quick")
    assert raised.value.run_output.session_state["charged"] == 1
    assert raised.value.run_output.content == "done"
    db.fail = False
    assert await charging(db).aget_session_state() == {}
    again = await charging(db).arun("quick")  # the caller tries again
    slow.go.set()
    output = await slow.run
    state, runs = await stored(db)
    assert runs == [again.run_id, output.run_id]
    assert state == {"charged": 2, "log": [again.run_id, output.run_id]}
    assert not output.state_conflicts
    history = await charging(db).asession_state_history(path="charged")
    assert [(entry.new, entry.run_id) for entry in history] == [(1, again.run_id), (2, output.run_id)]


async def test_what_was_built_on_it_stays_without_it(db: Any) -> None:
    slow, quick = Slow(db), Slow(db)
    await slow.started.wait()
    await quick.started.wait()
    db.fail = True
    first = asyncio.create_task(charging(db).arun("fails"))
    while "charged" not in await charging(db).aget_session_state():
        await asyncio.sleep(0)
    slow.go.set()
    with pytest.raises(StoreError):
        await first
    with pytest.raises(StoreError):
        await slow.run
    db.fail = False
    quick.go.set()
    output = await quick.run
    assert await stored(db) == ({"charged": 1, "log": [output.run_id]}, [output.run_id])


async def test_an_update_that_failed_is_not_saved_by_another_run(db: Any) -> None:
    slow = Slow(db)
    await slow.started.wait()
    db.fail = True
    with pytest.raises(StoreError, match="disk is full"):
        await charging(db).aupdate_session_state({"charged": 100, "other": 1})
    db.fail = False
    slow.go.set()
    output = await slow.run
    assert await stored(db) == ({"charged": 1, "log": [output.run_id]}, [output.run_id])


async def test_members_runs_and_the_runs_own_state_are_taken_back_as_well(db: Any) -> None:
    slow = Slow(db)
    await slow.started.wait()
    member = charging(db)
    member.name = member.id = "member"

    def lead(request: Any) -> Any:
        if request.messages[-1].role == "tool":
            return "done"
        return tool_call("delegate_task_to_member", member_id="member", task="charge")

    team = Team(members=[member], model=FunctionModel(lead), db=db, session_id="s")
    db.fail = True
    with pytest.raises(StoreError):
        await team.arun("go", session_state={"given": True})
    db.fail = False
    slow.go.set()
    output = await slow.run
    assert await stored(db) == ({"charged": 1, "log": [output.run_id]}, [output.run_id])


async def test_a_run_whose_answer_was_lost_is_saved_and_is_no_error(db: Any) -> None:
    slow = Slow(db)
    await slow.started.wait()
    db.lose = True
    output = await charging(db).arun("quick")
    assert output.status.value == "COMPLETED"
    await charging(db).aupdate_session_state({"other": 1})
    db.lose = False
    slow.go.set()
    last = await slow.run
    state = {"charged": 2, "log": [output.run_id, last.run_id], "other": 1}
    assert await stored(db) == (state, [output.run_id, last.run_id])
    assert last.session_state == state


@pytest.mark.parametrize("merge", [None, {"charged": add}])
async def test_a_commit_that_a_database_makes_twice_counts_once(db: Any, merge: Any) -> None:
    slow = Slow(db, merge=merge)
    await slow.started.wait()
    db.retry = True
    quick = await charging(db).arun("quick")
    await charging(db).aupdate_session_state({"list": [1]})
    slow.go.set()
    last = await slow.run
    state = {"charged": 2, "log": [quick.run_id, last.run_id], "list": [1]}
    assert await stored(db) == (state, [quick.run_id, last.run_id])
    assert last.session_state == state
    assert not last.state_conflicts
    changes = await db.load_changes("s")
    assert [change.revision for change in changes] == [1, 2, 3]


@pytest.mark.parametrize("written", [True, False])
async def test_a_run_of_which_nobody_knows_is_not_said_to_be_unsaved(db: Any, written: bool) -> None:
    slow = Slow(db)
    await slow.started.wait()
    db.silent = True
    db.fail, db.lose = not written, written
    with pytest.raises(StoreError, match="it is unknown whether the commit was written") as caught:
        await charging(db).arun("quick")  # an id of one's own would be looked up first
    with pytest.raises(StoreError, match="no route to host"):
        await charging(db).arun("another")
    db.fail = db.lose = db.silent = False
    slow.go.set()
    last = await slow.run
    quick = caught.value.run_output.run_id
    runs = [quick, last.run_id] if written else [last.run_id]
    assert await stored(db) == ({"charged": len(runs), "log": runs}, runs)


async def test_where_nobody_else_has_the_session_nothing_is_left(
    db: Any, caplog: pytest.LogCaptureFixture
) -> None:
    db.fail = True
    with pytest.raises(StoreError):
        await charging(db).arun("quick")
    db.fail = False
    output = await charging(db).arun("quick")
    assert output.session_state == {"charged": 1, "log": [output.run_id]}
    assert "was not saved: the disk is full" in caplog.text
