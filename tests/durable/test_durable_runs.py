"""Durable runs: the same call starts a run, goes on with it, and returns what it has come to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunContext, RunStatus, Team, shutdown, tool
from kern.db import Db, InMemoryDb, SqliteDb
from kern.durable import DbJournal
from kern.errors import RunDeadlineExceeded, ShutdownError, UsageError
from kern.testing import ScriptedModel, tool_call
from tests import processes


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[SqliteDb]:
    db = SqliteDb(tmp_path / "kern.db")
    yield db
    await db.aclose()


class Desk:
    """An agent with a tool that waits until it is let go."""

    def __init__(self, db: Db, *answers: Any, **more: Any) -> None:
        self.called: list[str] = []
        self.waits = asyncio.Event()
        self.go = asyncio.Event()
        self.model = ScriptedModel(answers)

        @tool(effect="idempotent")
        async def work(what: str, run_context: RunContext) -> str:
            """Work."""
            self.called.append(what)
            self.waits.set()
            await self.go.wait()
            run_context.session_state["n"] = run_context.session_state.get("n", 0) + 1
            return f"did {what} for {run_context.idempotency_key}"

        @tool(effect="read")
        def note(what: str, run_context: RunContext) -> str:
            """Note."""
            self.called.append(what)
            run_context.session_state.setdefault("notes", []).append(what)
            return "noted"

        self.agent = Agent(
            id="desk", model=self.model, tools=[work, note], db=db, journal=DbJournal(db), **more
        )

    async def run(self, run_id: str = "r") -> Any:
        return await self.agent.arun("go", session_id="s", run_id=run_id)


NOTE, WORK = tool_call("note", what="a"), tool_call("work", what="b")


async def test_the_same_call_starts_a_run_and_returns_its_output_once_it_has_ended(db: SqliteDb) -> None:
    desk = Desk(db, NOTE, "done")
    first = await desk.run()
    again = await Desk(db).run()
    assert (first.content, again.content, again.session_state) == ("done", "done", {"notes": ["a"]})
    assert await DbJournal(db).unfinished() == []


async def test_a_task_that_is_cancelled_lets_go_and_the_same_call_goes_on(db: SqliteDb) -> None:
    desk = Desk(db, NOTE, WORK)
    task = asyncio.create_task(desk.run())
    await desk.waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await db.load_run("r") is None
    assert await DbJournal(db).unfinished() == ["r"]
    other = Desk(db, "done")
    other.go.set()
    output = await other.run()
    assert other.called == ["b"], "what is on record is not done again"
    assert output.content == "done"
    assert output.session_state == {"notes": ["a"], "n": 1}
    assert [call.result for call in output.tools] == ["noted", f"did b for r/{WORK.id}"]
    assert await DbJournal(db).unfinished() == []
    assert [change.revision for change in await db.load_changes("s")] == [1, 2]


async def test_shutdown_lets_go_of_durable_runs(db: SqliteDb) -> None:
    desk = Desk(db, WORK)
    task = asyncio.create_task(desk.run())
    await desk.waits.wait()
    await shutdown(0)
    with pytest.raises(ShutdownError, match=r"was released by kern\.shutdown"):
        await task
    assert await DbJournal(db).unfinished() == ["r"]
    other = Desk(db, "done")
    other.go.set()
    assert (await other.run()).content == "done"


async def test_cancel_run_ends_a_durable_run(db: SqliteDb) -> None:
    desk = Desk(db, WORK)
    task = asyncio.create_task(desk.run())
    await desk.waits.wait()
    assert await desk.agent.acancel_run("r")
    assert (await task).status is RunStatus.cancelled
    assert await DbJournal(db).unfinished() == []
    assert (await Desk(db).run()).status is RunStatus.cancelled


async def test_a_deadline_ends_a_durable_run_and_counts_from_its_beginning(db: SqliteDb) -> None:
    desk = Desk(db, WORK, timeout=0.2)
    with pytest.raises(RunDeadlineExceeded):
        await desk.run()
    assert await DbJournal(db).unfinished() == []
    desk = Desk(db, WORK, timeout=30)
    task = asyncio.create_task(desk.run("r2"))
    await desk.waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.05)
    late = Desk(db, timeout=0.04)
    late.go.set()
    with pytest.raises(RunDeadlineExceeded):
        await late.run("r2")


async def test_two_same_calls_at_once_are_one_run(db: SqliteDb) -> None:
    desk = Desk(db, WORK, "done")
    tasks = [asyncio.create_task(desk.run()) for _ in range(2)]
    await desk.waits.wait()
    desk.go.set()
    first, second = await asyncio.gather(*tasks)
    assert first.content == second.content == "done"
    assert desk.called == ["b"]


async def test_what_others_commit_meanwhile_is_merged(db: SqliteDb) -> None:
    desk = Desk(db, NOTE, WORK)
    task = asyncio.create_task(desk.run())
    await desk.waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    stranger = Agent(id="x", model=ScriptedModel(["hi"]), db=db)
    await stranger.arun("hi", session_id="s", session_state={"theirs": 1})
    other = Desk(db, "done")
    other.go.set()
    output = await other.run()
    assert output.session_state == {"theirs": 1, "notes": ["a"], "n": 1}
    session = await other.agent.aget_session(session_id="s")
    assert session is not None
    assert session.state == output.session_state


async def test_changes_that_a_commit_from_outside_has_saved_count_once(db: SqliteDb) -> None:
    desk = Desk(db, NOTE, WORK)
    task = asyncio.create_task(desk.run())
    await desk.waits.wait()
    await desk.agent.aupdate_session_state(lambda state: state.update(outside=True), session_id="s")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    other = Desk(db, "done")
    other.go.set()
    output = await other.run()
    assert output.session_state == {"notes": ["a"], "n": 1, "outside": True}
    assert [change.revision for change in await db.load_changes("s")] == [1, 2, 3]


async def test_a_durable_run_that_waits_for_a_person_is_returned_and_continued(db: SqliteDb) -> None:
    def made(*answers: Any) -> Agent:
        @tool(requires_confirmation=True)
        def pay() -> str:
            """Pay."""
            return "paid"

        return Agent(id="a", model=ScriptedModel(answers), tools=[pay], db=db, journal=DbJournal(db))

    first = await made(tool_call("pay")).arun("go", session_id="s", run_id="r")
    again = await made().arun("go", session_id="s", run_id="r")
    assert first.status is again.status is RunStatus.paused
    assert first.requirements[0].id == again.requirements[0].id
    again.requirements[0].confirm()
    done = await made("all paid").acontinue_run(again)
    assert (done.content, done.tools[0].result) == ("all paid", "paid")
    assert await DbJournal(db).unfinished() == []


async def test_the_journal_is_in_the_database_of_the_session(db: SqliteDb) -> None:
    agent = Agent(model=ScriptedModel(["x"]), db=InMemoryDb(), journal=DbJournal(db))
    with pytest.raises(UsageError, match="pass the same db to both"):
        await agent.arun("x")
    with pytest.raises(UsageError, match="a database that stores steps"):
        DbJournal(object())
    with pytest.raises(UsageError, match="claim_seconds must be a number of seconds above 0"):
        DbJournal(db, claim_seconds=0)


def test_an_effect_is_one_of_three() -> None:
    with pytest.raises(UsageError, match="effect must be one of read, idempotent, once, not 'never'"):
        tool(name="x", effect="never")(lambda: None)


ONCE = """
    import asyncio, json, os, signal, sys
    from kern import Agent, Team, tool
    from kern.db import SqliteDb
    from kern.durable import DbJournal
    from kern.testing import FunctionModel, tool_call

    folder, mode = sys.argv[1:]

    @tool(effect="once")
    def pay(amount: int) -> str:
        '''Pay.'''
        with open(folder + "/ledger", "a") as ledger:
            ledger.write(f"paid {amount}\\n")
            ledger.flush()
        if mode == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return f"paid {amount}"

    def payer(request):
        results = [m.content for m in request.messages if m.role == "tool"]
        return f"I know: {results[-1]}" if results else tool_call("pay", amount=3)

    def lead(request):
        results = [m.content for m in request.messages if m.role == "tool"]
        return f"So: {results[-1]}" if results else tool_call(
            "delegate_task_to_member", member_id="payer", task="pay")

    async def main():
        db = SqliteDb(folder + "/kern.db")
        member = Agent(id="payer", role="pays", model=FunctionModel(payer), tools=[pay])
        team = Team([member], id="desk", model=FunctionModel(lead), db=db,
                    journal=DbJournal(db, claim_seconds=0.3))
        await asyncio.sleep(0 if mode == "die" else 0.4)
        output = await team.arun("go", session_id="s", run_id="r")
        if mode != "look":
            (requirement,) = output.requirements
            if mode == "result":
                requirement.set_external_execution_result("it was paid, says the bank")
            elif mode == "reject":
                requirement.reject("leave it")
            else:
                requirement.confirm()
            output = await team.acontinue_run(output)
        print(json.dumps([output.status, output.content, [r.kind for r in output.requirements]]))

    asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("mode", "said", "times"),
    [
        ("result", "So: I know: it was paid, says the bank", 1),
        ("reject", "So: I know: The user has rejected this call: leave it.", 1),
        ("confirm", "So: I know: paid 3", 2),
    ],
)
def test_a_call_that_may_be_made_once_is_asked_about_after_a_crash(
    tmp_path: Path, mode: str, said: str, times: int
) -> None:
    dead = processes.start(ONCE, tmp_path, "die")
    assert dead.wait(timeout=25) == -9
    dead.communicate()
    ledger = tmp_path / "ledger"
    for _ in range(2):  # each process that comes asks, and none repeats it
        assert processes.run(ONCE, tmp_path, "look").startswith('["PAUSED", null, ["in_doubt"]]')
        assert ledger.read_text() == "paid 3\n"
    assert said in processes.run(ONCE, tmp_path, mode)
    assert ledger.read_text() == "paid 3\n" * times


async def test_a_run_that_a_tool_starts_has_no_journal_of_its_own(db: SqliteDb) -> None:
    inner = Agent(id="inner", model=ScriptedModel(["inside"]))

    @tool(effect="read")
    async def ask() -> str:
        """Ask."""
        return (await inner.arun("?")).content or ""

    model = ScriptedModel([tool_call("ask"), "done"])
    agent = Agent(id="outer", model=model, tools=[ask], db=db, journal=DbJournal(db))
    output = await agent.arun("go", run_id="r")
    assert output.tools[0].result == "inside"


async def test_the_tasks_of_a_team_go_on(db: SqliteDb) -> None:
    """The leader's list is in the state, and the tasks that run are run once."""
    worked: list[str] = []
    waits, go = asyncio.Event(), asyncio.Event()

    def team(lead: list[Any], member: list[Any]) -> Team:
        @tool(effect="idempotent")
        async def work() -> str:
            """Work."""
            worked.append("x")
            waits.set()
            await go.wait()
            return "worked"

        worker = Agent(id="w", role="works", model=ScriptedModel(member), tools=[work])
        return Team([worker], id="t", mode="tasks", model=ScriptedModel(lead), db=db, journal=DbJournal(db))

    lead = [
        tool_call("create_task", title="one", member_id="w"),
        tool_call("execute_tasks", task_ids=[1]),
    ]
    task = asyncio.create_task(team(lead, [tool_call("work")]).arun("go", session_id="s", run_id="r"))
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    output = await team(["all done"], ["did it"]).arun("go", session_id="s", run_id="r")
    assert output.content == "all done"
    assert worked == ["x", "x"], "the call that was under way is made again"
    assert output.session_state is not None
    (one,) = output.session_state["team_tasks"]["t"]
    assert (one["status"], one["result"]) == ("completed", "did it")
