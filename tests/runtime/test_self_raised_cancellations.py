"""A CancelledError that code raises by itself, though nobody has cancelled the run, is its error."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from kern import Agent, RunContext, RunStatus, Team
from kern.errors import HookError, KernError
from kern.testing import FunctionModel, ScriptedModel, tool_call


async def gives_up(*_: Any, **__: Any) -> str:
    await asyncio.sleep(0)
    raise asyncio.CancelledError


def hook() -> None:
    raise asyncio.CancelledError


async def instructions(run_context: RunContext) -> str:
    return await gives_up()


PLACES: dict[str, tuple[Callable[[], Agent], type[KernError]]] = {
    "pre-hook": (lambda: Agent(model=ScriptedModel(["x"]), pre_hooks=[hook]), HookError),
    "post-hook": (lambda: Agent(model=ScriptedModel(["x"]), post_hooks=[hook]), HookError),
    "instructions": (lambda: Agent(model=ScriptedModel(["x"]), instructions=instructions), KernError),
    "model": (lambda: Agent(model=FunctionModel(gives_up)), KernError),
}


@pytest.mark.parametrize("place", PLACES)
async def test_it_is_an_error_of_the_run(place: str) -> None:
    make, kind = PLACES[place]
    with pytest.raises(kind, match="though nobody has cancelled the run") as caught:
        await make().arun("go")
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)
    assert caught.value.run_output is not None
    assert caught.value.run_output.status == RunStatus.error
    async with asyncio.TaskGroup() as group:  # a group would end such a task in silence
        task = group.create_task(_caught(make()))
    assert isinstance(task.result(), kind)


async def _caught(agent: Agent) -> Exception | None:
    try:
        await agent.arun("go")
    except KernError as error:
        return error
    return None


async def test_a_cancellation_of_the_task_stays_one() -> None:
    async def waits(request: Any) -> str:
        begun.set()
        await asyncio.sleep(60)
        return ""

    begun = asyncio.Event()
    task = asyncio.create_task(Agent(model=FunctionModel(waits)).arun("go"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def _members() -> list[Agent]:
    return [
        Agent(id="v", model=FunctionModel(gives_up)),
        Agent(id="s", model=FunctionModel(lambda request: "a paid answer")),
    ]


async def test_a_member_that_raises_it_leaves_its_siblings_their_answers() -> None:
    leader = ScriptedModel([tool_call("delegate_task_to_members", task="x"), "done"])
    output = await Team(_members(), mode="broadcast", model=leader).arun("go")
    (call,) = output.tools
    assert "a paid answer" in (call.result or "")
    assert "v failed" in (call.result or "")
    assert [member.status.value for member in output.member_responses] == ["ERROR", "COMPLETED"]


async def test_a_base_exception_of_a_member_comes_as_itself() -> None:
    class OddError(BaseException):
        pass

    def odd(request: Any) -> str:
        raise OddError

    leader = ScriptedModel([tool_call("delegate_task_to_members", task="x"), "done"])
    members = [Agent(id="o", model=FunctionModel(odd)), *_members()[1:]]
    with pytest.raises(OddError):
        await Team(members, mode="broadcast", model=leader).arun("go")


async def test_each_task_gets_its_outcome() -> None:
    leader = ScriptedModel(
        [
            tool_call("create_task", title="A", member_id="v"),
            tool_call("create_task", title="B", member_id="s"),
            tool_call("execute_tasks", task_ids=[1, 2]),
            "done",
        ]
    )
    team = Team(_members(), id="t", mode="tasks", model=leader)
    output = await team.arun("go")
    assert output.session_state is not None
    tasks = output.session_state["team_tasks"]["t"]
    assert [(task["status"], "a paid answer" in task["result"]) for task in tasks] == [
        ("failed", False),
        ("completed", True),
    ]


async def test_a_task_that_is_removed_while_it_runs_does_not_take_the_others_along() -> None:
    def remove(run_context: RunContext) -> str:
        """Remove the second task."""
        tasks = run_context.session_state["team_tasks"]["t"]
        tasks[:] = [task for task in tasks if task["id"] != 2]
        return "removed"

    leader = ScriptedModel(
        [
            tool_call("create_task", title="A", member_id="r"),
            tool_call("create_task", title="B", member_id="s"),
            tool_call("execute_tasks", task_ids=[1, 2]),
            "done",
        ]
    )
    remover = Agent(id="r", model=ScriptedModel([tool_call("remove"), "all removed"]), tools=[remove])
    output = await Team([remover, *_members()[1:]], id="t", mode="tasks", model=leader).arun("go")
    assert output.session_state is not None
    (task,) = output.session_state["team_tasks"]["t"]
    assert (task["status"], task["result"]) == ("completed", "all removed")
    assert "a paid answer" in (output.tools[2].result or "")
