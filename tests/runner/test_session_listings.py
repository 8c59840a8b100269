"""Sessions as programs see them: one of them, lists of them and of their runs, what they used."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from kern import Agent, RunContext, RunStatus, Session, Team, tool
from kern.db.base import Db
from kern.db.in_memory import InMemoryDb
from kern.db.sqlite import SqliteDb
from kern.errors import InvalidStateError, SessionOwnershipError, StoreError, UsageError
from kern.run.output import RunOutput
from kern.testing import FunctionModel, ScriptedModel, tool_call
from tests.databases import KINDS, opener
from tests.logs import kern_messages


@pytest.fixture(params=KINDS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Db:
    return opener(request, tmp_path)()


class Cart(BaseModel):
    items: list[str] = []


def answering(db: Db | None, **options: Any) -> Agent:
    return Agent(model=FunctionModel(lambda request: "ok"), db=db, **options)


@tool(requires_confirmation=True)
def pay(run_context: RunContext, amount: int) -> str:
    """Pay, once a person has said yes."""
    run_context.session_state["paid"] = amount
    return "paid"


def payer(db: Db, **options: Any) -> Agent:
    def play(request: Any) -> Any:
        return "done" if request.messages[-1].role == "tool" else tool_call("pay", amount=5)

    return Agent(model=FunctionModel(play), tools=[pay], db=db, **options)


# One session


async def test_a_session_tells_what_it_is(db: Db) -> None:
    agent = answering(db, session_state={"items": ["milk"]}, session_id="s", user_id="ann")
    assert await agent.aget_session() is None
    await agent.arun("one")
    await agent.arun("two")
    await agent.aset_session_name("Shopping")
    session = await agent.aget_session()
    assert session is not None
    assert (session.session_id, session.user_id, session.name) == ("s", "ann", "Shopping")
    assert (session.summary, session.revision) == (None, 0)
    assert session.state == {"items": ["milk"]}
    assert 0 < session.created_at <= session.updated_at
    assert repr(session) == "Session(session_id='s', user_id='ann', name='Shopping')"
    assert [run.input for run in await session.aruns()] == ["one", "two"]
    assert [run.input for run in await session.aruns(limit=1)] == ["two"]


async def test_the_state_of_a_session_is_a_copy_of_one_moment(db: Db) -> None:
    agent = answering(db, session_state={"n": 1}, session_id="s")
    await agent.arun("one")
    session = await agent.aget_session()
    assert session is not None
    session.state["n"] = 7
    await agent.aupdate_session_state({"n": 2})
    assert session.state == {"n": 7}
    assert session.revision == 0
    assert await agent.aget_session_state() == {"n": 2}


async def test_a_typed_state_comes_as_its_model(db: Db) -> None:
    agent = answering(db, session_state=Cart(items=["milk"]), session_id="s")
    await agent.arun("one")
    session: Session[Cart] | None = await agent.aget_session()
    assert session is not None
    assert session.state == Cart(items=["milk"])
    session.state.items.append("bread")
    assert session.state.items == ["milk", "bread"]
    assert await agent.aget_session_state() == {"items": ["milk"]}


async def test_what_does_not_fit_a_typed_state_is_an_error_of_the_state_alone(db: Db) -> None:
    await answering(db, session_state={"items": 5}, session_id="s").arun("one")
    session = await answering(db, session_state=Cart, session_id="s").aget_session()
    assert session is not None
    assert len(await session.aruns()) == 1
    for _ in range(2):
        with pytest.raises(InvalidStateError):
            _ = session.state


async def test_a_damaged_state_leaves_the_rest_of_its_session_readable(tmp_path: Path) -> None:
    agent = answering(SqliteDb(tmp_path / "a.db"), session_id="s")
    await agent.arun("one")
    with closing(sqlite3.connect(tmp_path / "a.db")) as raw, raw:
        raw.execute("UPDATE kern_sessions SET state = '['")
    session = await agent.aget_session()
    assert session is not None
    assert len(await session.aruns()) == 1
    with pytest.raises(StoreError, match="stored state of session 's' cannot be read"):
        _ = session.state


async def test_a_session_is_for_its_owner(db: Db) -> None:
    agent = answering(db, session_id="s")
    await agent.arun("one", user_id="ann")
    session = await agent.aget_session(user_id="ann")
    assert session is not None
    assert len(await session.aruns()) == 1
    with pytest.raises(SessionOwnershipError):
        await agent.aget_session(user_id="bob")
    with pytest.raises(SessionOwnershipError):
        await agent.aget_session_metrics(user_id="bob")


def test_all_of_it_has_a_sync_face(tmp_path: Path) -> None:
    agent = answering(SqliteDb(tmp_path / "a.db"), session_id="s", user_id="ann")
    agent.run("one")
    session = agent.get_session()
    assert session is not None
    assert [run.input for run in session.runs()] == ["one"]
    assert [info.session_id for info in agent.list_sessions()] == ["s"]
    assert [run.input for run in agent.list_runs()] == ["one"]
    assert agent.get_session_metrics().requests == 1
    assert agent.delete_user("ann") == 1
    assert agent.get_session() is None


# Lists of sessions


async def test_sessions_are_listed_by_user_and_page(db: Db) -> None:
    agent = answering(db)
    for n, user_id in enumerate(("ann", "bob", "ann", None, "ann")):
        await agent.arun("hi", session_id=f"s{n}", user_id=user_id)
    listed = await agent.alist_sessions()
    assert [info.session_id for info in listed] == ["s4", "s3", "s2", "s1", "s0"]
    first = await agent.alist_sessions(user_id="ann", limit=2)
    assert [info.session_id for info in first] == ["s4", "s2"]
    await agent.arun("hi", session_id="s4", user_id="ann")
    rest = await agent.alist_sessions(user_id="ann", limit=2, before=first[-1].position)
    assert [info.session_id for info in rest] == ["s0"]
    assert await agent.alist_sessions(user_id="carl") == []


@pytest.mark.parametrize("limit", [0, -1, 1.5, None, True])
async def test_a_page_has_a_size(limit: Any) -> None:
    for call in (answering(None).alist_sessions, answering(None).alist_runs):
        with pytest.raises(UsageError, match="limit must be a whole number, 1 or more"):
            await call(limit=limit)


async def test_a_key_of_another_kind_is_refused() -> None:
    agent: Any = answering(None)
    with pytest.raises(UsageError, match="before must be the position of the last session"):
        await agent.alist_sessions(before="s")
    with pytest.raises(UsageError, match="before must be the run_id of the last run"):
        await agent.alist_runs(before=3)


# Lists of runs


async def test_all_runs_that_wait_for_a_person_are_one_call_and_can_be_continued(db: Db) -> None:
    team = Team([answering(None, name="Clerk")], model=ScriptedModel(["ok"]), db=db, session_id="team")
    await team.arun("hi")
    for user_id in ("ann", "bob", "ann"):
        await payer(db).arun("pay", user_id=user_id)
        await answering(db).arun("hi", user_id=user_id)
    office = payer(db)
    waiting = await office.alist_runs(status=RunStatus.paused)
    assert [run.user_id for run in waiting] == ["ann", "bob", "ann"]
    assert len(await office.alist_runs()) == 7
    (anns, older) = await office.alist_runs(status="PAUSED", user_id="ann")
    assert [run.run_id for run in (anns, older)] == [waiting[0].run_id, waiting[2].run_id]
    assert isinstance(anns, RunOutput)
    anns.requirements[0].confirm()
    done = await office.acontinue_run(anns)
    assert done.session_state == {"paid": 5}
    assert [run.run_id for run in await office.alist_runs(status="PAUSED", user_id="ann")] == [older.run_id]


async def test_pages_of_runs_go_on_from_the_last_one(db: Db) -> None:
    agent = answering(db, session_id="s")
    for n in range(5):
        await agent.arun(str(n))
    await agent.arun("other", session_id="t")
    seen, before = [], None
    while page := await agent.alist_runs(session_id="s", limit=2, before=before):
        seen += [run.input for run in page]
        before = page[-1].run_id
    assert seen == ["4", "3", "2", "1", "0"]
    assert [run.input for run in await agent.alist_runs(limit=1)] == ["other"]


async def test_a_run_that_is_gone_is_no_place_to_go_on_from(db: Db) -> None:
    agent = answering(db)
    await agent.arun("one", session_id="s")
    (run,) = await agent.alist_runs()
    assert await agent.alist_runs(before=run.run_id) == []
    await agent.adelete_session("s")
    with pytest.raises(UsageError, match="is not stored any more"):
        await agent.alist_runs(before=run.run_id)


async def test_runs_of_a_session_are_listed_for_its_owner(db: Db) -> None:
    agent = answering(db, session_id="s")
    await agent.arun("one", user_id="ann")
    assert len(await agent.alist_runs(session_id="s", user_id="ann")) == 1
    assert await agent.alist_runs(session_id="unknown", user_id="ann") == []
    with pytest.raises(SessionOwnershipError):
        await agent.alist_runs(session_id="s", user_id="bob")


async def test_a_status_that_does_not_exist_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"status 'paused' does not exist; the statuses are: 'PENDING', .*'PAUSED'"
    ):
        await answering(None).alist_runs(status="paused")


# What a session used


async def test_the_metrics_of_a_session_are_the_sum_of_its_runs_members_included(db: Db) -> None:
    def lead(request: Any) -> Any:
        if request.messages[-1].role == "tool":
            return "done"
        return tool_call("delegate_task_to_member", member_id="clerk", task="work")

    clerk = answering(None, name="Clerk")
    team = Team([clerk], model=FunctionModel(lead), db=db, session_id="s")
    outputs = [await team.arun("one"), await team.arun("two")]
    await team.arun("elsewhere", session_id="t")
    metrics = await team.aget_session_metrics()
    assert metrics.requests == 6 == sum(output.metrics.requests for output in outputs)
    assert metrics.total_tokens == sum(output.metrics.total_tokens for output in outputs)
    assert metrics.duration == pytest.approx(sum(output.metrics.duration or 0 for output in outputs))
    assert sum(usage.requests for usage in metrics.details.values()) == 6
    assert (await team.aget_session_metrics("unknown")).requests == 0


async def test_a_run_that_cannot_be_read_is_not_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agent = answering(SqliteDb(tmp_path / "a.db"), session_id="s")
    first = await agent.arun("one")
    await agent.arun("two")
    with closing(sqlite3.connect(tmp_path / "a.db")) as raw, raw:
        raw.execute("UPDATE kern_sessions_runs SET data = '[' WHERE run_id = ?", (first.run_id,))
    assert (await agent.aget_session_metrics()).requests == 1
    assert [run.input for run in await agent.alist_runs()] == ["two"]
    assert f"run '{first.run_id}' cannot be read" in caplog.text


# The session of an agent that names none


async def test_a_random_session_in_a_database_is_logged_at_the_first_run_once(
    db: Db, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="kern")
    agent = answering(db, name="Keeper")
    await agent.aget_session()
    assert kern_messages(caplog) == []
    output = await agent.arun("one")
    await agent.arun("two")
    await agent.arun("three", user_id="ann")
    (line,) = kern_messages(caplog)
    assert "Agent(name='Keeper', id='keeper') has a db and no session_id" in line
    assert output.session_id in line


@pytest.mark.parametrize(
    ("options", "run"),
    [
        ({}, {}),
        ({"session_id": "s", "db": InMemoryDb()}, {}),
        ({"db": InMemoryDb()}, {"session_id": "s"}),
    ],
)
async def test_nothing_is_logged_of_a_session_that_was_named_or_is_not_kept(
    options: dict[str, Any], run: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="kern")
    make: Callable[..., Agent] = answering
    await make(**{"db": None, **options}).arun("one", **run)
    assert kern_messages(caplog) == []
