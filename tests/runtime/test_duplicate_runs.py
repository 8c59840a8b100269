"""A `run_id` of the caller's own is looked at before anything is done, and `on_duplicate` says what then."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunContext, RunStatus, Team, tool
from kern.db import SqliteDb
from kern.db.base import Db
from kern.errors import (
    KernError,
    RunConflictError,
    RunDeadlineExceeded,
    SessionBusyError,
    SessionOwnershipError,
    UsageError,
)
from kern.models.base import ModelRequest, ModelResponse
from kern.run import RunCompletedEvent, RunErrorEvent
from kern.testing import FunctionModel, ScriptedModel, no_leaks, tool_call
from tests import processes
from tests.databases import KINDS, opener


@pytest.fixture(params=KINDS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Db:
    return opener(request, tmp_path)()


class Shop:
    """An agent that charges a card, and counts how often."""

    def __init__(self, db: Db, **options: Any) -> None:
        self.charged = 0
        self.fails = False
        self.stay: asyncio.Event | None = None
        self.began = asyncio.Event()
        self.model = FunctionModel(self.play)
        self.agent = Agent(model=self.model, tools=[self.charge], db=db, session_id="s", **options)

    async def play(self, request: ModelRequest) -> ModelResponse | str:
        if not any(message.tool_name == "charge" for message in request.messages):
            return ModelResponse.of(None, tool_call("charge"))
        if self.fails:
            raise LookupError("down")
        return "Your card is charged."

    async def charge(self, run_context: RunContext) -> str:
        self.began.set()
        if self.stay is not None:
            await self.stay.wait()
        self.charged += 1
        run_context.session_state["charged"] = self.charged
        return "charged 5 EUR"


async def test_a_stored_id_is_refused_before_anything_is_done(db: Db) -> None:
    shop = Shop(db)
    await shop.agent.arun("x", run_id="R")
    asked = len(shop.model.requests)
    with pytest.raises(RunConflictError, match="'R' is already stored, with status COMPLETED"):
        await shop.agent.arun("x", run_id="R", session_state={"more": 1})
    assert (shop.charged, len(shop.model.requests)) == (1, asked)
    assert await shop.agent.aget_session_state() == {"charged": 1}


async def test_of_two_at_once_one_is_refused(db: Db) -> None:
    shop = Shop(db)
    results = await asyncio.gather(
        *(shop.agent.arun("x", run_id="R") for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(result, RunConflictError) for result in results) == 4
    assert shop.charged == 1


async def test_the_stored_output_is_returned(db: Db) -> None:
    shop = Shop(db)
    first = await shop.agent.arun("x", run_id="R")
    again = await shop.agent.arun("x", run_id="R", on_duplicate="return")
    assert (again.run_id, again.content, again.status) == ("R", first.content, RunStatus.completed)
    assert again.session_state == {"charged": 1}
    assert [execution.result for execution in again.tools] == ["charged 5 EUR"]
    assert shop.charged == 1


@pytest.mark.parametrize("everything", [False, True])
async def test_a_stream_of_it_is_the_terminal_event_and_the_output(db: Db, everything: bool) -> None:
    shop = Shop(db)
    await shop.agent.arun("x", run_id="R")
    stream = shop.agent.arun(
        "x", run_id="R", on_duplicate="return", stream=True, stream_events=everything, yield_run_output=True
    )
    event, output = [item async for item in stream]
    assert isinstance(event, RunCompletedEvent)
    assert event.content == output.content == "Your card is charged."
    assert event.run_id == "R"


async def test_a_failed_one_is_returned_as_it_is_stored(db: Db) -> None:
    shop = Shop(db)
    shop.fails = True
    with pytest.raises(KernError):
        await shop.agent.arun("x", run_id="R")
    output = await shop.agent.arun("x", run_id="R", on_duplicate="return")
    assert output.status is RunStatus.error
    assert "LookupError: down" in (output.error or "")
    stream = shop.agent.arun("x", run_id="R", on_duplicate="return", stream=True)
    [event] = [item async for item in stream]
    assert isinstance(event, RunErrorEvent)


async def test_a_run_that_goes_on_in_this_process_is_awaited(db: Db) -> None:
    shop = Shop(db)
    shop.stay = asyncio.Event()
    async with no_leaks():
        first = asyncio.create_task(shop.agent.arun("x", run_id="R"))
        await shop.began.wait()
        others = [
            asyncio.create_task(shop.agent.arun("x", run_id="R", on_duplicate="return")) for _ in range(3)
        ]
        with pytest.raises(RunDeadlineExceeded):
            await shop.agent.arun("x", run_id="R", on_duplicate="return", timeout=0.05)
        with pytest.raises(RunConflictError, match="is already in progress"):
            await shop.agent.arun("x", run_id="R", on_duplicate="retry_failed")
        with pytest.raises(SessionOwnershipError):
            await shop.agent.arun("x", run_id="R", on_duplicate="return", user_id="mallory")
        with pytest.raises(RunConflictError, match="another session"):
            await shop.agent.arun("x", run_id="R", on_duplicate="return", session_id="other")
        assert not any(other.done() for other in others)
        shop.stay.set()
        outputs = await asyncio.gather(first, *others)
    assert {output.content for output in outputs} == {"Your card is charged."}
    assert shop.charged == 1


async def test_a_run_that_asks_for_itself_is_refused() -> None:
    async def ask() -> str:
        return str((await agent.arun("x", run_id="R", on_duplicate="return")).content)

    model = ScriptedModel([tool_call("ask"), lambda request: request.messages[-1].content or ""])
    agent = Agent(model=model, tools=[ask])
    output = await agent.arun("x", run_id="R")
    assert "would wait for itself" in output.content


@pytest.mark.parametrize("how", ["return", "raise", "retry_failed"])
async def test_a_run_that_goes_on_in_another_process_is_not_waited_for(tmp_path: Path, how: Any) -> None:
    db = SqliteDb(tmp_path / "a.db")
    shop = Shop(db)
    assert await db.claim_run("R", "another process", 30.0)
    with pytest.raises(SessionBusyError if how == "return" else RunConflictError, match="another process"):
        await shop.agent.arun("x", run_id="R", on_duplicate=how)
    assert shop.charged == 0


@pytest.mark.parametrize("how", ["return", "raise", "retry_failed"])
async def test_owner_and_session_come_first(db: Db, how: Any) -> None:
    shop = Shop(db)
    await shop.agent.arun("x", run_id="R", user_id="ann")
    with pytest.raises(SessionOwnershipError):
        await shop.agent.arun("x", run_id="R", on_duplicate=how, user_id="mallory")
    with pytest.raises(RunConflictError, match="another session"):
        await shop.agent.arun("x", run_id="R", on_duplicate=how, user_id="mallory", session_id="hers")
    assert shop.charged == 1


@pytest.mark.parametrize("how", ["return", "raise", "retry_failed"])
async def test_a_paused_run_always_raises(db: Db, how: Any) -> None:
    @tool(requires_confirmation=True)
    def wipe() -> str:
        return "wiped"

    agent = Agent(model=ScriptedModel([tool_call("wipe")]), tools=[wipe], db=db)
    await agent.arun("x", run_id="R")
    with pytest.raises(RunConflictError, match="continue_run"):
        await agent.arun("x", run_id="R", on_duplicate=how)


async def test_a_member_s_run_and_a_team_s_are_no_agent_s(db: Db) -> None:
    delegation = tool_call("delegate_task_to_member", member_id="m", task="x")
    member = Agent(name="m", model=ScriptedModel(["done"]))
    team = Team([member], model=ScriptedModel([delegation, "all done"]), db=db, session_id="s")
    output = await team.arun("x", run_id="R")
    agent = Agent(model=ScriptedModel([]), db=db, session_id="s")
    with pytest.raises(RunConflictError, match="a run of a team member"):
        await agent.arun("x", run_id=output.member_responses[0].run_id, on_duplicate="return")
    with pytest.raises(RunConflictError, match="another agent or team"):
        await agent.arun("x", run_id="R", on_duplicate="return")


@pytest.mark.parametrize("with_history", [False, True])
async def test_a_failed_run_is_tried_again_and_knows_what_it_has_done(db: Db, with_history: bool) -> None:
    shop = Shop(db, add_history_to_context=with_history)
    await shop.agent.arun("hello", run_id="before")
    shop.charged = 0
    shop.fails = True
    shop.model.requests.clear()
    with pytest.raises(KernError):
        await shop.agent.arun("Charge my card", run_id="R")
    shop.fails = False
    output = await shop.agent.arun("Charge my card", run_id="R", on_duplicate="retry_failed")
    assert output.content == "Your card is charged."
    assert shop.charged == (0 if with_history else 1)
    seen = [m for m in shop.model.requests[-1].messages if not m.from_history]
    if not with_history:
        assert [m.content for m in seen if m.role == "tool"] == ["charged 5 EUR"]
        assert [e.result for e in output.tools] == ["charged 5 EUR"]
    assert sum(m.content == "Charge my card" for m in shop.model.requests[-1].messages) == 1
    rows = await db.load_runs("s")
    assert [(row.run_id, row.status) for row in rows] == [("before", "COMPLETED"), ("R", "COMPLETED")]
    assert rows[1].generation == 1
    said = [(m.role, m.content) for m in await shop.agent.aget_chat_history()][2:]
    assert said == [("user", "Charge my card"), ("assistant", "Your card is charged.")]
    with pytest.raises(RunConflictError, match="only a run that failed"):
        await shop.agent.arun("Charge my card", run_id="R", on_duplicate="retry_failed")


async def test_a_later_run_knows_what_all_attempts_have_done(db: Db) -> None:
    shop = Shop(db, add_history_to_context=True)
    shop.fails = True
    for how in ("raise", "retry_failed"):
        with pytest.raises(KernError, match="down"):
            await shop.agent.arun("Charge my card", run_id="R", on_duplicate=how)
    shop.fails = False
    await shop.agent.arun("Charge my card", run_id="R", on_duplicate="retry_failed")
    await shop.agent.arun("What did you do?")
    messages = shop.model.requests[-1].messages
    assert [m.content for m in messages if m.role == "tool"] == ["charged 5 EUR"]
    assert [m.content for m in messages if m.role == "user"] == ["Charge my card", "What did you do?"]
    assert shop.charged == 1


async def test_a_cancelled_run_is_tried_again_and_an_old_request_to_cancel_does_not_reach_it(
    tmp_path: Path,
) -> None:
    db = SqliteDb(tmp_path / "a.db")
    shop = Shop(db)
    shop.stay = asyncio.Event()
    run = asyncio.create_task(shop.agent.arun("x", run_id="R"))
    await shop.began.wait()
    await db.request_cancel("R")  # as another process does
    assert (await run).status is RunStatus.cancelled
    again = asyncio.create_task(shop.agent.arun("x", run_id="R", on_duplicate="retry_failed"))
    await asyncio.sleep(1.2)  # the database has been asked meanwhile
    shop.stay.set()
    assert (await again).status is RunStatus.completed


async def test_nothing_is_looked_up_for_an_id_of_kern_s_own(db: Db, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("looked up")

    monkeypatch.setattr(type(db), "load_run", refuse)
    monkeypatch.setattr(type(db), "load_session_and_run", refuse)
    monkeypatch.setattr(type(db), "acquire_lease", refuse)
    assert (await Shop(db).agent.arun("x")).status is RunStatus.completed


def test_a_wrong_word_and_a_missing_id_are_refused() -> None:
    agent = Agent(model=ScriptedModel([]))
    with pytest.raises(
        UsageError, match="on_duplicate must be one of raise, return, retry_failed, not 'again'"
    ):
        agent.run("x", run_id="R", on_duplicate="again")
    with pytest.raises(UsageError, match="has no effect without a run_id"):
        agent.run("x", on_duplicate="return")


PROCESS = """
    import asyncio, sys
    from kern import Agent
    from kern.errors import KernError
    from kern.testing import FunctionModel, tool_call
    from tests.databases import opened

    async def charge() -> str:
        with open(sys.argv[2], "a") as file:
            file.write("charged\\n")
        await asyncio.sleep(0.3)
        return "charged"

    model = FunctionModel(lambda r: "done" if r.messages[-1].role == "tool" else tool_call("charge"))
    agent = Agent(model=model, tools=[charge], db=opened(sys.argv[1]), session_id="s")
    try:
        agent.run("x", run_id="R")
        print("COMPLETED")
    except KernError as error:
        print(type(error).__name__)
"""


def test_several_processes_with_one_id_act_once(place: str, tmp_path: Path) -> None:
    arguments = [
        sys.executable,
        "-c",
        textwrap.dedent(PROCESS),
        place,
        str(tmp_path / "charged"),
    ]
    env = processes.environment()
    three = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=env) for _ in range(3)]
    said = sorted(process.communicate()[0].strip() for process in three)
    assert said == ["COMPLETED", "RunConflictError", "RunConflictError"]
    assert (tmp_path / "charged").read_text() == "charged\n"
