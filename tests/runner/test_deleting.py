"""Deleting a session, or all of a user's, while its runs go on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunContext, RunStatus
from kern.db.base import Db
from kern.errors import RunConflictError, SessionDeletedError, UsageError
from kern.messages import Image
from kern.runtime import deleting
from kern.testing import FunctionModel, tool_call
from tests.databases import KINDS, opener


@pytest.fixture(params=KINDS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Db:
    return opener(request, tmp_path)()


class Gate:
    """An agent whose tool waits until it is let go."""

    def __init__(self, db: Db, *, stubborn: bool = False, **options: Any) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()
        self._stubborn = stubborn
        self.agent = Agent(
            model=FunctionModel(self._play), tools=[self.wait], db=db, **{"session_id": "s", **options}
        )

    def _play(self, request: Any) -> Any:
        return "done" if request.messages[-1].role == "tool" else tool_call("wait")

    async def wait(self, run_context: RunContext) -> str:
        """Write to the state, and wait."""
        with run_context.transaction() as state:
            state["reached"] = True
        self.reached.set()
        while not self.go.is_set():
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                if not self._stubborn:
                    raise
        return "ok"


async def test_a_session_whose_run_goes_on_is_kept(db: Db) -> None:
    gate = Gate(db)
    run = asyncio.create_task(gate.agent.arun("go"))
    await gate.reached.wait()
    with pytest.raises(RunConflictError, match="delete with cancel=True"):
        await gate.agent.adelete_session()
    gate.go.set()
    assert (await run).status is RunStatus.completed
    assert await gate.agent.adelete_session()


@pytest.mark.parametrize("on_busy", ["share", "queue"])
async def test_runs_are_cancelled_before_their_session_is_deleted(db: Db, on_busy: str) -> None:
    gate = Gate(db, on_busy=on_busy)
    runs = [asyncio.create_task(gate.agent.arun("go")) for _ in range(3)]
    await gate.reached.wait()
    assert await gate.agent.adelete_session(cancel=True)
    outputs = await asyncio.gather(*runs)
    assert {output.status for output in outputs} == {RunStatus.cancelled}
    assert await db.load_session("s") is None
    for output in outputs:
        assert await db.load_run(output.run_id) is None
    assert await gate.agent.aget_session_state() == {}


async def test_cancelling_leaves_the_runs_of_other_sessions_alone(db: Db) -> None:
    gate, other = Gate(db), Gate(db)
    runs = [
        asyncio.create_task(gate.agent.arun("go")),
        asyncio.create_task(other.agent.arun("go", session_id="t")),
    ]
    await gate.reached.wait()
    await other.reached.wait()
    assert await gate.agent.adelete_session(cancel=True)
    other.go.set()
    assert [output.status for output in await asyncio.gather(*runs)] == [
        RunStatus.cancelled,
        RunStatus.completed,
    ]


async def test_a_session_without_runs_is_deleted_with_cancel_too(db: Db) -> None:
    gate = Gate(db)
    assert not await gate.agent.adelete_session(cancel=True)
    gate.go.set()
    await gate.agent.arun("go")
    assert await gate.agent.adelete_session(cancel=True)
    assert not await gate.agent.adelete_session()


async def test_a_run_that_does_not_end_keeps_its_session(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deleting, "CANCEL_SECONDS", 0.05)
    gate = Gate(db, stubborn=True)
    run = asyncio.create_task(gate.agent.arun("go", run_id="r"))
    await gate.reached.wait()
    with pytest.raises(RunConflictError, match=r"'r' had not ended 0.05 s after it was cancelled"):
        await gate.agent.adelete_session(cancel=True)
    gate.go.set()
    await run
    assert await db.load_session("s") is not None


async def test_a_tool_cannot_delete_the_session_of_its_run(db: Db) -> None:
    errors: list[str] = []

    async def clean(run_context: RunContext) -> str:
        """Delete everything."""
        for attempt in (agent.adelete_session(cancel=True), agent.adelete_user("ann", cancel=True)):
            try:
                await attempt
            except RunConflictError as error:
                errors.append(str(error))
        return "tried"

    def play(request: Any) -> Any:
        return "done" if request.messages[-1].role == "tool" else tool_call("clean")

    agent = Agent(model=FunctionModel(play), tools=[clean], db=db, session_id="s", user_id="ann")
    output = await agent.arun("go", run_id="r")
    assert output.content == "done"
    assert len(errors) == 2
    assert all("run 'r' cannot delete its own session or user" in error for error in errors)


async def test_a_user_is_deleted_with_everything_and_nobody_else(db: Db) -> None:
    agent = Agent(model=FunctionModel(lambda request: "ok"), db=db)
    for session_id, user_id in (("a", "ann"), ("b", "bob"), ("c", "ann"), ("d", None)):
        picture = Image(content=session_id.encode())
        await agent.arun("hi", session_id=session_id, user_id=user_id, images=[picture])
        await agent.aupdate_session_state({"n": 1}, session_id, user_id=user_id)
    assert await agent.adelete_user("ann") == 2
    assert [info.session_id for info in await agent.alist_sessions()] == ["d", "b"]
    assert {run.session_id for run in await agent.alist_runs()} == {"b", "d"}
    for session_id in ("a", "c"):
        assert await db.load_changes(session_id) == []
        assert await agent.aget_session_state(session_id) == {}
    assert await agent.adelete_user("ann") == 0
    (run,) = await agent.alist_runs(user_id="bob")
    assert run.messages[0].images[0].read() == b"b"


async def test_a_user_whose_run_goes_on_is_kept_or_the_run_is_cancelled(db: Db) -> None:
    gate = Gate(db, user_id="ann")
    run = asyncio.create_task(gate.agent.arun("go", run_id="r"))
    await gate.reached.wait()
    with pytest.raises(RunConflictError, match=r"user 'ann' has runs in progress \('r'\)"):
        await gate.agent.adelete_user("ann")
    assert await gate.agent.adelete_user("bob", cancel=True) == 0
    assert not run.done()
    assert await gate.agent.adelete_user("ann", cancel=True) == 1
    assert (await run).status is RunStatus.cancelled
    assert await gate.agent.alist_runs() == []


async def test_who_has_a_session_of_a_deleted_user_in_use_starts_anew(db: Db) -> None:
    """Another process deletes the user; or one with a live session that no run has."""
    gate = Gate(db, user_id="ann")
    other = Agent(model=FunctionModel(lambda request: "ok"), db=db, session_id="s", user_id="ann")
    await other.arun("hi", session_state={"old": 1})
    run = asyncio.create_task(gate.agent.arun("go"))
    await gate.reached.wait()
    await db.delete_user("ann")
    gate.go.set()
    with pytest.raises(SessionDeletedError):
        await run
    assert (await other.arun("hi")).session_state == {}


async def test_nobody_is_no_user() -> None:
    agent: Any = Agent(model=FunctionModel(lambda request: "ok"))
    with pytest.raises(UsageError, match="user_id must be a str, not NoneType"):
        await agent.adelete_user(None)
