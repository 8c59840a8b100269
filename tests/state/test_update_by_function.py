"""`update_session_state` with a function: read, change and commit, with nobody else in between."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from kern import Agent, RunContext
from kern.db.base import Db
from kern.db.sqlite import SqliteDb
from kern.errors import InvalidStateError, SessionOwnershipError, UsageError
from kern.testing import FunctionModel
from tests.databases import KINDS, opener
from tests.played import agent_with, tool_results


@pytest.fixture(params=KINDS)
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Db:
    return opener(request, tmp_path)()


def keeper(db: Db | None = None, **options: Any) -> Agent:
    return Agent(model=FunctionModel(lambda request: "ok"), db=db, **{"session_id": "s", **options})


def add_one(state: dict[str, Any]) -> None:
    state["n"] = state.get("n", 0) + 1


async def add_two(state: dict[str, Any]) -> None:
    before = state.get("n", 0)
    await asyncio.sleep(0)
    state["n"] = before + 2


class AddThree:
    async def __call__(self, state: dict[str, Any]) -> None:
        await add_two(state)
        add_one(state)


async def test_it_changes_what_is_stored_and_returns_the_new_state(db: Db) -> None:
    agent = keeper(db)
    assert await agent.aupdate_session_state(add_one) == {"n": 1}
    assert await agent.aupdate_session_state(add_two) == {"n": 3}
    assert await agent.aupdate_session_state(AddThree()) == {"n": 6}
    assert await agent.aupdate_session_state(lambda state: add_two(state)) == {"n": 8}
    row = await db.load_session("s")
    assert row is not None
    assert row.state == b'{"n":8}'
    history = await agent.asession_state_history(path="n")
    assert [(entry.tool, entry.new) for entry in history] == [
        ("update_session_state", n) for n in (1, 3, 6, 8)
    ]


def test_it_has_a_sync_face(tmp_path: Path) -> None:
    agent = keeper(SqliteDb(tmp_path / "a.db"))
    assert agent.update_session_state(add_one) == {"n": 1}
    assert agent.update_session_state(add_two) == {"n": 3}
    assert agent.get_session_state() == {"n": 3}


async def test_none_is_lost_of_many_at_once(db: Db) -> None:
    agents = [keeper(db) for _ in range(4)]
    functions: list[Callable[[dict[str, Any]], Any]] = [add_one, add_two]
    await asyncio.gather(
        *(
            agent.aupdate_session_state(function)
            for agent in agents
            for function in functions
            for _ in range(5)
        )
    )
    assert await agents[0].aget_session_state() == {"n": 60}


async def test_none_is_lost_beside_the_tools_of_a_run(db: Db) -> None:
    started = asyncio.Event()

    async def count(run_context: RunContext) -> str:
        add_one(run_context.session_state)
        started.set()
        await asyncio.sleep(0.02)
        add_one(run_context.session_state)
        return "ok"

    agent = agent_with(count, db=db, session_id="s")
    run = asyncio.create_task(agent.arun("go"))
    await started.wait()
    assert await agent.aupdate_session_state(add_one) == {"n": 3}
    await run
    assert await keeper(db).aget_session_state() == {"n": 3}


async def test_a_sync_function_runs_in_a_thread_and_an_async_one_on_the_loop() -> None:
    seen: list[bool] = []

    def sync(state: dict[str, Any]) -> None:
        seen.append(threading.current_thread() is threading.main_thread())

    async def not_sync(state: dict[str, Any]) -> None:
        sync(state)

    await keeper().aupdate_session_state(sync)
    await keeper().aupdate_session_state(not_sync)
    assert seen == [False, True]


# Errors


def fail(state: dict[str, Any]) -> None:
    state["n"] = "lost"
    raise LookupError("no")


async def fail_later(state: dict[str, Any]) -> None:
    await asyncio.sleep(0)
    fail(state)


@pytest.mark.parametrize("function", [fail, fail_later])
async def test_an_error_undoes_it_and_is_raised(function: Callable[[Any], Any], db: Db) -> None:
    agent = keeper(db)
    await agent.aupdate_session_state({"n": 1})
    with pytest.raises(LookupError, match="no"):
        await agent.aupdate_session_state(function)
    assert await agent.aget_session_state() == {"n": 1}
    assert await agent.aupdate_session_state(add_one) == {"n": 2}


async def test_an_error_in_the_first_update_makes_no_session(db: Db) -> None:
    with pytest.raises(LookupError):
        await keeper(db).aupdate_session_state(fail)
    assert await db.load_session("s") is None


async def test_what_a_function_returns_would_be_lost_and_is_refused() -> None:
    agent = keeper(session_state={"n": 1})
    returning: list[Any] = [lambda state: {**state, "n": 2}, lambda state: state.setdefault("m", 3)]
    for function in returning:
        with pytest.raises(UsageError, match="must change the state in place and return None"):
            await agent.aupdate_session_state(function)
    assert await agent.aget_session_state() == {"n": 1}


async def test_what_is_no_json_is_refused() -> None:
    agent = keeper(session_state={"n": 1})
    with pytest.raises(InvalidStateError):
        await agent.aupdate_session_state(lambda state: state.update(n=object()))
    assert await agent.aget_session_state() == {"n": 1}


async def test_a_cancelled_update_changes_nothing_and_holds_nothing(db: Db) -> None:
    agent, go = keeper(db), threading.Event()
    began = threading.Event()

    def wait(state: dict[str, Any]) -> None:
        state["n"] = 5
        began.set()
        go.wait(10)

    async def wait_on_loop(state: dict[str, Any]) -> None:
        state["n"] = 6
        began.set()
        await asyncio.sleep(10)

    for function in (wait, wait_on_loop):
        began.clear()
        task = asyncio.create_task(agent.aupdate_session_state(function))
        while not began.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await agent.aupdate_session_state(add_one) == {"n": 1}
    go.set()
    assert await agent.aget_session_state() == {"n": 1}


async def test_it_is_for_the_owner_alone(db: Db) -> None:
    agent = keeper(db)
    await agent.aupdate_session_state(add_one, user_id="ann")
    with pytest.raises(SessionOwnershipError):
        await agent.aupdate_session_state(add_one, user_id="bob")
    assert await agent.aget_session_state() == {"n": 1}


# Typed states


class Cart(BaseModel):
    items: list[str] = []
    total: int = 0


async def test_a_function_gets_the_model_of_a_typed_state(db: Db) -> None:
    agent = keeper(db, session_state=Cart)

    def buy(cart: Cart) -> None:
        cart.items.append("milk")
        cart.total += 2

    assert await agent.aupdate_session_state(buy) == {"items": ["milk"], "total": 2}
    with pytest.raises(InvalidStateError):
        await agent.aupdate_session_state(lambda cart: setattr(cart, "total", "dear"))
    assert await agent.aget_session_state() == {"items": ["milk"], "total": 2}


# Inside of tools


@pytest.mark.parametrize("touched", [True, False])
async def test_inside_of_a_tool_it_is_a_part_of_the_tools_transaction(touched: bool, db: Db) -> None:
    async def on_loop(run_context: RunContext) -> str:
        if touched:
            run_context.session_state["by"] = "tool"
        await agent.aupdate_session_state(add_one)
        await agent.aupdate_session_state(add_two)
        with pytest.raises(LookupError):
            await agent.aupdate_session_state(fail_later)
        with pytest.raises(LookupError):
            await agent.aupdate_session_state(fail)
        return repr(run_context.session_state)

    def in_thread(run_context: RunContext) -> str:
        if touched:
            run_context.session_state["by"] = "tool"
        state = agent.update_session_state(add_one)
        with pytest.raises(LookupError):
            agent.update_session_state(fail)
        with pytest.raises(UsageError, match="update_session_state needs a sync function"):
            agent.update_session_state(add_two)
        assert state == run_context.session_state
        return repr(state)

    agent = agent_with(on_loop, in_thread, db=db, session_id="s")
    output = await agent.arun("go")
    by = {"by": "tool"} if touched else {}
    assert tool_results(output) == {"on_loop": repr({**by, "n": 3}), "in_thread": repr({**by, "n": 4})}
    assert output.session_state == {**by, "n": 4}
    (first, second) = [entry.tool for entry in await agent.asession_state_history(path="n")]
    assert (first, second) == ("on_loop", "in_thread")


async def test_a_tool_that_fails_takes_the_update_with_it(db: Db) -> None:
    async def count(run_context: RunContext) -> str:
        await agent.aupdate_session_state(add_one)
        raise ValueError("after all")

    agent = agent_with(count, db=db, session_id="s")
    assert (await agent.arun("go")).session_state == {}


async def test_an_update_inside_of_an_update_is_a_part_of_it(db: Db) -> None:
    agent = keeper(db)

    async def outer(state: dict[str, Any]) -> None:
        add_one(state)
        await agent.aupdate_session_state(add_two)
        assert state == {"n": 3}
        assert await agent.aget_session_state() == {}
        with pytest.raises(LookupError):
            await agent.aupdate_session_state(fail)

    def outer_in_thread(state: dict[str, Any]) -> None:
        agent.update_session_state(add_one)
        add_one(state)

    assert await agent.aupdate_session_state(outer) == {"n": 3}
    assert await agent.aupdate_session_state(outer_in_thread) == {"n": 5}


async def test_a_run_inside_of_an_update_is_a_part_of_it(db: Db) -> None:
    def count(run_context: RunContext) -> str:
        add_one(run_context.session_state)
        return "ok"

    counter = agent_with(count, db=db, session_id="s")
    run_ids: list[str] = []

    async def outer(state: dict[str, Any]) -> None:
        add_one(state)
        run_ids.append((await counter.arun("go")).run_id)
        add_one(state)

    async def failing(state: dict[str, Any]) -> None:
        await outer(state)
        raise LookupError

    assert await keeper(db).aupdate_session_state(outer) == {"n": 3}
    assert await db.load_run(run_ids[0]) is not None
    with pytest.raises(LookupError):
        await keeper(db).aupdate_session_state(failing)
    assert await keeper(db).aget_session_state() == {"n": 3}
    assert await db.load_run(run_ids[1]) is None
