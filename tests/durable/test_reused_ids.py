"""Who follows a run hears that run alone, not a later one that has its id; each end has its number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kern import Agent, RunStatus, tool
from kern.db import Db
from kern.db.journals import JournalDb
from kern.durable import DbJournal
from kern.durable.submission import Submission
from kern.errors import SessionDeletedError, SessionError, SessionOwnershipError
from kern.run.events import Event
from kern.runtime import tail
from kern.testing import ScriptedModel, tool_call
from tests.databases import opener
from tests.durable.test_deltas import Desk


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Db]:
    db = opener(request, tmp_path)()
    yield db
    await db.aclose()


async def told(events: AsyncIterator[Event]) -> list[tuple[int, str]]:
    return [(event.seq, event.event) async for event in events]


async def rest_of(events: AsyncIterator[Event], heard: list[Event]) -> None:
    async for event in events:
        heard.append(event)


@pytest.mark.parametrize("session_id", ["another", "s"])
@pytest.mark.parametrize("suspended", [False, True], ids=["waiting", "suspended"])
async def test_a_later_run_with_the_same_id_is_not_told_to_who_follows_the_deleted_one(
    db: Db, session_id: str, suspended: bool
) -> None:
    ann, bob = Desk(db, None), Desk(db, None)
    await ann.agent.astart("ann's", session_id="s", run_id="r", user_id="ann")
    follower, heard = ann.agent.follow("r", user_id="ann"), list[Event]()
    heard.append(await anext(follower))
    waiting = asyncio.create_task(asyncio.sleep(0) if suspended else rest_of(follower, heard))
    assert await ann.agent.adelete_session("s", cancel=True)
    for _ in range(200):
        try:
            handle = await bob.agent.astart("bob's", session_id=session_id, run_id="r", user_id="bob")
            break
        except SessionError:  # the run of before has not left yet
            await asyncio.sleep(0.02)
    bobs = handle.follow()
    bob.model.say("a secret", None)
    assert [event.content async for event in bobs if event.event == "RunContent"] == ["a secret"]
    assert (await handle.result()).content == "a secret"
    try:
        await (rest_of(follower, heard) if suspended else waiting)
    except SessionDeletedError:
        assert heard[-1].event != "RunCancelled"
    else:  # it has heard the end, before the session was deleted
        assert heard[-1].event == "RunCancelled"
    assert {event.session_id for event in heard} == {"s"}
    assert "a secret" not in [getattr(event, "content", None) for event in heard]
    with pytest.raises(SessionOwnershipError):
        await anext(ann.agent.follow("r", user_id="ann"))


async def test_who_is_behind_is_not_told_the_events_of_a_later_run(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "WINDOW_BYTES", 1)
    ann, bob = Desk(db, None), Desk(db, None)
    handle = await ann.agent.astart("ann's", session_id="s", run_id="r", user_id="ann")
    slow = ann.agent.follow("r", user_id="ann")
    await anext(slow)
    ann.model.say("ann's text", None)
    await told(ann.agent.follow("r"))
    await handle.result()
    await ann.agent.adelete_session("s")
    bob.model.say("a secret", None)
    handle = await bob.agent.astart("bob's", session_id="s", run_id="r", user_id="bob")
    await handle.result()
    heard: list[Event] = []
    with pytest.raises(SessionDeletedError):
        await rest_of(slow, heard)
    assert "a secret" not in [getattr(event, "content", None) for event in heard]


async def test_a_deletion_by_another_process_is_told_to_who_follows_the_run(db: Db) -> None:
    desk = Desk(db, None)
    await desk.agent.astart("go", session_id="s", run_id="r", user_id="ann")
    follower = desk.agent.follow("r", user_id="ann")
    await anext(follower)
    await db.delete_user("ann")  # as the other process has it
    with pytest.raises(SessionDeletedError):
        await told(follower)
    desk.model.say(None)


def paying(db: Db, journal: DbJournal | None) -> Agent:
    @tool(requires_confirmation=True, effect="read")
    def pay() -> str:
        """Pay."""
        return "paid"

    return Agent(model=ScriptedModel([tool_call("pay"), "it is paid"]), tools=[pay], db=db, journal=journal)


@pytest.mark.parametrize("started", [True, False], ids=["journal", "plain"])
async def test_who_has_heard_that_a_run_waits_hears_that_it_was_cancelled(db: Db, started: bool) -> None:
    agent = paying(db, None)
    if started:
        await (await agent.astart("go", session_id="s", run_id="r")).result()
    else:
        await agent.arun("go", session_id="s", run_id="r")
    last, name = (await told(agent.follow("r")))[-1]
    assert name == "RunPaused"
    assert await told(agent.follow("r", after=last)) == []
    assert (await agent.acancel_run("r")).value == "cancelled"
    ((number, name),) = await told(agent.follow("r", after=last))
    assert (name, number > last) == ("RunCancelled", True)
    assert await told(agent.follow("r", after=number)) == []
    assert (await told(agent.follow("r")))[-1] == (number, name)


async def test_a_run_that_whoever_may_do_everything_continues_is_still_its_owners(db: Db) -> None:
    agent = paying(db, DbJournal(db))
    paused = await agent.arun("go", session_id="s", run_id="r", user_id="ann")
    follower = agent.follow("r", user_id="ann")
    heard = [await anext(follower)]
    paused.requirements[0].confirm()
    handle = await agent.astart_continuation(paused)
    follower_of_the_rest = asyncio.create_task(told(agent.follow("r", user_id="ann")))
    await rest_of(follower, heard)
    assert (await handle.result()).status is RunStatus.completed
    assert (await follower_of_the_rest)[-1][1] in ("RunCompleted", "RunPaused")
    names = [name for _, name in await told(agent.follow("r", user_id="ann"))]
    assert names[-1] == "RunCompleted"
    assert "RunPaused" in names


@pytest.fixture
def events_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each claim deletes the events of runs that have ended."""
    for name in ("journals", "_memory_journal"):
        monkeypatch.setattr(f"kern.db.{name}.EVENT_SECONDS", 0.0)
    monkeypatch.setattr("kern.db.journals.DROP_SECONDS", 0.0)


@pytest.mark.usefixtures("events_are_old")
async def test_who_comes_back_once_the_events_are_gone_still_hears_the_end_once(db: Db) -> None:
    desk = Desk(db, None)
    desk.model.say("a text", None, "another", None)
    await (await desk.agent.astart("go", session_id="s", run_id="r")).result()
    heard = await told(desk.agent.follow("r"))
    await asyncio.sleep(0.05)
    await (await desk.agent.astart("go", session_id="t", run_id="another")).result()
    assert isinstance(db, JournalDb)
    assert await db.load_events("r") == []
    for after in (0, heard[3][0]):
        ((end, name),) = await told(desk.agent.follow("r", after=after))
        assert name == "RunCompleted"
        assert await told(desk.agent.follow("r", after=end)) == []


@pytest.mark.usefixtures("events_are_old")
async def test_the_events_of_a_run_that_waits_for_a_person_are_kept(db: Db) -> None:
    agent, desk = paying(db, DbJournal(db)), Desk(db, None)
    paused = await agent.arun("go", session_id="s", run_id="r")
    heard = await told(agent.follow("r"))
    await asyncio.sleep(0.05)
    desk.model.say("another", None)
    await (await desk.agent.astart("go", session_id="t", run_id="another")).result()
    assert await told(agent.follow("r")) == heard
    paused.requirements[0].confirm()
    await agent.acontinue_run(paused)
    assert (await told(agent.follow("r")))[: len(heard)] == heard


async def test_the_session_of_a_durable_run_that_has_not_ended_is_its_users(db: Db) -> None:
    desk = Desk(db, None)
    await submit_as_data(desk, "s", "r")
    bob = Agent(model=ScriptedModel(["bob's"]), db=db)
    with pytest.raises(SessionOwnershipError):
        await bob.adelete_session("s", user_id="bob")
    with pytest.raises(SessionOwnershipError):
        await bob.arun("bob's", session_id="s", user_id="bob")
    with pytest.raises(SessionOwnershipError):
        await bob.aget_session_state("s", user_id="bob")
    desk.model.say("kept", None)
    handle = await desk.agent.astart("go", session_id="s", run_id="r", user_id="ann")
    assert (await handle.result()).content == "kept"


async def test_a_deletion_that_takes_a_run_that_has_not_ended_says_so(db: Db) -> None:
    desk = Desk(db, None)
    agent = desk.agent
    await submit_as_data(desk, "s", "r")
    assert await agent.adelete_session("s") is True
    assert await agent.adelete_session("s") is False


async def submit_as_data(desk: Desk, session_id: str, run_id: str) -> None:
    run = Submission.of(run_id=run_id, runner_id="desk", session_id=session_id, input="go", user_id="ann")
    assert await desk.journal.submit(run)
