"""The team of the process that `test_crash.py` kills."""

from __future__ import annotations

from typing import Any

from kern.run import RunContext
from tests.databases import opened
from tests.played import agent_with, team_of


def write(run_context: RunContext) -> None:
    state = run_context.session_state
    count = state.get("count", 0)
    state["runs"] = {**state.get("runs", {}), run_context.parent_run_id: count}
    state["count"] = count + 1


def team_on(place: str) -> Any:
    """A team whose one member writes to the state that its team run has been there."""
    return team_of([agent_with(write, name="Writer")], db=opened(place), session_id="one")
