"""A run of another process ends just before any one of the reads that an answer needs.

The databases let it end there, whatever the timing: before the first read, the second, and so on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from kern import Agent, RunStatus
from kern._json import json_bytes
from kern.db import Db, InMemoryDb
from kern.db.journals import JournalDb, RunAbout, StepRow
from kern.durable import DbJournal
from kern.durable.fingerprint import fingerprint
from kern.engines import submission, submit
from kern.errors import SessionBusyError, SessionOwnershipError, UsageError
from kern.messages import Message
from kern.models.base import ModelRequest
from kern.run.cancel import CancelResult
from kern.runtime.one_process import claimed_elsewhere
from kern.testing import FunctionModel, ScriptedModel
from kern.testing._db_rows import state_commit
from tests.databases import KINDS, opener
from tests.interleaved import Interleaved

HOUR = 3600.0
QUESTION = "q"


class TwoProcesses:
    """This process, and another one that has a run of ann's in progress."""

    def __init__(self, here: Db, there: Db) -> None:
        self.db = here
        self.there = there
        self.reads = Interleaved(here)
        self.agent = self.desk(here)

    def desk(self, db: Db) -> Agent[str]:
        return Agent(id="desk", model=ScriptedModel(["done"] * 99), db=db)

    async def begun(self, run_id: str) -> Callable[[], Awaitable[object]]:
        """Begin a run of ann's in the other process, in a session of its name. Returns what ends it."""
        assert isinstance(self.there, JournalDb)
        elsewhere = InMemoryDb()
        await self.desk(elsewhere).arun(QUESTION, run_id=run_id, session_id=f"s-{run_id}", user_id="ann")
        row = await elsewhere.load_run(run_id)
        assert row is not None
        about = RunAbout(session_id=f"s-{run_id}", user_id="ann", runner_id="desk", is_team=False)
        found = await self.there.claim_run(run_id, "them", HOUR, about)
        assert found is not None
        asked = fingerprint(QUESTION, [Message("user", QUESTION)])
        base = StepRow(key="base", kind="base", data=json_bytes({"fingerprint": asked}))
        assert await self.there.append_steps(found.claim, HOUR, [base])
        commit = state_commit(session_id=f"s-{run_id}", user_id="ann", runs=[row])
        return lambda: self.there.commit(replace(commit, claim=found.claim))

    async def each(self) -> AsyncIterator[str]:
        """Yield the ids of runs, of which the n-th ends before the n-th read, until no such read is made."""
        for number in count():
            run_id = f"r{number}"
            self.reads.before(number, await self.begun(run_id))
            yield run_id
            if not self.reads.happened:
                assert number > 1, "more than one read"
                return


@pytest.fixture(params=KINDS)
async def two(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[TwoProcesses]:
    open_db = opener(request, tmp_path)
    here, there = open_db(), open_db()
    yield TwoProcesses(here, there)
    await here.aclose()
    await there.aclose()


async def test_the_output_is_found_running_or_ended(two: TwoProcesses) -> None:
    seen = set()
    async for run_id in two.each():
        output = await two.agent.aget_run_output(run_id, user_id="ann")
        assert output is not None, two.reads.calls
        seen.add(output.status)
    assert seen == {RunStatus.running, RunStatus.completed}


async def test_its_output_is_nobody_elses(two: TwoProcesses) -> None:
    async for run_id in two.each():
        with pytest.raises(SessionOwnershipError):
            await two.agent.aget_run_output(run_id, user_id="bob")


async def test_a_cancellation_is_requested_or_comes_too_late(two: TwoProcesses) -> None:
    seen = set()
    async for run_id in two.each():
        seen.add(await two.agent.acancel_run(run_id, user_id="ann"))
    wanted = CancelResult.requested if two.db.shared else CancelResult.unknown
    assert seen == {wanted, CancelResult.too_late}


async def test_nobody_else_cancels_it(two: TwoProcesses) -> None:
    async for run_id in two.each():
        with pytest.raises(SessionOwnershipError):
            await two.agent.acancel_run(run_id, user_id="bob")


async def test_who_follows_it_hears_its_end(two: TwoProcesses) -> None:
    for number in range(12):
        run_id = f"r{number}"
        two.reads.before(number, await two.begun(run_id))
        heard = [event.event async for event in two.agent.follow(run_id, user_id="ann")]
        assert heard == ["RunCompleted"], two.reads.calls


@pytest.mark.parametrize("two", ["sqlite", "postgres"], indirect=True)
async def test_it_is_not_submitted_again(two: TwoProcesses) -> None:
    assert isinstance(two.there, JournalDb)
    async for run_id in two.each():
        run = submission(two.agent, QUESTION, session_id=f"s-{run_id}", run_id=run_id, user_id="ann")
        assert not await submit(two.agent, run), two.reads.calls
        left = [row.run_id for row in await two.there.running_runs()]
        assert left == ([] if two.reads.happened else [run_id])


@pytest.mark.parametrize("two", ["sqlite", "postgres"], indirect=True)
async def test_who_asks_for_it_again_gets_its_output(two: TwoProcesses) -> None:
    for number in range(4):
        run_id = f"r{number}"
        two.reads.before(number, await two.begun(run_id))
        journal = DbJournal(two.db)
        try:
            output = await two.agent.arun(
                QUESTION,
                run_id=run_id,
                session_id=f"s-{run_id}",
                user_id="ann",
                on_duplicate="return",
                journal=journal,
            )
        except SessionBusyError:
            done = two.reads.calls[: number if two.reads.happened else None]
            assert "running_runs" in done, "it was in progress when it was looked for"
        else:
            assert output.status is RunStatus.completed


async def test_a_session_that_is_stored_meanwhile_is_nobody_elses(two: TwoProcesses) -> None:
    agent = two.agent
    reads: list[Callable[[str], Awaitable[object]]] = [
        lambda session: agent.aget_session(session, user_id="bob"),
        lambda session: agent.aget_last_run_output(session, user_id="bob"),
        lambda session: agent.aget_session_messages(session, user_id="bob"),
        lambda session: agent.aget_chat_history(session, user_id="bob"),
        lambda session: agent.aget_session_name(session, user_id="bob"),
        lambda session: agent.aset_session_name("bob's", session, user_id="bob"),
        lambda session: agent.adelete_session(session, user_id="bob"),
    ]
    for read in reads:
        for number in range(4):
            session_id = f"{reads.index(read)}-{number}"
            commit = state_commit(session_id=session_id, user_id="ann")
            two.reads.before(number, partial(two.there.commit, commit))
            try:
                found = await read(session_id)
            except SessionOwnershipError:
                pass
            else:
                assert not found, two.reads.calls
            if two.reads.happened:
                row = await two.there.load_session(session_id)
                assert row is not None
                assert row.name is None


async def test_a_model_is_never_shown_the_runs_of_another_user(two: TwoProcesses) -> None:
    shown: list[str] = []

    def answer(request: ModelRequest) -> str:
        shown.extend(str(message.content) for message in request.messages)
        return "ok"

    agent = Agent(model=FunctionModel(answer), db=two.db, add_history_to_context=True)
    for number in range(6):
        run_id, elsewhere = f"r{number}", InMemoryDb()
        await two.desk(elsewhere).arun("a secret", run_id=run_id, session_id=f"s{number}", user_id="ann")
        row = await elsewhere.load_run(run_id)
        assert row is not None
        commit = state_commit(session_id=f"s{number}", user_id="ann", runs=[row])
        two.reads.before(number, partial(two.there.commit, commit))
        try:
            await agent.arun("hello", session_id=f"s{number}", user_id="bob")
        except SessionOwnershipError:
            assert two.reads.happened
    assert "hello" in shown
    assert "a secret" not in shown


async def test_a_page_that_begins_at_a_run_that_has_ended_is_refused(two: TwoProcesses) -> None:
    ends = await two.begun("r1")
    await two.begun("r2")
    rows = await two.agent.alist_runs(status="RUNNING", before="r2")
    assert [row.run_id for row in rows] == ["r1"]
    await two.begun("r3")
    await ends()
    with pytest.raises(UsageError, match="'r1' is not in progress any more"):
        await two.agent.alist_runs(status="RUNNING", before="r1")
    rows = await two.agent.alist_runs(status="RUNNING", before="r2")
    assert rows == [], "the oldest one"


@pytest.mark.parametrize("two", ["sqlite", "postgres"], indirect=True)
async def test_a_look_at_a_run_does_not_keep_another_process_from_continuing_it(two: TwoProcesses) -> None:
    taken = []

    async def take() -> None:
        assert isinstance(two.there, JournalDb)
        taken.append(await two.there.claim_run("r", "them", HOUR) is not None)

    two.reads.before(1, take)
    assert not await claimed_elsewhere(two.db, "r")
    assert taken == [True]
    assert await claimed_elsewhere(two.db, "r")


@pytest.mark.parametrize("two", ["sqlite", "postgres"], indirect=True)
async def test_an_item_that_another_process_has_just_finished_is_not_a_failed_one(two: TwoProcesses) -> None:
    for number in range(9):
        elsewhere = InMemoryDb()
        await two.desk(elsewhere).amap([QUESTION], batch=f"b{number}")
        (row,) = await elsewhere.list_runs()
        commit = state_commit(session_id=row.session_id, runs=[row])
        two.reads.before(number, partial(two.there.commit, commit))
        outputs = await two.agent.amap([QUESTION], batch=f"b{number}")
        assert [output.status for output in outputs] == [RunStatus.completed], two.reads.calls
        if "claim_run" in two.reads.calls[:number]:
            return  # from here on the item is this process's
    raise AssertionError("the item was never reserved")
