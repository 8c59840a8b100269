"""A paused run: restored from its rows to be continued, or cancelled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydantic_core import from_json

from kern._json import json_bytes
from kern.db.base import Db, RunRow
from kern.errors import RunConflictError, UsageError
from kern.run.output import AnyRunOutput, RunStatus, TeamRunOutput, output_from_dict
from kern.run.requirement import RunRequirement
from kern.run.tool_execution import ToolExecution
from kern.runtime.approval import check_input
from kern.runtime.duplicates import known_fingerprint
from kern.runtime.hooked_tool import HookedTool
from kern.runtime.one_process import had
from kern.runtime.pause import Pause
from kern.runtime.request import RunInput
from kern.runtime.run_tree import DelegatingTool, Run, RunnerSpec, RunTree
from kern.runtime.session import LiveSession
from kern.runtime.stored_runs import fill_media, reading, row_json
from kern.runtime.tool_calls import FunctionTool
from kern.usage import Metrics


async def restore(tree: RunTree, spec: RunnerSpec) -> Run:
    """Restore the top-level run that a request continues, with the runs of team members below it.

    Raises:
        UsageError: There is no such run, it is another agent's or team's, or a requirement belongs to another
            run.
        RunConflictError: The run is not paused.
    """
    request = tree.request
    assert request.resume is not None
    row = await request.db.load_run(request.run_id)
    if row is None or row.session_id != request.session_id:
        raise UsageError(f"no run {request.run_id!r} is stored in session {request.session_id!r}")
    if row.status != RunStatus.paused.value:
        raise RunConflictError(f"run {request.run_id!r} is not paused: its status is {row.status}")
    pause = Pause.from_row(row)
    _check_runner(spec, row, pause.output)
    answers = _answers(request.resume.requirements)
    tree.request = replace(request, metadata=pause.output.metadata, fingerprint=known_fingerprint(row))
    run = Run(tree, spec, _input(pause), row.run_id)
    tree.audience.continue_after(pause.seq)
    await _restore(run, row, pause, answers)
    if answers:
        unknown = ", ".join(answer.tool_name for answer in answers.values())
        raise UsageError(
            f"run {request.run_id!r} has no open requirement {unknown}: answer the requirements of its output"
        )
    return run


def _answers(given: Sequence[RunRequirement]) -> dict[str, RunRequirement]:
    """Return the answers by the id of the requirement.

    Raises:
        UsageError: Two answers to the same requirement differ.
    """
    answers: dict[str, RunRequirement] = {}
    for answer in given:
        other = answers.setdefault(answer.id, answer)
        if _said(other) != _said(answer):
            raise UsageError(
                f"{answer.tool_name}: requirement {answer.id} is answered twice, differently; give one answer"
            )
    return answers


def _said(answer: RunRequirement) -> tuple[object, ...]:
    return answer.confirmed, answer.note, answer.user_input, answer.result


def _check_runner(spec: RunnerSpec, row: RunRow, output: AnyRunOutput) -> None:
    if row.parent_run_id is not None:
        raise UsageError(
            f"run {row.run_id!r} is the run of a team member; continue the team's run instead "
            f"(its parent is {row.parent_run_id!r})"
        )
    another = row.runner_id != spec.id and not spec.unnamed
    if another or isinstance(output, TeamRunOutput) != spec.is_team:
        kind = "a team's" if isinstance(output, TeamRunOutput) else "an agent's"
        raise UsageError(
            f"run {row.run_id!r} is {kind}, of {row.runner_id!r}, and {spec.label!r} cannot "
            "continue it: continue it with the one that started it"
        )


def _input(pause: Pause) -> RunInput:
    return RunInput(value=pause.output.input, messages=pause.input)


async def _restore(run: Run, row: RunRow, pause: Pause, answers: dict[str, RunRequirement]) -> None:
    """Bring a new run to the point where the stored one paused, with the runs below it."""
    output = pause.output
    await run.expand()
    run.generation = row.generation + 1
    run.messages = run.call_ids.apply(pause.messages)
    run.progress = pause.progress
    run.out.continue_after(pause.spoken)
    await fill_media(run.tree.request.db, row, pause.media)
    for requirement in output.requirements:
        if requirement.run_id == run.run_id:
            if requirement.tool_name not in run.spec.tools:
                raise UsageError(
                    f"{run.spec.title} no longer has the tool {requirement.tool_name!r}, and the "
                    "paused run waits to call it; continue with the tools that the run was "
                    "paused with"
                )
            answer = answers.pop(requirement.id, None)
            if answer is not None:
                requirement.take_answer(answer)
                _check_input(run, requirement)
                _note_input(output, requirement)
            run.progress.answers[requirement.tool_call_id] = requirement
    output.status = RunStatus.running
    output.requirements = []
    run.output = output
    if run.tree.ledger is not None:
        run.tree.ledger.resume(run.progress.own_metrics, run.progress.tool_calls)
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
            spec = tool.team.specs.get(row.runner_id) if isinstance(tool, DelegatingTool) else None
            if spec is None or not isinstance(tool, DelegatingTool):
                raise UsageError(
                    f"{run.spec.title} no longer has the member {row.runner_id!r}, whose run is "
                    "paused; continue with the team that the run was paused with, and give its "
                    "members names or ids"
                )
            pause = Pause.from_row(row)
            alone = len(run.messages[-1].tool_calls) == 1 and not isinstance(tool, HookedTool)
            child = tool.team.child(run, spec, _input(pause), row.run_id, alone=alone)
            run.paused[row.run_id] = child
            await _restore(child, row, pause, answers)


async def _ended(run: Run, row: RunRow) -> Run:
    """Restore a member's run that ended before the pause, for the output: it is not driven or stored."""
    with reading(row):
        output = output_from_dict(row_json(row))
    team = isinstance(output, TeamRunOutput)
    name = output.team_name if isinstance(output, TeamRunOutput) else output.agent_name
    # The team need not have a member with that id any more.
    spec = replace(run.spec, id=row.runner_id, name=name, is_team=team, tools={})
    child = Run(run.tree, spec, RunInput(value=output.input, messages=[]), row.run_id, run)
    run.tree.runs.remove(child)
    child.output = output
    own = await _ended_below(child, output)
    if isinstance(output, TeamRunOutput):
        output.member_responses = [below.output for below in child.children]
    if run.tree.ledger is not None:
        run.tree.ledger.resume(own, sum(tool.result is not None for tool in output.tools))
    return child


async def _ended_below(run: Run, output: AnyRunOutput) -> Metrics:
    """Restore the ended runs of members below a run, and return the usage of the run without theirs."""
    own = Metrics.from_dict(output.metrics.to_dict())
    for execution in output.tools:
        for run_id in child_ids(execution):
            below = await run.tree.request.db.load_run(run_id)
            if below is not None:
                run.children.append(await _ended(run, below))
                own.exclude(run.children[-1].output.metrics)
    return own


async def continue_attempt(run: Run, attempt: AnyRunOutput) -> None:
    """Make a failed attempt, with the runs of members below it, a part of the run that repeats it.

    What it used counts in the metrics of the run. The limits of the run begin anew.
    """
    ledger, run.tree.ledger = run.tree.ledger, None
    run.progress.own_metrics.include(await _ended_below(run, attempt))
    run.output.tools += attempt.tools
    run.tree.ledger = ledger


def _check_input(run: Run, requirement: RunRequirement) -> None:
    tool = run.spec.tools[requirement.tool_name]
    for call in run.messages[-1].tool_calls:
        if isinstance(tool, FunctionTool) and call.id == requirement.tool_call_id:
            check_input(tool.function, call, requirement)


def _note_input(output: AnyRunOutput, requirement: RunRequirement) -> None:
    """Add the values that a person entered to the arguments in the record of the call."""
    if requirement.user_input is None or requirement.confirmed is False:
        return
    for execution in output.tools:
        if execution.tool_call_id == requirement.tool_call_id:
            execution.tool_args = {**execution.tool_args, **requirement.user_input}


def child_ids(execution: ToolExecution) -> list[str]:
    """Return the ids of the members' runs that a call started."""
    one = [execution.child_run_id] if execution.child_run_id else []
    return [*one, *(execution.child_run_ids or ())]


async def give_up(session: LiveSession, run_id: str) -> bool:
    """Cancel a paused run. Return False if it is not paused, or is being continued already."""
    async with had(session.db, run_id) as lease:
        if lease is None:
            return False
        row = await session.db.load_run(run_id)
        if row is None or row.status != RunStatus.paused.value:
            return False
        rows = await _given_up(session.db, row)
        # With the claim, what a process that continued the run and died has on record goes as well.
        await session.commit(lambda conflicts: rows, claim=lease.claim)
    return True


async def _given_up(db: Db, row: RunRow) -> list[RunRow]:
    """Make the rows of a paused run, and of the paused runs below it, as cancelled ones."""
    with reading(row):
        data = from_json(row.data)
        data.pop("paused", None)
        data.pop("requirements", None)
        data.pop("status", None)  # rows of versions before 0.2.0 repeat the column
        cancelled = replace(
            row, status=RunStatus.cancelled.value, generation=row.generation + 1, data=json_bytes(data)
        )
        tools = output_from_dict(row_json(cancelled)).tools
    rows = [cancelled]
    for execution in tools:
        for run_id in child_ids(execution):
            below = await db.load_run(run_id)
            if below is not None and below.status == RunStatus.paused.value:
                rows += await _given_up(db, below)
    return rows
