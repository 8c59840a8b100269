"""A run with an id that the caller chose: checks before its start whether the id is taken."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from pydantic_core import from_json

from kern.db.base import RunRow
from kern.durable.fingerprint import check_same_input
from kern.errors import RunConflictError, RunMismatch, SessionBusyError, SessionError
from kern.run.output import AnyRunOutput, RunStatus, TeamRunOutput
from kern.runtime.active_runs import ActiveRun, is_inside
from kern.runtime.deadline import Deadline
from kern.runtime.run_tree import RunRequest
from kern.runtime.stored_runs import load_output, reading

_FAILED = (RunStatus.error.value, RunStatus.cancelled.value)
_LOOP_SECONDS = 0.2

OPENING_SECONDS = 0.01
"""How often to look whether a run has opened its journal, or was refused."""


class RunStored(Exception):
    """Raised when the run has ended before, and its stored output is to be returned.

    Args:
        output: The stored output.
    """

    def __init__(self, output: AnyRunOutput) -> None:
        super().__init__(output.run_id)
        self.output = output


async def wait_for(other: ActiveRun, request: RunRequest, deadline: Deadline) -> None:
    """Wait for the user's own run with the same id in this process, if the request allows that.

    Raises:
        RunMismatch: That run was requested with other values.
        RunConflictError: The request does not want to wait, or is a part of that run.
        SessionBusyError: The event loop of that run does not run.
        RunDeadlineExceeded: The timeout of this run passed first.
    """
    run_id = request.run_id
    done = asyncio.wrap_future(other.done.future)
    async with deadline.inside():
        while other.alive:
            # A run that opens its journal may be refused itself, and another input be the right one.
            if not other.opens:
                check_joins(other, request)
            if not other.loop.is_running():
                raise SessionBusyError(
                    request.session_id, f"has run {run_id!r} in progress on an event loop that is not running"
                )
            await asyncio.wait([done], timeout=OPENING_SECONDS if other.opens else _LOOP_SECONDS)


def check_joins(other: ActiveRun, request: RunRequest) -> None:
    """Check that a request may wait for the output of the user's own run with the same id.

    Raises:
        RunMismatch: That run was requested with other values.
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
    if is_inside(other):
        raise RunConflictError(
            f"run {run_id!r} would wait for itself: a tool or hook of that run asks for it"
        )


class EarlierAttempt(NamedTuple):
    """A failed run that is repeated under its id."""

    output: AnyRunOutput
    generation: int


def in_another_process(request: RunRequest) -> SessionError:
    """Make the error for a run that is in progress in another process."""
    if request.on_duplicate == "return":
        return SessionBusyError(
            request.session_id,
            f"has run {request.run_id!r} in progress in another process",
            run_id=request.run_id,
        )
    return RunConflictError(f"run {request.run_id!r} is already in progress, in another process")


async def earlier_attempt(request: RunRequest, row: RunRow | None) -> EarlierAttempt | None:
    """Return the failed attempt that the request repeats; None if the id is free.

    Args:
        request: The request of a user who owns the session.
        row: The stored run with this id, or None.

    Raises:
        RunMismatch: The stored run was requested with other values.
        RunConflictError: The id is taken, and `on_duplicate` does not allow that.
        RunStored: The stored output is to be returned.
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
    """Check that a stored run is the one that the request means.

    Args:
        request: The request of a user who owns the session.
        row: The stored run with this id.
        output: Its output.

    Raises:
        RunMismatch: It is a run of another agent or team, or had another input.
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
    """Return the fingerprint of a stored run's input; None if none was stored."""
    with reading(row):
        found = from_json(row.data).get("fingerprint")
    return found if isinstance(found, str) else None
