"""The task list lies in the session state, where tools, members and the model itself write what they like."""

from __future__ import annotations

from typing import Any

import pytest

from kern import Agent, RunStatus, Team
from kern.db.in_memory import InMemoryDb
from kern.testing import ScriptedModel, tool_call

GOOD = {
    "id": 7,
    "title": "cook",
    "description": "",
    "depends_on": [],
    "assignee": "m",
    "status": "completed",
    "result": {"dish": "soup"},
}
ODD: list[Any] = [
    None,
    1,
    "x",
    [],
    {},
    [1],
    {"id": 1},
    {"title": "a"},
    {"id": "1", "title": "a"},
    {"id": True, "title": "a"},
    {"id": 1.5, "title": "a"},
    {"id": 1, "title": ["a"]},
    {"id": 1, "title": "a"},
    {"id": 1, "title": "a", "status": "done"},
    {"id": 1, "title": "a", "status": ["open"]},
    {"id": 1, "title": "a", "depends_on": "all"},
    {"id": 1, "title": "a", "depends_on": [1]},
    {"id": 1, "title": "a", "depends_on": [[]]},
    {"id": 1, "title": "a", "depends_on": [99]},
    {"id": 1, "title": "a", "assignee": ["m"]},
    {"id": 1, "title": "a", "assignee": "nobody"},
    {"id": 1, "title": "a", "description": None},
    {"id": 1, "title": "a", "status": "running", "run_id": {"a": 1}},
    {"id": -(10**30), "title": "a"},
]


def team_of(*answers: Any, **options: Any) -> Team:
    members = [Agent(id="m", model=ScriptedModel(["done"] * 5))]
    return Team(
        members,
        **{
            "id": "t",
            "mode": "tasks",
            "session_id": "s",
            "enable_agentic_state": True,
            "max_iterations": 1,
            "model": ScriptedModel(list(answers)),
            **options,
        },
    )


@pytest.mark.parametrize("entry", ODD)
@pytest.mark.parametrize("also", [[], [GOOD]])
async def test_an_odd_entry_ends_no_run_and_stays_where_it_is(entry: Any, also: list[Any]) -> None:
    write = tool_call("update_session_state", session_state_updates={"team_tasks": {"t": [entry, *also]}})
    db = InMemoryDb()
    assert (await team_of(write, "done", "done", db=db).arun("first")).status is RunStatus.completed
    team = team_of(
        tool_call("list_tasks"),
        tool_call("create_task", title="wash", member_id="m"),
        tool_call("execute_tasks", task_ids=[1]),
        tool_call("execute_tasks", task_ids=[2, 8]),
        tool_call("assign_task", task_id=1, member_id="m"),
        tool_call("complete_task", task_id=1, result="x"),
        "hello again",
        "hello again",
        db=db,
    )
    output = await team.arun("hello")
    assert output.status is RunStatus.completed
    assert output.session_state is not None
    kept = output.session_state["team_tasks"]["t"]
    assert len(kept) == 2 + len(also)
    assert kept[-1]["title"] == "wash"
    if not (isinstance(entry, dict) and isinstance(entry.get("title"), str)):
        assert kept[0] == entry
    else:
        assert len({repr(task.get("id")) for task in kept}) == len(kept)


@pytest.mark.parametrize("value", [None, 1, "x", [], [1], {"t": "x"}, {"t": {"a": 1}}, {"t": None}])
async def test_something_else_in_the_list_s_place_ends_no_run(value: Any) -> None:
    write = tool_call("update_session_state", session_state_updates={"team_tasks": value})
    team = team_of(
        write, "done", tool_call("list_tasks"), tool_call("create_task", title="wash"), "hello again"
    )
    assert (await team.arun("first")).content == "done"
    output = await team.arun("hello")
    assert output.content == "hello again"
    assert output.tools[1].tool_call_error
    assert "remove it, or use another key for it" in (output.tools[1].result or "")
    assert output.session_state is not None
    assert output.session_state["team_tasks"] == value


async def test_a_result_that_is_no_text_is_told_as_json() -> None:
    member = ScriptedModel(["washed"])
    wash = {"id": 8, "title": "wash", "depends_on": [7], "assignee": "m"}
    team = Team(
        [Agent(id="m", model=member)],
        id="t",
        mode="tasks",
        session_state={"team_tasks": {"t": [GOOD, wash]}},
        model=ScriptedModel([tool_call("execute_tasks", task_ids=[8]), "done"]),
    )
    await team.arun("go")
    assert '{"dish":"soup"}' in (member.requests[0].messages[-1].content or "")
