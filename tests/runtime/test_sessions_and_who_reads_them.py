"""Reading never makes a session and never owns one; what is deleted does not come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunContext
from kern.db.base import Db
from kern.errors import SessionDeletedError, SessionOwnershipError
from kern.runtime.session import ANY_USER, live_sessions
from kern.state.state_spec import StateSpec
from kern.testing import FunctionModel, tool_call
from tests import processes
from tests.databases import KINDS, opened, opener


class Gate:
    """A tool that counts, and then waits until it is let go."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.go = asyncio.Event()

    async def wait(self, run_context: RunContext) -> str:
        """Count, and wait."""
        with run_context.transaction() as state:
            state["n"] = state.get("n", 0) + 1
        self.reached.set()
        await self.go.wait()
        return "ok"

    def agent(self, db: Db, **options: Any) -> Agent:
        def play(request: Any) -> Any:
            return "done" if request.messages[-1].role == "tool" else tool_call("wait")

        return Agent(model=FunctionModel(play), tools=[self.wait], db=db, session_id="s", **options)


@pytest.fixture(params=KINDS)
def open_db(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Db]:
    return opener(request, tmp_path)


def reader(db: Db, **options: Any) -> Agent:
    return Agent(model=FunctionModel(lambda request: "ok"), db=db, session_id="s", **options)


# Reading


@pytest.mark.parametrize("asks", [None, "bob"])
async def test_a_reader_of_a_session_that_does_not_exist_yet_does_not_own_it(
    open_db: Callable[[], Db], asks: str | None
) -> None:
    db = open_db()
    user_id = ANY_USER if asks is None else asks
    # What bob has read may be hers by now, so that he does not get it.
    with nullcontext() if asks is None else pytest.raises(SessionOwnershipError):
        async with live_sessions.use(db, "s", spec=StateSpec(), user_id=user_id):
            output = await reader(db).arun("hello", user_id="ann")
            assert output.content == "ok"
            with pytest.raises(SessionOwnershipError):
                await reader(db).aget_session_state(user_id="bob")
    row = await db.load_session("s")
    assert row is not None
    assert row.user_id == "ann"


async def test_readers_that_poll_while_a_first_run_starts_lock_nobody_out(open_db: Callable[[], Db]) -> None:
    db = open_db()
    done = False

    async def poll(user_id: str | None) -> None:
        agent = reader(db, session_state={"of": "a reader"})
        while not done:
            try:
                await agent.aget_session_state(user_id=user_id)
                await agent.aget_chat_history(user_id=user_id)
                await agent.aget_session_name(user_id=user_id)
                await agent.asession_state_history(user_id=user_id)
            except SessionOwnershipError:
                assert user_id == "bob"
            await asyncio.sleep(0)

    pollers = [asyncio.create_task(poll(user_id)) for user_id in (None, "bob", None)]
    await asyncio.sleep(0)
    outputs = [await reader(db, session_state={"of": "ann"}).arun("hi", user_id="ann") for _ in range(5)]
    done = True
    await asyncio.gather(*pollers)
    assert [output.session_state for output in outputs] == [{"of": "ann"}] * 5
    assert [row.user_id for row in await db.list_sessions()] == ["ann"]


async def test_reading_makes_nothing(open_db: Callable[[], Db]) -> None:
    db = open_db()
    agent = reader(db)
    assert await agent.aget_session_state() == {}
    assert await agent.aget_session() is None
    assert await agent.aget_last_run_output() is None
    assert await agent.aget_chat_history() == []
    assert not await agent.aset_session_name("Name")
    assert not await agent.adelete_session()
    assert await db.list_sessions() == []


async def test_a_user_of_a_session_that_goes_on_unsaved_is_told_from_another(
    open_db: Callable[[], Db],
) -> None:
    db, gate = open_db(), Gate()
    run = asyncio.create_task(gate.agent(db, user_id="ann").arun("go"))
    await gate.reached.wait()
    with pytest.raises(SessionOwnershipError):
        await reader(db).aget_session_state(user_id="bob")
    with pytest.raises(SessionOwnershipError):
        await reader(db).arun("hello", user_id="bob")
    assert await reader(db).aget_session_state(user_id="ann") == {"n": 1}
    gate.go.set()
    await run


async def test_a_first_update_owns_the_session(open_db: Callable[[], Db]) -> None:
    db = open_db()
    async with live_sessions.use(db, "s", spec=StateSpec(), user_id=ANY_USER):
        await reader(db).aupdate_session_state({"a": 1}, user_id="ann")
    with pytest.raises(SessionOwnershipError):
        await reader(db).arun("hello", user_id="bob")


# Deleting


async def test_a_session_that_is_deleted_while_somebody_reads_it_does_not_come_back(
    open_db: Callable[[], Db],
) -> None:
    db = open_db()
    await reader(db).aupdate_session_state({"secret": 1})
    async with live_sessions.use(db, "s", spec=StateSpec(), user_id=ANY_USER):
        assert await reader(db).adelete_session()
        assert await db.load_session("s") is None
        output = await reader(db).arun("hello", user_id="bob")
        assert output.session_state == {}
    row = await db.load_session("s")
    assert row is not None
    assert (row.user_id, row.state) == ("bob", b"{}")


async def test_a_run_whose_session_is_deleted_learns_it_at_its_commit(open_db: Callable[[], Db]) -> None:
    db, gate = open_db(), Gate()
    await reader(db).aupdate_session_state({"n": 5})
    run = asyncio.create_task(gate.agent(db).arun("go"))
    await gate.reached.wait()
    assert await db.delete_session("s")  # as another process does
    gate.go.set()
    with pytest.raises(SessionDeletedError, match="'s' was deleted") as raised:
        await run
    assert raised.value.run_output.content == "done"
    assert raised.value.run_output.session_state == {"n": 6}
    assert await db.load_session("s") is None
    assert await db.load_runs("s") == []
    assert (await reader(db).arun("hello")).session_state == {}


OTHER = """
    import sys
    from kern import Agent
    from kern.testing import FunctionModel
    from tests.databases import opened

    agent = Agent(model=FunctionModel(lambda r: "ok"), db=opened(sys.argv[1]), session_id="s")
    assert agent.delete_session()
    if len(sys.argv) > 2:
        agent.run("hello", user_id=sys.argv[2])
"""


@pytest.mark.parametrize("new_owner", [[], ["bob"], ["ann"]])
async def test_a_session_that_another_process_deletes_is_deleted(place: str, new_owner: list[str]) -> None:
    gate, db = Gate(), opened(place)
    await reader(db).aupdate_session_state({"n": 5}, user_id="ann")
    run = asyncio.create_task(gate.agent(db, user_id="ann").arun("go"))
    await gate.reached.wait()
    await asyncio.to_thread(processes.run, OTHER, place, *new_owner)
    gate.go.set()
    with pytest.raises(SessionDeletedError):
        await run
    row = await db.load_session("s")
    if not new_owner:
        assert row is None
    else:
        assert row is not None
        assert (row.user_id, row.state) == (new_owner[0], b"{}")
        assert [run.status for run in await db.load_runs("s")] == ["COMPLETED"]
