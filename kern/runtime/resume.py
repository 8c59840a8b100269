"""A paused run, from its rows back to where it stopped, or given up."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from pydantic_core import from_json

from kern._json import json_bytes, jsonable
from kern.db.base import Db, RunRow
from kern.errors import RunConflictError, UsageError
from kern.messages import MEDIA, Message, Shelf, media_by_kind
from kern.run.output import RunOutput, RunStatus, TeamRunOutput, output_from_dict
from kern.run.requirement import RunRequirement
from kern.run.tool_execution import ToolExecution
from kern.runtime.approval import check_input
from kern.runtime.ending import open_results
from kern.runtime.lease import Lease, lease_of_run
from kern.runtime.run import Run, Tree
from kern.runtime.session import LiveSession
from kern.runtime.spec import Answer, DelegatingTool, RunInput, RunRequest, ToolOutcome
from kern.runtime.spoken import Spoken
from kern.runtime.stored import fill_media, media_of
from kern.runtime.toolrun import FunctionTool
from kern.usage import Metrics

CLAIM_SECONDS = 10.0
"""For how long a process that died while it continued a run keeps others from continuing it."""

CLAIM_RENEW_SECONDS = 3.0

_LATE_EVENTS = 1000
"""Room in the numbers of events for those that come after a pause was stored, before the run goes on."""


def row_extras(run: Run, shelf: Shelf) -> dict[str, Any]:
    """What the row of a run holds beside its output: of a paused one, all that it takes to go on.

    Args:
        run: The run.
        shelf: Takes the bytes of pictures and other media.
    """
    extras: dict[str, Any] = {}
    if run.output.status is RunStatus.paused:
        extras["paused"] = {
            "input": [message.to_dict(shelf) for message in run.input.messages],
            "messages": [message.to_dict(shelf) for message in run.messages],
            "own": run.own.to_dict(),
            "settled": {call_id: _outcome_to_dict(item, shelf) for call_id, item in run.settled.items()},
            "spoken": run.spoken.to_list(),
            "sent_back": dict(run.sent_back),
            "requests": run.requests,
            "seq": 0 if run.tree.buffer is None else run.tree.buffer.seq + _LATE_EVENTS,
        }
        # What is stored as the conversation is whole, so that other runs can be told of it meanwhile.
        conversation = [*run.output.messages, *open_results(run)]
        extras["messages"] = [message.to_dict(shelf) for message in conversation]
    if run.spec.stores_children:
        extras["member_responses"] = [child.output.to_dict(shelf) for child in run.children]
    return extras


@asynccontextmanager
async def reserved(db: Db, run_id: str) -> AsyncIterator[Lease | None]:
    """A run whose id the caller has given is made in one place only; None if another process is at it."""

    async def untouched() -> bool:
        row = await db.load_run(run_id)
        return row is None or row.status in (RunStatus.error.value, RunStatus.cancelled.value)

    lease = _claim(db, run_id, untouched)
    try:
        yield lease if await lease.acquire(wait=False) else None
    finally:
        await lease.released()


@asynccontextmanager
async def claimed(db: Db, run_id: str) -> AsyncIterator[Lease]:
    """A paused run goes on in one place only, whatever processes try.

    Raises:
        RunConflictError: It goes on somewhere else already.
    """
    lease = _claim(db, run_id)
    try:
        if not await lease.acquire(wait=False):
            raise RunConflictError(f"run {run_id!r} is being continued already")
        yield lease
    finally:
        await lease.released()


async def claimed_elsewhere(db: Db, run_id: str) -> bool:
    """Whether another process is at the run right now, to continue it or to try it again."""
    lease = _claim(db, run_id)
    try:
        return not await lease.acquire(wait=False)
    finally:
        await lease.released()


def _claim(db: Db, run_id: str, untouched: Callable[[], Awaitable[bool]] | None = None) -> Lease:
    async def waits() -> bool:
        row = await db.load_run(run_id)
        return row is not None and row.status == RunStatus.paused.value

    return Lease(
        db,
        lease_of_run(run_id),
        run_id,
        what=f"the run {run_id!r}",
        untouched=untouched or waits,
        seconds=CLAIM_SECONDS,
        renew=CLAIM_RENEW_SECONDS,
    )


async def restore(tree: Tree) -> Run:
    """The top-level run of a request to go on, with the members' runs below it.

    Raises:
        UsageError: There is no such run, or an answer is lacking or for another run.
        RunConflictError: It does not wait, or not any more.
    """
    request = tree.request
    assert request.resume is not None
    row = await request.db.load_run(request.run_id)
    if row is None or row.session_id != request.session_id:
        raise UsageError(f"no run {request.run_id!r} is stored in session {request.session_id!r}")
    if row.status != RunStatus.paused.value:
        raise RunConflictError(
            f"run {request.run_id!r} does not wait for anybody: its status is {row.status}"
        )
    output = output_from_dict(from_json(row.data))
    _check_runner(request, row, output)
    answers = {answer.id: answer for answer in request.resume.requirements}
    run = Run(tree, request.spec, _input(row), row.run_id)
    if tree.buffer is not None:
        tree.buffer.seq = from_json(row.data)["paused"]["seq"]
    await _restore(run, row, answers)
    if answers:
        unknown = ", ".join(answer.tool_name for answer in answers.values())
        raise UsageError(f"run {request.run_id!r} does not wait for an answer to: {unknown}")
    return run


def _check_runner(request: RunRequest, row: RunRow, output: RunOutput | TeamRunOutput) -> None:
    if row.parent_run_id is not None:
        raise UsageError(
            f"run {row.run_id!r} is a member's; continue the run that it is part of "
            f"(its parent is {row.parent_run_id!r})"
        )
    if isinstance(output, TeamRunOutput) != request.spec.is_team:
        kind = "a team's" if isinstance(output, TeamRunOutput) else "an agent's"
        raise UsageError(
            f"run {row.run_id!r} is {kind}, of {row.runner_id!r}: {request.spec.label!r} cannot continue it"
        )


def _input(row: RunRow) -> RunInput:
    data = from_json(row.data)
    return RunInput(
        value=data.get("input"), messages=[Message.from_dict(item) for item in data["paused"]["input"]]
    )


async def _restore(run: Run, row: RunRow, answers: dict[str, RunRequirement]) -> None:
    """Bring a new run to where the stored one stopped, with the members' runs below it."""
    data = from_json(row.data)
    output, record = output_from_dict(data), data["paused"]
    await run.expand()
    run.generation = row.generation + 1
    run.messages = [Message.from_dict(message) for message in record["messages"]]
    run.messages = run.call_ids.apply(run.messages)
    run.has_called = any(message.tool_calls for message in run.messages if not message.from_history)
    run.own = Metrics.from_dict(record["own"])
    run.requests = record.get("requests", run.own.requests)  # older rows do not count those that failed
    run.settled = {call_id: _outcome_from_dict(item) for call_id, item in record["settled"].items()}
    media = [media for message in (*run.messages, *run.input.messages) for media in message.media]
    media += [media for outcome in run.settled.values() for media in outcome.media]
    await fill_media(run.tree.request.db, row, [*media, *media_of(output)])
    run.spoken = Spoken(record.get("spoken") or [[text, text] for text in record.get("shown_results", ())])
    run.sent_back = Counter(record["sent_back"])
    for requirement in output.requirements:
        if requirement.run_id == run.run_id:
            if requirement.tool_name not in run.spec.tools:
                raise UsageError(
                    f"{run.spec.label} has no tool {requirement.tool_name!r} any more, and a call of it "
                    "waits; continue with the tools as they were when the run was paused"
                )
            answer = answers.pop(requirement.id, None)
            if answer is not None:
                requirement.take_answer(answer)
                _check_input(run, requirement)
            run.resolved[requirement.tool_call_id] = requirement
    output.status = RunStatus.running
    output.requirements = []
    run.output = output
    open_calls = {call.id for call in run.messages[-1].tool_calls}
    run.done = {tool.tool_call_id: tool for tool in output.tools if tool.tool_call_id in open_calls}
    run.tool_calls = sum(tool.result is not None for tool in output.tools)
    run.tree.ledger.resume(run.own, run.tool_calls)
    await _restore_children(run, answers)


async def _restore_children(run: Run, answers: dict[str, RunRequirement]) -> None:
    for execution in run.output.tools:
        for run_id in child_ids(execution):
            row = await run.tree.request.db.load_run(run_id)
            if row is None:
                continue
            if row.status != RunStatus.paused.value:
                run.children.append(await _ended(run, row))
                continue
            tool = run.spec.tools.get(execution.tool_name)
            spec = tool.members.get(row.runner_id) if isinstance(tool, DelegatingTool) else None
            if spec is None or not isinstance(tool, DelegatingTool):
                raise UsageError(
                    f"{run.spec.label} has no member {row.runner_id!r} any more, whose run waits; continue "
                    "with the team as it was when the run was paused, and give members names or ids"
                )
            child = tool.child(
                run, spec, _input(row), row.run_id, alone=len(run.messages[-1].tool_calls) == 1
            )
            run.paused[row.run_id] = child
            await _restore(child, row, answers)


async def _ended(run: Run, row: RunRow) -> Run:
    """A member's run that was over before the pause: for the output, not to be driven or written again."""
    output = output_from_dict(from_json(row.data))
    team = isinstance(output, TeamRunOutput)
    name = output.team_name if isinstance(output, TeamRunOutput) else output.agent_name
    # Whoever it was: nobody of that id need be there any more.
    spec = replace(run.spec, id=row.runner_id, name=name, is_team=team, tools={})
    child = Run(run.tree, spec, RunInput(value=output.input, messages=[]), row.run_id, run)
    run.tree.runs.remove(child)
    child.output = output
    own = Metrics.from_dict(output.metrics.to_dict())
    for execution in output.tools:
        for run_id in child_ids(execution):
            below = await run.tree.request.db.load_run(run_id)
            if below is not None:
                child.children.append(await _ended(child, below))
                own.exclude(child.children[-1].output.metrics)
    if isinstance(output, TeamRunOutput):
        output.member_responses = [below.output for below in child.children]
    run.tree.ledger.resume(own, sum(tool.result is not None for tool in output.tools))
    return child


def _check_input(run: Run, requirement: RunRequirement) -> None:
    tool = run.spec.tools[requirement.tool_name]
    for call in run.messages[-1].tool_calls:
        if isinstance(tool, FunctionTool) and call.id == requirement.tool_call_id:
            check_input(tool.function, call, requirement)


def child_ids(execution: ToolExecution) -> list[str]:
    """The members' runs that a call has started."""
    one = [execution.child_run_id] if execution.child_run_id else []
    return [*one, *(execution.child_run_ids or ())]


async def give_up(session: LiveSession, run_id: str) -> bool:
    """Make a run that waits for a person a cancelled one; False if it does not wait, or goes on already."""
    lease = _claim(session.db, run_id)
    try:
        if not await lease.acquire(wait=False):
            return False
        row = await session.db.load_run(run_id)
        if row is None or row.status != RunStatus.paused.value:
            return False
        rows = await _given_up(session.db, row)
        await session.commit(lambda conflicts: rows)
        return True
    finally:
        await lease.released()


async def _given_up(db: Db, row: RunRow) -> list[RunRow]:
    """The rows of a paused run, and of the members' runs below it that wait, as cancelled ones."""
    data = from_json(row.data)
    data.pop("paused", None)
    data.pop("requirements", None)
    data["status"] = RunStatus.cancelled.value
    rows = [
        replace(row, status=RunStatus.cancelled.value, generation=row.generation + 1, data=json_bytes(data))
    ]
    for execution in output_from_dict(data).tools:
        for run_id in child_ids(execution):
            below = await db.load_run(run_id)
            if below is not None and below.status == RunStatus.paused.value:
                rows += await _given_up(db, below)
    return rows


_FLAGS = ("error", "stop", "unheard", "show", "streamed", "media_told")


def _outcome_to_dict(outcome: ToolOutcome, shelf: Shelf) -> dict[str, Any]:
    data: dict[str, Any] = {"content": outcome.content}
    data.update({name: True for name in _FLAGS if getattr(outcome, name)})
    if outcome.answer is not None:
        content = jsonable(outcome.answer.content)
        data["answer"] = {"content": content, "content_type": outcome.answer.content_type}
        if outcome.answer.last_turn is not None:
            data["answer"]["last_turn"] = outcome.answer.last_turn
    for name, items in media_by_kind(outcome.media).items():
        data[name] = [item.to_dict(shelf) for item in items]
    return data


def _outcome_from_dict(data: Mapping[str, Any]) -> ToolOutcome:
    return ToolOutcome(
        data["content"],
        **{name: True for name in _FLAGS if name in data},
        answer=Answer(**data["answer"]) if "answer" in data else None,
        media=[kind.from_dict(item) for name, kind in MEDIA.items() for item in data.get(name, ())],
    )
