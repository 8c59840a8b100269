"""How many files and functions of the package a run goes through: each call on the way costs every run.

The bounds are what was reached. One that is passed says that something was put on the way of runs that do not
need it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

import kern
from kern import Agent, RunContext, Team
from kern.models.base import ModelRequest, ModelResponse
from kern.testing import FunctionModel, tool_call

HOME = str(Path(kern.__file__).parent) + "/"
TESTING = f"{HOME}testing/"


def count_up(run_context: RunContext) -> str:
    """Count."""
    run_context.session_state["n"] += 1
    return "counted"


def plain() -> Agent | Team:
    return Agent(name="Plain", model=FunctionModel(lambda request: "Hello."))


def with_state_tool() -> Agent | Team:
    def play(request: ModelRequest) -> str | ModelResponse:
        return "done" if request.messages[-1].role == "tool" else tool_call("count_up")

    return Agent(name="Tool", model=FunctionModel(play), tools=[count_up], session_state={"n": 0})


def team() -> Agent | Team:
    def lead(request: ModelRequest) -> str | ModelResponse:
        if request.messages[-1].role == "tool":
            return "done"
        return tool_call("delegate_task_to_member", member_id="clerk", task="work")

    clerk = Agent(name="Clerk", id="clerk", model=FunctionModel(lambda request: "worked"))
    return Team(name="Team", model=FunctionModel(lead), members=[clerk])


@pytest.mark.parametrize(
    ("make", "most_files", "most_functions"),
    [(plain, 25, 120), (with_state_tool, 46, 207), (team, 38, 206)],
    ids=["plain", "tool", "team"],
)
async def test_a_run_goes_through_few_functions(
    make: Callable[[], Agent | Team], most_files: int, most_functions: int
) -> None:
    asked = make()
    for _ in range(3):  # what is made once is made by now
        await asked.arun("Hi", session_id="s")
    seen: set[tuple[str, str]] = set()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(HOME) and not name.startswith(TESTING):
            seen.add((name.removeprefix(HOME), frame.f_code.co_qualname))

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        await asked.arun("Hi", session_id="s")
    finally:
        sys.setprofile(before)
    files = {name for name, _ in seen}
    assert len(files) <= most_files, sorted(files)
    assert len(seen) <= most_functions, sorted(seen)
