"""Ids, names and paths are checked where they are passed: no method fails later, or in a foreign error."""

from __future__ import annotations

import random
import string
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, RunContext, RunStatus, Team, tool
from kern._ids import MOST_BYTES
from kern.db import InMemoryDb, SqliteDb
from kern.db.base import Db
from kern.durable import DbJournal
from kern.errors import UsageError
from kern.testing import FunctionModel, tool_call
from tests.databases import KINDS, opened, place_of

Door = Callable[[Agent, Any], Any]


async def first(events: Any) -> None:
    async for _ in events:
        return


IDS: dict[str, Door] = {
    "arun session_id": lambda agent, value: agent.arun("q", session_id=value),
    "arun user_id": lambda agent, value: agent.arun("q", session_id="s", user_id=value),
    "arun run_id": lambda agent, value: agent.arun("q", session_id="s", run_id=value),
    "astart run_id": lambda agent, value: agent.astart("q", session_id="s", run_id=value),
    "acontinue_run": lambda agent, value: agent.acontinue_run(run_id=value, user_id="u"),
    "astart_continuation": lambda agent, value: agent.astart_continuation(run_id=value, user_id="u"),
    "aget_session": lambda agent, value: agent.aget_session(value),
    "aget_session user_id": lambda agent, value: agent.aget_session("s", user_id=value),
    "aget_session_messages": lambda agent, value: agent.aget_session_messages(value),
    "alist_sessions": lambda agent, value: agent.alist_sessions(user_id=value),
    "alist_runs session_id": lambda agent, value: agent.alist_runs(session_id=value),
    "alist_runs user_id": lambda agent, value: agent.alist_runs(user_id=value),
    "alist_runs before": lambda agent, value: agent.alist_runs(before=value),
    "aget_run_output user_id": lambda agent, value: agent.aget_run_output("R", user_id=value),
    "acancel_run user_id": lambda agent, value: agent.acancel_run("R", user_id=value),
    "aset_session_name session_id": lambda agent, value: agent.aset_session_name("x", value),
    "aget_session_state": lambda agent, value: agent.aget_session_state(value),
    "aupdate_session_state": lambda agent, value: agent.aupdate_session_state({"n": 1}, value),
    "afork_session": lambda agent, value: agent.afork_session(value),
    "adelete_session": lambda agent, value: agent.adelete_session(value),
}
"""Where an id is passed that may be None."""

NEEDED: dict[str, Door] = {
    "aget_run_output": lambda agent, value: agent.aget_run_output(value),
    "acancel_run": lambda agent, value: agent.acancel_run(value),
    "follow": lambda agent, value: first(agent.follow(value)),
    "adelete_user": lambda agent, value: agent.adelete_user(value),
    "forget": lambda agent, value: DbJournal(agent.db or InMemoryDb()).forget(value),
}
"""Where an id is passed that may not be None."""

TEXTS: dict[str, Door] = {
    "aset_session_name": lambda agent, value: agent.aset_session_name(value, "s"),
    "asession_state_history": lambda agent, value: agent.asession_state_history("s", value),
}

NO_TEXTS: list[Any] = [b"x", 5, True, 1.5, ["a"], {"a": 1}, object(), "a\0b", "\ud800"]
NO_IDS: list[Any] = [*NO_TEXTS, "x" * (MOST_BYTES + 1), "ä" * (MOST_BYTES // 2 + 1)]
CASES = [
    *((door, value) for door in IDS.values() for value in NO_IDS),
    *((door, value) for door in NEEDED.values() for value in (*NO_IDS, None)),
    *((door, value) for door in TEXTS.values() for value in (*NO_TEXTS, None)),
]


async def test_what_is_no_id_is_refused_by_every_method(tmp_path: Path) -> None:
    db = SqliteDb(tmp_path / "a.db")
    asked = 0

    def play(request: object) -> str:
        nonlocal asked
        asked += 1
        return "answer"

    agent = Agent(id="a", model=FunctionModel(play), db=db)
    await agent.arun("q", session_id="s", run_id="R", user_id=None)
    for door, value in CASES:
        with pytest.raises(UsageError, match=r"must be|an id may have|contains"):
            result = door(agent, value)
            assert isinstance(result, Awaitable)
            await result
    assert asked == 1
    await db.aclose()


@pytest.mark.parametrize("limit", ["5", -1, 0, True, 1.5, None, 10**30])
async def test_a_limit_of_unfinished_runs_is_a_number(limit: Any) -> None:
    with pytest.raises(UsageError, match="limit must be a whole number"):
        await DbJournal(InMemoryDb()).unfinished(limit=limit)


@pytest.mark.parametrize("parameter", ["id", "name", "session_id", "user_id"])
def test_an_agent_has_no_id_that_is_too_long(parameter: str) -> None:
    with pytest.raises(UsageError, match="bytes in UTF-8"):
        agent_of({parameter: "ä" * MOST_BYTES})


def agent_of(keywords: Any) -> Agent:
    return Agent(**keywords)


def test_a_long_name_is_no_id_if_there_is_one() -> None:
    assert Agent(id="a", name="ä" * MOST_BYTES).id == "a"


@pytest.mark.parametrize("journal", [False, True], ids=["plain", "journal"])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_longest_ids_are_taken_by_every_database(
    kind: str, journal: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    db: Db = InMemoryDb() if kind == "memory" else opened(place_of(kind, tmp_path, request))
    session, user, run, team_id, member_id = (longest(seed) for seed in range(5))

    @tool
    def note(run_context: RunContext[Any]) -> str:
        """Note."""
        run_context.session_state["n"] = 1
        return "noted"

    def work(request: Any) -> Any:
        return "done" if request.messages[-1].role == "tool" else tool_call("note")

    def lead(request: Any) -> Any:
        if request.messages[-1].role == "tool":
            return "end"
        return tool_call("delegate_task_to_member", member_id=member_id, task="work")

    member = Agent(id=member_id, model=FunctionModel(work), tools=[note])
    steps = DbJournal(db) if journal else None
    team = Team([member], id=team_id, model=FunctionModel(lead), db=db, journal=steps)
    output = await team.arun("q", session_id=session, user_id=user, run_id=run)
    assert (output.status, output.content) == (RunStatus.completed, "end")
    assert await team.aset_session_name("x" * 10_000, session)
    stored = await team.aget_run_output(run, user_id=user)
    assert stored is not None
    assert stored.content == "end"
    assert len(await team.alist_runs(session_id=session, user_id=user)) == 1
    await team.acancel_run(longest(9), user_id=user)
    assert [entry.revision for entry in await team.asession_state_history(session)]
    assert await team.adelete_session(session, user_id=user)
    await db.aclose()


def longest(seed: int) -> str:
    """An id of the greatest length that no database can make shorter."""
    letters = random.Random(seed)
    return "".join(letters.choice(string.ascii_letters + string.digits) for _ in range(MOST_BYTES))
