"""A run whose id the caller has given: what else bears that id, looked at before anything is done."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from pydantic_core import from_json

from kern.db.base import RunRow
from kern.durable.fingerprint import check_same_input
from kern.errors import RunConflictError, RunMismatch, SessionBusyError, SessionError
from kern.run.output import AnyRunOutput, RunStatus, TeamRunOutput
from kern.runtime.active_runs import ActiveRun, inside_of
from kern.runtime.deadline import Deadline
from kern.runtime.run_tree import RunRequest
from kern.runtime.stored_runs import load_output, reading

_FAILED = (RunStatus.error.value, RunStatus.cancelled.value)
_LOOP_SECONDS = 0.2


class RunStored(Exception):
    """The run has ended already, and its stored output is what was asked for.

    Args:
        output: That output.
    """

    def __init__(self, output: AnyRunOutput) -> None:
        super().__init__(output.run_id)
        self.output = output


async def wait_for(other: ActiveRun, request: RunRequest, deadline: Deadline) -> None:
    """Wait for the user's own run of this process that has the id, where that is what the request wants.

    Raises:
        RunMismatch: It was asked for with other values.
        RunConflictError: It is in the way.
        SessionBusyError: It does not go on, and has not ended.
        RunDeadlineExceeded: It takes longer than this run may.
    """
    check_joins(other, request)
    run_id = request.run_id
    done = asyncio.wrap_future(other.done.future)
    async with deadline.inside():
        while other.alive:
            if not other.loop.is_running():
                raise SessionBusyError(
                    request.session_id, f"has run {run_id!r} in progress on an event loop that is not running"
                )
            await asyncio.wait([done], timeout=_LOOP_SECONDS)


def check_joins(other: ActiveRun, request: RunRequest) -> None:
    """See that a request may wait for the output of the user's own run that has its id.

    Raises:
        RunMismatch: The run was asked for with other values.
        RunConflictError: The request does not want to wait, or is a part of that run.
    """
    run_id, theirs = request.run_id, other.request
    if theirs.session_id != request.session_id:
        raise RunMismatch(run_id, "session")
    if request.resume is not None:
        raise RunConflictError(f"run {run_id!r} is being continued already")
    if request.on_duplicate != "return":
        raise RunConflictError(
            f"run {run_id!r} is already in progress; with on_duplicate='return' this call would "
            "wait for its output"
        )
    _check_runner(request, theirs.spec.id, theirs.spec.is_team)
    check_same_input(run_id, theirs.fingerprint, request.fingerprint)
    if inside_of(other):
        raise RunConflictError(
            f"run {run_id!r} would wait for itself: a tool or hook of that run asks for it"
        )


class EarlierAttempt(NamedTuple):
    """A run that has failed, and that is tried again under its id."""

    output: AnyRunOutput
    generation: int


def in_another_process(request: RunRequest) -> SessionError:
    """The error for a run that goes on elsewhere, where nobody here can wait for it."""
    if request.on_duplicate == "return":
        return SessionBusyError(
            request.session_id, f"has run {request.run_id!r} in progress in another process"
        )
    return RunConflictError(f"run {request.run_id!r} is already in progress, in another process")


async def earlier_attempt(request: RunRequest, row: RunRow | None) -> EarlierAttempt | None:
    """The failed attempt that the run is to be another one of, if there is one.

    Args:
        request: Of a user who owns its session.
        row: The run that is stored under the id.

    Raises:
        RunMismatch: The id is taken by a run that was asked for with other values.
        RunConflictError: The id is taken, and that is not what the request allows for.
        RunStored: The output is there.
    """
    if row is None:
        return None
    if row.session_id != request.session_id:
        raise RunMismatch(row.run_id, "session")
    if row.parent_run_id is not None:
        raise RunConflictError(
            f"run_id {row.run_id!r} belongs to a run of a team member; choose another run_id"
        )
    durable = request.journal is not None and request.on_duplicate == "return"
    if row.status == RunStatus.paused.value and not durable:
        raise RunConflictError(
            f"run {row.run_id!r} is paused and waits for a person: continue it with continue_run"
        )
    if request.on_duplicate == "raise":
        raise RunConflictError(
            f"run_id {row.run_id!r} is already stored, with status {row.status}: choose another "
            "run_id, or pass on_duplicate='return' to get its output"
        )
    output = await load_output(request.db, row)
    check_same_run(request, row, output)
    if request.on_duplicate == "return":
        raise RunStored(output)
    if row.status not in _FAILED:
        raise RunConflictError(
            f"run {row.run_id!r} has ended with status {row.status}; on_duplicate='retry_failed' repeats "
            "only a run that failed or was cancelled"
        )
    return EarlierAttempt(output, row.generation)


def check_same_run(request: RunRequest, row: RunRow, output: AnyRunOutput) -> None:
    """See that a stored run is the one that is asked for.

    Args:
        request: Of a user who owns the session of both.
        row: The run that is stored under the id.
        output: Its output.

    Raises:
        RunMismatch: It is a run of another agent or team, or was asked something else.
    """
    _check_runner(request, row.runner_id, isinstance(output, TeamRunOutput))
    check_same_input(row.run_id, known_fingerprint(row), request.fingerprint)


def _check_runner(request: RunRequest, runner_id: str, is_team: bool) -> None:
    """Check that the run that is known under the id is of the agent or team that is asked.

    Raises:
        RunMismatch: It is of another one.
    """
    spec = request.spec
    another = runner_id != spec.id and not spec.unnamed
    if another or is_team != spec.is_team:
        raise RunMismatch(request.run_id, "agent or team")


def known_fingerprint(row: RunRow) -> str | None:
    """The fingerprint of what a stored run was asked; None if none was stored."""
    with reading(row):
        found = from_json(row.data).get("fingerprint")
    return found if isinstance(found, str) else None
