"""A continuation that dies is gone on with by the run's id: the answers that people gave are on record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, CancelResult, RunStatus, Team, tool
from kern.budget import UsageBudget
from kern.db import Db
from kern.durable import DbJournal
from kern.errors import RunConflictError, RunMismatch, UsageError
from kern.models.base import ModelResponse
from kern.runtime import recorded_steps
from kern.testing import ScriptedModel, tool_call
from kern.usage import UsageLimits
from tests.databases import KINDS, SHARED, opener


@pytest.fixture(params=KINDS)
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Db]:
    db = opener(request, tmp_path)()
    yield db
    await db.aclose()


class Shop:
    """An agent that pays once a person has confirmed it, and then ships; each waits where it is told to."""

    def __init__(self, db: Db, *answers: Any, waits: str = "", once: bool = False, **more: Any) -> None:
        self.done: list[str] = []
        self.waits = asyncio.Event()

        async def did(what: str) -> str:
            self.done.append(what)
            if waits == what:
                self.waits.set()
                await asyncio.sleep(60)
            return what

        @tool(requires_confirmation=True, effect="idempotent")
        async def pay() -> str:
            """Pay."""
            return await did("paid")

        @tool(effect="once" if once else "idempotent")
        async def ship() -> str:
            """Ship."""
            return await did("shipped")

        self.model = ScriptedModel(list(answers))
        more.setdefault("journal", DbJournal(db))
        self.agent = Agent(id="shop", model=self.model, tools=[pay, ship], db=db, **more)

    async def run(self, text: str = "buy", **more: Any) -> Any:
        return await self.agent.arun(text, session_id="s", run_id="r", **more)

    async def killed(self, running: Any) -> None:
        """Have the process die where the tool waits."""
        task = asyncio.create_task(running)
        waits = asyncio.create_task(self.waits.wait())
        await asyncio.wait([task, waits], return_when=asyncio.FIRST_COMPLETED)
        assert not task.done(), task
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def died(db: Db, where: str = "shipped") -> Any:
    """A run that was paused, answered, and died in its continuation."""
    shop = Shop(db, tool_call("pay"), tool_call("ship"), waits=where)
    paused = await shop.run()
    paused.requirements[0].confirm()
    await shop.killed(shop.agent.acontinue_run(paused))
    assert shop.done == (["paid", "shipped"] if where == "shipped" else ["paid"])
    return paused


@pytest.mark.parametrize("by", ["arun", "astart", "continue", "continue with the answers"])
async def test_a_continuation_that_died_goes_on_without_its_answers(db: Db, by: str) -> None:
    paused = await died(db)
    shop = Shop(db, "bought")
    assert await DbJournal(db).unfinished() == ["r"]
    if by == "arun":
        output = await shop.run()
    elif by == "astart":
        output = await (await shop.agent.astart("buy", session_id="s", run_id="r")).result()
    elif by == "continue":
        output = await shop.agent.acontinue_run(run_id="r")
    else:
        output = await shop.agent.acontinue_run(run_id="r", requirements=paused.requirements)
    assert (output.status, output.content, output.input) == (RunStatus.completed, "bought", "buy")
    assert shop.done == ["shipped"], "what was paid is not paid again"
    assert [call.confirmed for call in output.tools] == [True, None]
    assert await DbJournal(db).unfinished() == []
    told = [event.event async for event in shop.agent.follow("r")]
    assert told.count("RunContinued") == 2
    assert told[-1] == "RunCompleted"


async def test_a_call_that_was_confirmed_is_made_again_by_the_answer_on_record(db: Db) -> None:
    await died(db, "paid")
    shop = Shop(db, "bought")
    output = await shop.run()
    assert (output.content, shop.done) == ("bought", ["paid"])


async def test_the_state_that_the_first_call_came_with_is_not_merged_again(db: Db) -> None:
    shop = Shop(db, tool_call("pay"), waits="paid")
    paused = await shop.run(session_state={"n": 1})
    await shop.agent.aupdate_session_state({"n": 2}, "s")
    paused.requirements[0].confirm()
    await shop.killed(shop.agent.acontinue_run(paused))
    output = await Shop(db, "bought").run(session_state={"n": 1})
    assert output.session_state == {"n": 2}


async def test_whoever_asks_for_something_else_does_not_go_on_with_it(db: Db) -> None:
    await died(db)
    with pytest.raises(RunMismatch, match="input"):
        await Shop(db).run("sell")
    with pytest.raises(RunConflictError, match="paused"):
        await Shop(db).run(on_duplicate="raise")
    assert (await Shop(db, "bought").run()).content == "bought"


async def test_a_continuation_that_died_can_be_cancelled(db: Db) -> None:
    await died(db)
    assert await Shop(db).agent.acancel_run("r") is CancelResult.cancelled
    assert await DbJournal(db).unfinished() == []
    assert (await Shop(db).run()).status is RunStatus.cancelled


async def test_a_team_goes_on_with_the_answers_to_its_members(db: Db) -> None:
    def team(*answers: Any, waits: str = "") -> tuple[Team, Shop]:
        member = Shop(db, *answers, waits=waits)
        member.agent.db = member.agent.journal = None
        leader = ScriptedModel([tool_call("delegate_task_to_member", member_id="shop", task="buy"), "done"])
        if not waits:
            leader = ScriptedModel(["done"])
        return Team([member.agent], id="t", model=leader, db=db, journal=DbJournal(db)), member

    first, member = team(tool_call("pay"), tool_call("ship"), waits="shipped")
    paused = await first.arun("go", session_id="s", run_id="r")
    paused.requirements[0].confirm()
    await member.killed(first.acontinue_run(paused))
    second, member = team("bought")
    output = await second.arun("go", session_id="s", run_id="r")
    assert (output.content, member.done) == ("done", ["shipped"])
    assert [child.content for child in output.member_responses] == ["bought"]


async def in_doubt(db: Db) -> Any:
    """A run whose call was in doubt, was confirmed, and is in doubt again."""
    shop = Shop(db, tool_call("ship"), waits="shipped", once=True)
    await shop.killed(shop.run())
    paused = await Shop(db, once=True).run()
    assert [need.kind for need in paused.requirements] == ["in_doubt"]
    paused.requirements[0].confirm()
    again = Shop(db, waits="shipped", once=True)
    await again.killed(again.agent.acontinue_run(paused))
    return paused


@pytest.mark.parametrize("answer", ["rejected", "carried out"])
async def test_an_answer_to_a_call_that_is_in_doubt_again_counts(db: Db, answer: str) -> None:
    await in_doubt(db)
    stored = await Shop(db).agent.aget_run_output("r")
    assert stored is not None
    assert stored.status is RunStatus.running, "it was gone on with"
    fresh = (await Shop(db, once=True).agent.alist_runs(status="PAUSED"))[0].requirements
    if answer == "rejected":
        fresh[0].reject("it has arrived")
    else:
        fresh[0].set_external_execution_result("it has arrived")
    shop = Shop(db, "done", once=True)
    output = await shop.agent.acontinue_run(run_id="r", requirements=fresh)
    assert (output.status, output.content, shop.done) == (RunStatus.completed, "done", [])
    assert "it has arrived" in str(output.tools[0].result)


async def test_a_confirmation_of_the_last_doubt_does_not_confirm_the_next_one(db: Db) -> None:
    paused = await in_doubt(db)
    shop = Shop(db, once=True)
    again = await shop.agent.acontinue_run(paused)
    assert (again.status, shop.done) == (RunStatus.paused, [])
    (need,) = again.requirements
    assert (need.kind, need.is_resolved) == ("in_doubt", False)
    assert need.id != paused.requirements[0].id
    need.confirm()
    shop = Shop(db, "done", once=True)
    output = await shop.agent.acontinue_run(again)
    assert (output.content, shop.done) == ("done", ["shipped"])


async def test_by_the_run_id_alone_the_next_doubt_is_asked(db: Db) -> None:
    paused = await in_doubt(db)
    again = await Shop(db, once=True).run()
    assert again.status is RunStatus.paused
    assert again.requirements[0].id != paused.requirements[0].id


@pytest.mark.parametrize("paused_before", [False, True])
async def test_a_shared_budget_counts_what_is_on_record_once(db: Db, paused_before: bool) -> None:
    budget = UsageBudget(UsageLimits(requests=10, tool_calls=10))
    calls = [tool_call("pay")] if paused_before else []
    shop = Shop(db, *calls, tool_call("ship"), waits="shipped", usage_limits=budget)
    if paused_before:
        paused = await shop.run()
        paused.requirements[0].confirm()
        await shop.killed(shop.agent.acontinue_run(paused))
    else:
        await shop.killed(shop.run())
    for _ in range(2):  # let go twice
        shop = Shop(db, waits="shipped", usage_limits=budget)
        await shop.killed(shop.run())
    output = await Shop(db, "done", usage_limits=budget).run()
    assert output.content == "done"
    assert budget.used.requests == output.metrics.requests == 2 + paused_before
    assert budget.used.input_tokens == output.metrics.input_tokens
    fresh = UsageBudget(UsageLimits(requests=10))
    shop = Shop(db, tool_call("ship"), waits="shipped", usage_limits=budget)
    await shop.killed(shop.agent.arun("buy", session_id="s", run_id="other"))
    await Shop(db, "done", usage_limits=fresh).agent.arun("buy", session_id="s", run_id="other")
    assert fresh.used.requests == 2, "a budget that has not counted the steps counts them"


async def test_a_detached_run_that_paused_goes_on_with_a_journal_of_its_own(db: Db) -> None:
    shop = Shop(db, tool_call("pay"), "bought", journal=None)
    handle = await shop.agent.astart("buy", session_id="s", run_id="r")
    paused = await handle.result()
    heard = [event.seq async for event in shop.agent.follow("r")]
    paused.requirements[0].confirm()
    output = await shop.agent.acontinue_run(paused)
    assert (output.status, output.content) == (RunStatus.completed, "bought")
    told = [event.event async for event in shop.agent.follow("r", after=heard[-1])]
    assert (told[0], told[-1]) == ("RunContinued", "RunCompleted")


@pytest.mark.parametrize("db", SHARED, indirect=True)
async def test_a_continuation_that_died_hears_a_request_that_came_while_its_claim_held(db: Db) -> None:
    await died(db, "paid")
    await db.request_cancel("r", user_id=None)  # the process that had it cannot take it any more
    shop = Shop(db, "bought")
    output = await shop.run()
    assert (output.status, shop.done) == (RunStatus.cancelled, []), "the payment is not made again"


async def test_a_call_that_was_begun_is_in_doubt_although_there_is_no_such_tool_any_more(db: Db) -> None:
    shop = Shop(db, tool_call("ship"), waits="shipped", once=True)
    await shop.killed(shop.run())
    model = ScriptedModel(["done without"])
    other = Agent(id="shop", model=model, db=db, journal=DbJournal(db))
    output = await other.arun("buy", session_id="s", run_id="r")
    assert output.status is RunStatus.paused
    assert [(need.kind, need.tool_name) for need in output.requirements] == [("in_doubt", "ship")]


@pytest.mark.parametrize("then", ["finished", "paused"])
async def test_a_call_of_a_member_that_is_gone_is_neither_repeated_nor_forgotten(
    db: Db, then: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_steps, "STALL_SECONDS", 0.05)
    both = [tool_call("delegate_task_to_member", member_id=name, task="buy") for name in ("shop", "other")]

    def team(member: Shop, *answers: Any, gone: bool = False) -> Team:
        member.agent.db = member.agent.journal = None
        asks = tool_call("pay") if then == "paused" else "fine"
        other = Shop(db, asks).agent
        other.id, other.db, other.journal = "other", None, None
        members = [other] if gone else [member.agent, other]
        return Team(members, id="t", model=ScriptedModel(list(answers)), db=db, journal=DbJournal(db))

    shop = Shop(db, tool_call("ship"), waits="shipped", once=True)
    first = team(shop, ModelResponse.of(None, *both))
    await shop.killed(first.arun("go", session_id="s", run_id="r"))
    with pytest.raises(UsageError, match=r"the tool 'ship', which may have been carried out") as caught:
        await team(Shop(db), "done", gone=True).arun("go", session_id="s", run_id="r")
    assert "DbJournal(db).forget('r')" in str(caught.value)
    assert await DbJournal(db).unfinished() == ["r"], "it has not ended"
    again = Shop(db, "bought", once=True)
    output = await team(again, "done").arun("go", session_id="s", run_id="r")
    assert output.status is RunStatus.paused
    assert "in_doubt" in [need.kind for need in output.requirements]
    assert again.done == []
