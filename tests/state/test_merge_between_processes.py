"""Two processes on one session: what a commit merges, and a log that stays exact.

Two registries of live sessions on one database are two processes, as far as sessions go; the last tests have
real ones.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonpatch import JsonPatch
from pydantic import BaseModel, model_validator

from kern import Agent, RunContext
from kern.db.base import Commit, Committed, Db, RunRow
from kern.db.in_memory import InMemoryDb
from kern.db.sqlite import SqliteDb
from kern.errors import InvalidStateError, SessionDeletedError, StoreError
from kern.run import SessionStateConflictEvent
from kern.runtime.change_rows import change_of
from kern.runtime.session import ANY_USER, LiveSession, LiveSessions
from kern.state import add, union
from kern.state.call_state import CallState
from kern.state.codec import decode, encode
from kern.state.model_state import ModelStateType, initial_state
from kern.state.patch import apply, invert, wire
from kern.state.shared_state import Author, Change
from kern.state.state_spec import StateSpec
from kern.state.transaction_block import TransactionBlock
from kern.testing import ScriptedModel, tool_call
from tests import processes
from tests.databases import opened
from tests.state.json_documents import near_states, text

SESSION = "s"


class HookedDb(InMemoryDb):
    """Calls `meanwhile` when a commit is written and its process does not know it yet."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def commit(self, commit: Commit) -> Committed:
        committed = await super().commit(commit)
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            await meanwhile()
        return committed


class Process:
    """What one process has of the session."""

    def __init__(self, db: Db, spec: StateSpec) -> None:
        self.db = db
        self.spec = spec
        self.sessions = LiveSessions()
        self._stack = AsyncExitStack()
        self.session: LiveSession
        self.seen: Any = None

    async def start(self) -> None:
        self._stack = AsyncExitStack()
        self.session = await self._stack.enter_async_context(
            self.sessions.use(self.db, SESSION, spec=self.spec, user_id=ANY_USER)
        )
        await self.session.migrate(self.spec)
        self.session.state.subscribe(self._hear, self._open)

    async def stop(self) -> None:
        await self._stack.aclose()
        assert len(self.sessions) == 0

    def _open(self, state: bytes, revision: int) -> None:
        self.seen, self.revision = decode(state), revision

    def _hear(self, change: Change) -> None:
        """What a consumer of the stream does, with a patch library of somebody else's."""
        assert change.revision >= self.revision
        self.seen, self.revision = JsonPatch(wire(change.patch)).apply(self.seen), change.revision

    async def edit(self, change: Callable[[dict[str, Any]], object], tool: str = "edit") -> None:
        session = self.session
        call = CallState(session.state, Author(tool=tool), session=session.key)
        async with TransactionBlock(call) as state:
            change(state)
        assert text(self.seen).encode() == session.state.text

    async def put(self, new: dict[str, Any]) -> None:
        def change(state: dict[str, Any]) -> None:
            state.clear()
            state.update(new)

        await self.edit(change)

    async def commit(self, *rows: RunRow) -> list[str]:
        conflicts = await self.session.commit(lambda _: rows)
        return [conflict.path for conflict in conflicts]

    @property
    def state(self) -> dict[str, Any]:
        return decode(self.session.state.text)


@asynccontextmanager
async def two(
    spec: StateSpec, other: StateSpec | None = None, db: Db | None = None
) -> AsyncIterator[tuple[Process, Process]]:
    shared = db or InMemoryDb()
    a, b = Process(shared, spec), Process(shared, other or spec)
    await a.start()
    await b.start()
    try:
        yield a, b
    finally:
        await a.stop()
        await b.stop()


async def stored(db: Db) -> dict[str, Any]:
    row = await db.load_session(SESSION)
    assert row is not None
    return decode(row.state)


async def check_log(db: Db, known: dict[int, bytes]) -> None:
    """The log leads from every state that was stored to the next, forwards and backwards."""
    row = await db.load_session(SESSION)
    assert row is not None
    changes = [change_of(change) for change in await db.load_changes(SESSION)]
    first = row.revision - len(changes)
    assert [change.revision for change in changes] == list(range(first + 1, row.revision + 1))
    state = decode(row.state)
    for change in reversed(changes):
        if change.revision in known:
            assert encode(state)[0] == known[change.revision]
        before = apply(state, invert(change.patch))
        assert text(JsonPatch(wire(change.patch)).apply(before)) == text(state)
        state = before
    if first in known:
        assert encode(state)[0] == known[first]


steps = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.one_of(
            st.tuples(st.just("put"), near_states),
            st.tuples(st.just("commit"), st.none()),
            st.tuples(st.just("put while it commits"), near_states),
            st.tuples(st.just("restart"), st.none()),
        ),
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(near_states, near_states, steps, st.sampled_from([{}, {"p": union, "q": add}]))
async def test_whatever_two_processes_do_the_log_is_exact(
    default: dict[str, Any], other: dict[str, Any], program: list[Any], policies: Any
) -> None:
    db = HookedDb()
    specs = [StateSpec(default=lambda: default), StateSpec(default=lambda: other)]
    known: dict[int, bytes] = {}
    async with two(*specs, db=db) as both:

        async def commit(process: Process) -> None:
            new = await db.load_session(SESSION) is None
            if new:
                known[0] = process.session.row.state
            await process.commit()
            row = await db.load_session(SESSION)
            assert row is not None
            known[row.revision] = row.state

        for index, (what, value) in program:
            process = both[index]
            if what == "put":
                await process.put(value)
            elif what == "commit":
                await commit(process)
            elif what == "restart":
                await process.stop()
                await process.start()
            else:

                async def meanwhile(process: Process = process, value: Any = value) -> None:
                    row = await db.load_session(SESSION)
                    assert row is not None
                    known[row.revision] = row.state
                    await process.put(value)

                db.meanwhile = meanwhile
                await commit(process)
                db.meanwhile = None
            taken, changes = await process.session.log()
            assert [c.revision for c in changes] == list(range(1, taken.revision + 1))
        for process in both:
            await commit(process)
            assert process.session.state.text == known[process.session.row.revision]
        await check_log(db, known)
        assert await stored(db) == both[1].state


async def test_disjoint_edits_of_both_survive() -> None:
    async with two(StateSpec(default=lambda: {"a": {"x": 1}, "items": ["milk"], "old": 1})) as (a, b):
        await a.edit(lambda s: (s["a"].update(y=2), s["items"].append("eggs")))
        await b.edit(lambda s: (s["a"].update(z=3), s["items"].insert(0, "tea"), s.pop("old")))
        assert await a.commit() == []
        assert await b.commit() == []
        assert await stored(b.db) == {"a": {"x": 1, "y": 2, "z": 3}, "items": ["tea", "milk", "eggs"]}
        assert a.state == {"a": {"x": 1, "y": 2}, "items": ["milk", "eggs"], "old": 1}
        await a.commit()
        assert a.state == b.state


async def test_both_create_the_session_from_one_default() -> None:
    async with two(StateSpec(default=lambda: {"count": 0, "name": "new"})) as (a, b):
        await a.edit(lambda s: s.update(count=1))
        await b.edit(lambda s: s.update(name="b"))
        assert await a.commit() == []
        assert await b.commit() == []
        assert await stored(b.db) == {"count": 1, "name": "b"}
        await check_log(b.db, {0: b'{"count":0,"name":"new"}', 1: b'{"count":1,"name":"new"}'})


async def test_without_changes_of_its_own_a_process_takes_what_is_stored() -> None:
    async with two(StateSpec(default=lambda: {"count": 0})) as (a, b):
        await a.commit()
        await b.commit()
        before = await a.db.load_session(SESSION)
        await a.edit(lambda s: s.update(count=5))
        await a.commit()
        await b.commit()
        after = await a.db.load_session(SESSION)
        assert b.state == {"count": 5}
        assert before is not None
        assert after is not None
        assert (before.version, before.revision, after.version, after.revision) == (1, 0, 2, 1)


async def test_a_true_conflict_is_kept_as_ours_and_told() -> None:
    async with two(StateSpec(default=lambda: {"city": "Rome"})) as (a, b):
        await a.edit(lambda s: s.update(city="Oslo"))
        await b.edit(lambda s: s.update(city="Bern"))
        assert await a.commit() == []
        assert await b.commit() == ["/city"]
        assert await stored(b.db) == {"city": "Bern"}
        await a.commit()
        assert a.state == {"city": "Bern"}


async def test_a_conflict_with_a_call_that_ends_while_its_run_commits_is_told_by_the_next_commit() -> None:
    db = HookedDb()
    async with two(StateSpec(default=lambda: {"n": 0, "m": 0}), db=db) as (a, b):
        await a.edit(lambda s: s.update(n=1))
        await a.commit()
        await b.edit(lambda s: s.update(m=1))
        db.meanwhile = lambda: b.edit(lambda s: s.update(n=2))
        assert await b.commit() == []
        assert b.state == {"n": 2, "m": 1}
        assert await b.commit() == ["/n"]
        assert await b.commit() == []
        assert await stored(db) == {"n": 2, "m": 1}


async def test_policies_count_and_unite() -> None:
    policies = {"count": add, "cart.tags": union}
    spec = StateSpec(default=lambda: {"count": 0, "cart": {"tags": []}}, policies=policies)
    async with two(spec) as (a, b):
        for process in (a, b):
            await process.edit(lambda s: (s.update(count=s["count"] + 1), s["cart"]["tags"].append("x")))
        assert await a.commit() == []
        assert await b.commit() == []
        assert await stored(b.db) == {"count": 2, "cart": {"tags": ["x"]}}


async def test_a_policy_that_fails_leaves_the_stored_state_alone() -> None:
    def never(base: Any, theirs: Any, ours: Any) -> Any:
        raise LookupError("no")

    async with two(StateSpec(default=lambda: {"n": 0}, policies={"n": never})) as (a, b):
        await a.edit(lambda s: s.update(n=1))
        await b.edit(lambda s: s.update(n=2))
        await a.commit()
        with pytest.raises(InvalidStateError, match=r"session_state/n: the merge policy never failed: no"):
            await b.commit()
        assert await stored(a.db) == {"n": 1}


async def test_a_session_that_was_deleted_meanwhile_does_not_come_back() -> None:
    async with two(StateSpec(default=lambda: {"n": 0})) as (a, b):
        await a.edit(lambda s: s.update(n=1))
        await a.commit()
        await b.commit()
        await b.edit(lambda s: s.update(n=2))
        await a.db.delete_session(SESSION)
        with pytest.raises(SessionDeletedError, match="'s' was deleted"):
            await b.commit()
        assert await b.db.load_session(SESSION) is None


async def test_a_session_that_was_deleted_and_made_anew_is_another_one() -> None:
    async with two(StateSpec(default=lambda: {"n": 0})) as (a, b):
        await a.edit(lambda s: s.update(n=1))
        await a.commit()
        await b.commit()
        await b.edit(lambda s: s.update(b=True))
        await a.db.delete_session(SESSION)
        third = Process(a.db, a.spec)
        await third.start()
        await third.edit(lambda s: s.update(n=7))
        await third.commit()
        await third.stop()
        with pytest.raises(SessionDeletedError):
            await b.commit()
        assert await stored(b.db) == {"n": 7}


async def test_a_commit_whose_answer_got_lost_is_not_made_twice() -> None:
    db = HookedDb()

    async def lost() -> None:
        raise StoreError("the connection broke")

    async with two(StateSpec(default=lambda: {"items": []}), db=db) as (a, b):
        await a.edit(lambda s: s["items"].append("milk"))
        db.meanwhile = lost
        with pytest.raises(StoreError):
            await a.commit()
        await b.commit()
        await b.edit(lambda s: s["items"].append("tea"))
        await b.commit()
        await a.edit(lambda s: s["items"].append("eggs"))
        await a.commit()
        assert await stored(db) == {"items": ["milk", "tea", "eggs"]}
        await check_log(db, {0: b'{"items":[]}', 1: b'{"items":["milk"]}'})


async def test_a_commit_that_was_not_written_is_made_by_the_next() -> None:
    class Down(InMemoryDb):
        down = False

        async def commit(self, commit: Commit) -> Committed:
            if self.down:
                raise StoreError("the disk is full")
            return await super().commit(commit)

    db = Down()
    async with two(StateSpec(default=lambda: {"n": 0}), db=db) as (a, _):
        await a.edit(lambda s: s.update(n=1))
        db.down = True
        with pytest.raises(StoreError):
            await a.commit()
        db.down = False
        await a.edit(lambda s: s.update(m=1))
        await a.commit()
        assert await stored(db) == {"n": 1, "m": 1}
        await check_log(db, {0: b'{"n":0}', 1: b'{"n":1}', 2: b'{"n":1,"m":1}'})


def run_row(data: bytes = b'{"content":"x"}') -> RunRow:
    return RunRow(
        run_id="r", session_id=SESSION, runner_id="a", status="COMPLETED", data=data, created_at=1.0
    )


async def test_a_repeated_commit_writes_nothing_and_keeps_what_came_since() -> None:
    async with two(StateSpec(default=lambda: {"n": 0})) as (a, b):
        await a.edit(lambda s: s.update(n=1))
        await a.commit(run_row())
        await b.commit()
        await b.edit(lambda s: s.update(theirs=1))
        await b.commit()
        await a.edit(lambda s: s.update(m=1))
        await a.commit(run_row())
        assert await stored(a.db) == {"n": 1, "theirs": 1}
        await a.commit()
        assert await stored(a.db) == {"n": 1, "theirs": 1, "m": 1}
        await check_log(a.db, {0: b'{"n":0}', 1: b'{"n":1}', 2: b'{"n":1,"theirs":1}'})


async def test_another_run_under_the_same_id_is_an_error_not_a_silent_nothing() -> None:
    async with two(StateSpec()) as (a, b):
        await a.commit(run_row())
        with pytest.raises(StoreError, match="'r' is already stored"):
            await b.commit(run_row(b'{"content":"y"}'))


class Purse(BaseModel):
    coins: int = 0
    parts: list[int] = []

    @model_validator(mode="after")
    def adds_up(self) -> Purse:
        if sum(self.parts) != self.coins:
            raise ValueError("the parts do not add up")
        return self


async def test_a_merge_whose_parts_do_not_fit_together_takes_ours_whole() -> None:
    spec = StateSpec(default=lambda: initial_state(Purse), state_type=ModelStateType(Purse))
    async with two(spec) as (a, b):
        await a.edit(lambda s: (s["parts"].append(5), s.update(coins=5)))
        await b.edit(lambda s: (s["parts"].append(7), s.update(coins=7)))
        await a.commit()
        assert await b.commit() == ["/coins", ""]
        assert await stored(b.db) == {"coins": 7, "parts": [7]}


def cents(state: dict[str, Any]) -> dict[str, Any]:
    return {**state, "price": state["price"] * 100}


async def test_two_processes_that_migrate_at_once_do_it_once() -> None:
    old = StateSpec(default=lambda: {"price": 5, "by": []})
    new = replace(old, migrations=[cents], policies={"price": add})
    db = InMemoryDb()
    first = Process(db, old)
    await first.start()
    await first.commit()
    await first.stop()
    async with two(new, db=db) as (a, b):
        await a.edit(lambda s: s["by"].append("a"))
        await b.edit(lambda s: s["by"].append("b"))
        assert await a.commit() == []
        assert await b.commit() == []
        row = await db.load_session(SESSION)
        assert row is not None
        assert (decode(row.state), row.state_version) == ({"price": 500, "by": ["a", "b"]}, 1)
        tools = [change.tool for change in await db.load_changes(SESSION)]
        assert tools == ["state_migrations[0]", "edit", "edit"]
        await check_log(db, {0: b'{"price":5,"by":[]}', 1: b'{"price":500,"by":[]}'})


async def test_what_an_older_process_writes_meanwhile_is_migrated_too() -> None:
    old = StateSpec(default=lambda: {"price": 5})
    async with two(old, replace(old, migrations=[cents])) as (a, b):
        await a.commit()
        await b.stop()
        await b.start()
        await a.edit(lambda s: s.update(price=6))
        await a.commit()
        await b.edit(lambda s: s.update(sold=True))
        await b.commit()
        assert await stored(b.db) == {"price": 600, "sold": True}
        await check_log(b.db, {0: b'{"price":5}', 1: b'{"price":6}', 2: b'{"price":600}'})


async def test_a_run_stores_its_conflicts_and_streams_them(tmp_path: Path) -> None:
    db = SqliteDb(tmp_path / "a.db")
    other = Process(db, StateSpec(default=lambda: {"city": "Rome"}))

    async def move(run_context: RunContext) -> str:
        run_context.session_state["city"] = "Bern"
        await other.start()  # in the middle of the run, another process
        await other.edit(lambda s: s.update(city="Oslo"))
        await other.commit()
        await other.stop()
        return "moved"

    agent = Agent(
        model=ScriptedModel([tool_call("move"), "done"]),
        tools=[move],
        db=db,
        session_id=SESSION,
        session_state={"city": "Rome"},
    )
    stream = agent.arun("go", stream=True, stream_events=True, yield_run_output=True)
    *events, output = [item async for item in stream]
    conflict = {"path": "/city", "base": "Rome", "theirs": "Oslo", "ours": "Bern"}
    assert output.state_conflicts == [conflict]
    told = [event for event in events if isinstance(event, SessionStateConflictEvent)]
    assert [(e.path, e.base, e.theirs, e.ours) for e in told] == [("/city", "Rome", "Oslo", "Bern")]
    row = await agent.aget_run_output(output.run_id)
    assert row is not None
    assert row.state_conflicts == [conflict]
    assert await stored(db) == {"city": "Bern"}


WORKER = """
    import asyncio, sys
    from kern import Agent, RunContext
    from kern.db.sqlite import SqliteDb
    from kern.state import add, union
    from kern.testing import FunctionModel, tool_call
    from tests.databases import opened

    file, name, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])

    async def note(run_context: RunContext) -> str:
        state = run_context.session_state
        state["count"] += 1
        state["log"].append(f"{name} {state.setdefault(name, 0)}")
        state[name] += 1
        state["tags"] = sorted({*state["tags"], name})
        return "noted"

    def play(request):
        return "done" if request.messages[-1].role == "tool" else tool_call("note")

    async def main():
        agent = Agent(
            name=name, model=FunctionModel(play), tools=[note], db=opened(file), session_id="s",
            session_state={"count": 0, "log": [], "tags": []}, merge={"count": add, "tags": union},
        )
        for _ in range(runs):
            await agent.arun("go")

    asyncio.run(main())
"""


async def test_real_processes_lose_nothing_and_leave_an_exact_log(place: str) -> None:
    runs, names = 15, ["ann", "bob", "cid"]
    workers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", textwrap.dedent(WORKER), place, name, str(runs)),
            stderr=subprocess.PIPE,
            env=processes.environment(),
        )
        for name in names
    ]
    for worker in workers:
        _, errors = await worker.communicate()
        assert worker.returncode == 0, errors.decode()
    db = opened(place)
    state = await stored(db)
    assert state["count"] == runs * len(names)
    assert sorted(state["log"]) == sorted(f"{name} {i}" for name in names for i in range(runs))
    assert state["tags"] == names or sorted(state["tags"]) == names
    assert [state[name] for name in names] == [runs] * len(names)
    row = await db.load_session("s")
    assert row is not None
    assert row.revision == runs * len(names)
    await check_log(db, {0: b'{"count":0,"log":[],"tags":[]}', row.revision: row.state})
    agent = Agent(db=db, session_id="s")
    history = await agent.asession_state_history(path="count")
    assert [(entry.old, entry.new) for entry in history][-1][1] == runs * len(names)
