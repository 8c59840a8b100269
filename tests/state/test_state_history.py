"""Who wrote what, the state as it was, and forks of it: all of it read from the log."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kern import Agent, RunContext
from kern.db.in_memory import InMemoryDb
from kern.db.sqlite import SqliteDb
from kern.errors import SessionOwnershipError, UsageError
from kern.state import MISSING, HistoryEntry
from kern.state.history import entries, first_known, state_at, version_at
from kern.state.patch import diff
from kern.state.pointer import lookup
from kern.state.shared_state import Author, Change
from kern.testing import FunctionModel
from tests.played import agent_with, execution_of, team_of
from tests.state.json_documents import near_states, text


def add_milk(run_context: RunContext) -> str:
    run_context.session_state.setdefault("shopping_list", []).append("milk")
    return "added"


def count(run_context: RunContext) -> str:
    run_context.session_state["count"] = run_context.session_state.get("count", 0) + 1
    return "counted"


def told(history: list[HistoryEntry]) -> list[tuple[int, str | None, Any, Any]]:
    return [(entry.revision, entry.tool, entry.old, entry.new) for entry in history]


async def test_an_entry_tells_who_wrote_what_and_when() -> None:
    buyer = agent_with(add_milk, name="Buyer")
    team = team_of([buyer], name="Shop", session_id="s")
    output = await team.arun("go")
    (entry,) = await team.asession_state_history("s", "/shopping_list")
    (member,) = output.member_responses
    assert entry == HistoryEntry(
        revision=1,
        time=entry.time,
        agent_path=("Shop", "Buyer"),
        tool="add_milk",
        tool_call_id=execution_of(member, "add_milk").tool_call_id,
        run_id=member.run_id,
        old=MISSING,
        new=["milk"],
    )
    assert output.created_at <= entry.time < output.created_at + 30
    assert entry.to_dict() == {
        "revision": 1,
        "time": entry.time,
        "agent_path": ["Shop", "Buyer"],
        "tool": "add_milk",
        "tool_call_id": entry.tool_call_id,
        "run_id": member.run_id,
        "new": ["milk"],
    }


async def test_a_path_tells_of_that_value_only() -> None:
    agent = agent_with(add_milk, count, session_id="s")
    await agent.arun("go")
    await agent.aupdate_session_state({"shopping_list": ["milk", "eggs"], "a.b": {"c": 1}})
    for path in ("shopping_list", "/shopping_list"):
        assert told(await agent.asession_state_history(path=path)) == [
            (1, "add_milk", MISSING, ["milk"]),
            (3, "update_session_state", ["milk"], ["milk", "eggs"]),
        ]
    assert told(await agent.asession_state_history(path="/shopping_list/1")) == [
        (3, "update_session_state", MISSING, "eggs")
    ]
    assert told(await agent.asession_state_history(path="/a.b/c")) == [
        (3, "update_session_state", MISSING, 1)
    ]
    assert [entry.revision for entry in await agent.asession_state_history()] == [1, 2, 3]
    assert await agent.asession_state_history(path="nothing") == []
    assert await agent.asession_state_history("unknown") == []


async def test_what_is_told_can_be_changed_without_harm() -> None:
    agent = agent_with(add_milk, session_id="s")
    await agent.arun("go")
    (entry,) = await agent.asession_state_history(path="shopping_list")
    entry.new.append("spoilt")
    assert await agent.aget_session_state() == {"shopping_list": ["milk"]}


async def test_the_state_at_every_revision_in_both_colours() -> None:
    agent = agent_with(count, session_id="s", session_state={"count": 10})
    for _ in range(3):
        await agent.arun("go")

    def ask() -> list[dict[str, Any]]:
        states = [agent.get_session_state("s", revision=revision) for revision in range(4)]
        assert len(agent.session_state_history("s", "count")) == 3
        assert agent.get_session_state(agent.fork_session("s", 2)) == {"count": 12}
        return states

    assert await asyncio.to_thread(ask) == [{"count": 10}, {"count": 11}, {"count": 12}, {"count": 13}]


@pytest.mark.parametrize("revision", [3, 1000])
async def test_an_unknown_revision_is_an_error_that_names_the_known_ones(revision: int) -> None:
    agent = agent_with(count, session_id="s")
    for _ in range(2):
        await agent.arun("go")
    message = f"session 's' has no revision {revision}; its revisions are 0 to 2"
    with pytest.raises(UsageError, match=message):
        await agent.aget_session_state(revision=revision)
    with pytest.raises(UsageError, match=message):
        await agent.afork_session(revision=revision)


async def test_a_session_that_is_not_there_has_its_start_only() -> None:
    agent = Agent(session_state={"a": 1})
    assert await agent.aget_session_state("new", revision=0) == {"a": 1}
    with pytest.raises(UsageError, match="its revisions are 0 to 0"):
        await agent.aget_session_state("new", revision=1)
    with pytest.raises(UsageError, match="no session 'new' to fork"):
        await agent.afork_session("new")


@asynccontextmanager
async def in_the_middle_of_a_run(agent_options: dict[str, Any]) -> AsyncIterator[Agent]:
    """A run that has counted, and waits for its model."""
    counted, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> str:
        counted.set()
        await go_on.wait()
        return "waited"

    agent = agent_with(count, wait, session_id="s", **agent_options)
    run = asyncio.create_task(agent.arun("go"))
    await counted.wait()
    while not (await agent.aget_session_state()).get("count"):
        await asyncio.sleep(0)
    try:
        yield agent
    finally:
        go_on.set()
        await run


async def test_a_run_in_progress_is_part_of_the_history(tmp_path: Path) -> None:
    async with in_the_middle_of_a_run({"db": SqliteDb(tmp_path / "a.db")}) as agent:
        assert await agent.aget_session() is None
        assert told(await agent.asession_state_history(path="count")) == [(1, "count", MISSING, 1)]
        assert await agent.aget_session_state(revision=0) == {}
        assert await agent.aget_session_state(revision=1) == {"count": 1}
        fork = await agent.afork_session()
        assert await agent.aget_session_state(fork) == {"count": 1}
    assert told(await agent.asession_state_history(path="count")) == [(1, "count", MISSING, 1)]


async def test_a_fork_starts_anew_and_leaves_its_origin_alone() -> None:
    agent = agent_with(count, session_id="s", user_id="ann")
    for _ in range(3):
        await agent.arun("go")
    fork = await agent.afork_session(revision=1)
    assert await agent.aget_session_state(fork, user_id="ann") == {"count": 1}
    assert await agent.aget_session_state(fork, revision=0) == {"count": 1}
    assert await agent.asession_state_history(fork) == []
    assert await agent.aget_last_run_output(fork) is None
    await agent.arun("go", session_id=fork)
    assert told(await agent.asession_state_history(fork, "count")) == [(1, "count", 1, 2)]
    assert await agent.aget_session_state() == {"count": 3}
    with pytest.raises(SessionOwnershipError):
        await agent.aget_session_state(fork, user_id="mallory")


async def test_a_run_costs_the_same_however_long_the_history_is() -> None:
    """Nothing of the log is read by a run, and what one writes does not grow."""

    class Watched(InMemoryDb):
        read = 0

        async def load_changes(self, session_id: str, *, after: int = 0) -> Any:
            changes = await super().load_changes(session_id, after=after)
            self.read += len(changes)
            return changes

    db = Watched()
    agent = Agent(db=db, session_id="s", model=FunctionModel(lambda _: "ok"))
    for number in range(50):
        await agent.aupdate_session_state({"n": number})
    await agent.arun("go")
    assert db.read == 0
    assert len({len(change.patch) for change in await db.load_changes("s")}) <= 4
    db.read = 0
    assert await agent.aget_session_state(revision=48) == {"n": 47}
    assert db.read == 2


def log_of(states: list[Any]) -> list[Change]:
    author = Author(tool="t")
    return [
        Change(revision, diff(before, after), author, float(revision))
        for revision, (before, after) in enumerate(itertools.pairwise(states), 1)
    ]


@settings(deadline=None)
@given(st.lists(near_states, min_size=1, max_size=8), st.sampled_from(["", "/p", "/q/p", "/p/0", "/a~1b"]))
def test_any_log_leads_back_to_every_state_and_tells_every_change(states: list[Any], path: str) -> None:
    changes = log_of(states)
    for revision, state in enumerate(states):
        assert text(state_at(states[-1], changes[revision:], revision)) == text(state)
        assert text(state_at(states[-1], changes, revision)) == text(state)
    values = [lookup(state, path) for state in states]
    expected = [
        (revision, shown(old), shown(new))
        for revision, (old, new) in enumerate(itertools.pairwise(values), 1)
        if shown(old) != shown(new)
    ]
    found = entries(states[-1], changes, path)
    assert [(entry.revision, shown(entry.old), shown(entry.new)) for entry in found] == expected


def shown(value: Any) -> str:
    return "-" if value is MISSING else text(value)


def test_a_log_with_a_gap_is_known_from_behind_it() -> None:
    changes = log_of([{"a": n} for n in range(6)])
    assert first_known(changes, 5) == 0
    assert first_known(changes[:1] + changes[3:], 5) == 3
    assert first_known([], 5) == 5


def test_the_version_before_a_migration_is_its_index() -> None:
    change = log_of([{}, {"a": 1}])[0]
    migrations = [Change(n, [], Author(tool=f"state_migrations[{n}]")) for n in (1, 2)]
    assert version_at(3, [change]) == 3
    assert version_at(3, [change, *migrations]) == 1
