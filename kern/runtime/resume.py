"""A paused run, from its rows back to where it stopped."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pydantic_core import from_json

from kern.db.base import RunRow
from kern.errors import UsageError
from kern.messages import Message
from kern.run.output import RunOutput, RunStatus, TeamRunOutput, output_from_dict
from kern.run.requirement import RunRequirement
from kern.runtime.run import Run, Tree
from kern.runtime.spec import RunInput, RunnerSpec, RunRequest
from kern.usage import Metrics

CLAIM_SECONDS = 600.0
"""How long a run that goes on is kept from being continued elsewhere, should its process die."""


def row_extras(run: Run) -> dict[str, Any]:
    """What the row of a run holds beside its output: of a paused one, all that it takes to go on."""
    extras: dict[str, Any] = {}
    if run.output.status is RunStatus.paused:
        messages = [message.to_dict() for message in run.messages]
        extras["paused"] = {"messages": messages, "own": run.own.to_dict()}
    if run.spec.stores_children:
        extras["member_responses"] = [child.output.to_dict() for child in run.children]
    return extras


@asynccontextmanager
async def claimed(request: RunRequest) -> AsyncIterator[None]:
    """A paused run goes on in one place only, whatever processes try.

    Raises:
        UsageError: It goes on somewhere else already.
    """
    if request.resume is None:
        yield
        return
    owner, name = str(uuid.uuid4()), f"run:{request.run_id}"
    if not await request.db.acquire_lease(name, owner, CLAIM_SECONDS):
        raise UsageError(f"run {request.run_id!r} is being continued already")
    try:
        yield
    finally:
        await request.db.release_lease(name, owner)


async def restore(tree: Tree) -> Run:
    """The top-level run of a request to go on, with the members' runs below it.

    Raises:
        UsageError: There is no such run, it does not wait, or an answer is lacking or for another run.
    """
    request = tree.request
    assert request.resume is not None
    row = await request.db.load_run(request.run_id)
    if row is None or row.session_id != request.session_id:
        raise UsageError(f"no run {request.run_id!r} is stored in session {request.session_id!r}")
    if row.status != RunStatus.paused.value:
        raise UsageError(f"run {request.run_id!r} does not wait for anybody: its status is {row.status}")
    answers = {answer.id: answer for answer in request.resume.requirements}
    run = await _restore(tree, request.spec, row, None, answers)
    if answers:
        unknown = ", ".join(answer.tool_name for answer in answers.values())
        raise UsageError(f"run {request.run_id!r} does not wait for an answer to: {unknown}")
    return run


async def _restore(
    tree: Tree, spec: RunnerSpec, row: RunRow, parent: Run | None, answers: dict[str, RunRequirement]
) -> Run:
    data = from_json(row.data)
    output = output_from_dict(data)
    record = data["paused"]
    run_input = RunInput(value=output.input, messages=[Message("user", str(output.input))])
    run = Run(tree, spec, run_input, row.run_id, parent)
    await run.expand()
    run.generation = row.generation + 1
    run.messages = [Message.from_dict(message) for message in record["messages"]]
    run.own = Metrics.from_dict(record["own"])
    for requirement in output.requirements:
        if requirement.run_id == run.run_id:
            run.resolved[requirement.tool_call_id] = answers.pop(requirement.id, requirement)
    _take_over(run, output)
    await _restore_children(run, answers)
    return run


def _take_over(run: Run, output: RunOutput | TeamRunOutput) -> None:
    """What the run had come to before the pause."""
    output.status = RunStatus.running
    output.requirements = []
    run.output = output
    open_calls = {call.id for call in run.messages[-1].tool_calls}
    run.done = {tool.tool_call_id: tool for tool in output.tools if tool.tool_call_id in open_calls}
    run.tool_calls = sum(tool.result is not None for tool in output.tools)


async def _restore_children(run: Run, answers: dict[str, RunRequirement]) -> None:
    children = [
        run_id
        for tool in run.output.tools
        for run_id in (*([tool.child_run_id] if tool.child_run_id else ()), *(tool.child_run_ids or ()))
    ]
    for run_id in children:
        row = await run.tree.request.db.load_run(run_id)
        if row is None:
            continue
        spec = _member(run, row.runner_id)
        if row.status == RunStatus.paused.value:
            child = await _restore(run.tree, spec, row, run, answers)
            run.paused[row.run_id] = child
        else:
            child = _ended(run, spec, row)
        run.children.append(child)


def _ended(run: Run, spec: RunnerSpec, row: RunRow) -> Run:
    """A member's run that was over before the pause: for the output, not to be driven or written again."""
    output = output_from_dict(from_json(row.data))
    child = Run(run.tree, spec, RunInput(value=output.input, messages=[]), row.run_id, run)
    run.tree.runs.remove(child)
    child.output = output
    return child


def _member(run: Run, runner_id: str) -> RunnerSpec:
    members: Sequence[RunnerSpec] = [
        member for tool in run.spec.tools.values() for member in getattr(tool, "members", {}).values()
    ]
    for member in members:
        if member.id == runner_id:
            return member
    raise UsageError(
        f"{run.spec.label} has no member {runner_id!r} any more, whose run waits; "
        "continue with the team as it was when the run was paused"
    )
