"""The port for durable runs: the claims of processes to runs, the steps that are done, and the runs' events.

A database may implement it in addition to `Db`; Kern finds it by `isinstance(db, JournalDb)`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

EVENT_SECONDS = 86_400.0
"""The number of seconds for which the events of a run that has ended are kept after the last of them."""

DROP_SECONDS = 60.0
"""How often a process deletes the events that are not kept any longer, when it claims a run."""

LAST_NUMBER = 2**63 - 1
"""The highest `seq` that an event can be stored under."""


@dataclass(slots=True, frozen=True, kw_only=True)
class StepRow:
    """A step of a run that is done, as it is stored.

    Args:
        key: Identifies the step within the run, such as "<run id>/model/0".
        kind: The kind of step, such as "model".
        data: The outcome of the step, as JSON text (UTF-8).
    """

    key: str
    kind: str
    data: bytes


@dataclass(slots=True, frozen=True, kw_only=True)
class EventRow:
    """Several consecutive events of a run.

    Args:
        last_seq: The `seq` of the last one; unique within the run.
        data: The events, as a JSON array (UTF-8).
    """

    last_seq: int
    data: bytes


@dataclass(slots=True, frozen=True, kw_only=True)
class RunAbout:
    """What a listing shows of a run that has not ended.

    Args:
        session_id: Its session.
        user_id: The owner of the session; None if it has none.
        runner_id: The id of the agent or team.
        is_team: Whether that is a team.
    """

    session_id: str
    user_id: str | None
    runner_id: str
    is_team: bool


@dataclass(slots=True, frozen=True, kw_only=True)
class RunningRow:
    """A run that was begun and has not ended.

    Args:
        run_id: The run.
        about: Its session, user and agent.
        owner: The process that drives it; None if no process does right now.
        attempt: How many processes have claimed it so far.
        begun_at: When it was claimed first, in seconds since the epoch, by the database's clock.
        heartbeat_at: When its owner last renewed the claim, likewise.
    """

    run_id: str
    about: RunAbout
    owner: str | None
    attempt: int
    begun_at: float
    heartbeat_at: float


@dataclass(slots=True, frozen=True, kw_only=True)
class RunClaim:
    """One process's claim to a run.

    Args:
        run_id: The run.
        owner: The process that has it: a name that is unique per process and attempt.
        attempt: 1 for the first process that claimed the run, one more for each that took it over.
        before: The owner of the attempt before this one; None for the first.
    """

    run_id: str
    owner: str
    attempt: int
    before: str | None = None


@dataclass(slots=True, frozen=True, kw_only=True)
class SubmittedRow:
    """A run that was submitted, and that any process may begin, as it is stored.

    Args:
        run_id: The run.
        about: Its session, user and agent.
        request: The input and the options of the run, as JSON text (UTF-8).
    """

    run_id: str
    about: RunAbout
    request: bytes


@dataclass(slots=True, frozen=True)
class TakenRun:
    """A submitted run that a process has claimed.

    Args:
        claim: The claim.
        request: As in `SubmittedRow`.
    """

    claim: RunClaim
    request: bytes


@dataclass(slots=True, frozen=True)
class ClaimedRun:
    """A run that a process has claimed, with what is on record of it.

    Args:
        claim: The claim.
        steps: The steps on record, in the order in which they were appended.
        last_seq: The `seq` of the last event on record; 0 if there is none.
        about: What is on record of the run's session, user and agent; None if nothing is.
    """

    claim: RunClaim
    steps: Sequence[StepRow]
    last_seq: int = 0
    about: RunAbout | None = None


class OldEvents:
    """When a process deletes the events that are not kept any longer."""

    def __init__(self) -> None:
        self._at = 0.0

    def seconds(self) -> float:
        """How old events have to be to be deleted now: all of them are too young but once a minute."""
        if (now := time.monotonic()) < self._at:
            return 1e10
        self._at = now + DROP_SECONDS
        return EVENT_SECONDS


def run_about(
    session_id: str | None, user_id: str | None, runner_id: str | None, is_team: bool | int | None
) -> RunAbout | None:
    """The `RunAbout` in the columns of a row; None if they are empty."""
    if session_id is None or runner_id is None:
        return None
    return RunAbout(session_id=session_id, user_id=user_id, runner_id=runner_id, is_team=bool(is_team))


def running_row(
    run_id: str,
    session_id: str,
    user_id: str | None,
    runner_id: str,
    is_team: bool | int,
    owner: str | None,
    attempt: Any,
    begun_at: Any,
    heartbeat_at: Any,
) -> RunningRow:
    """The `RunningRow` in the columns of a row. A damaged number, which is only shown to people, is 0."""
    about = RunAbout(session_id=session_id, user_id=user_id, runner_id=runner_id, is_team=bool(is_team))
    return RunningRow(
        run_id=run_id,
        about=about,
        owner=owner,
        attempt=attempts(attempt),
        begun_at=seconds(begun_at),
        heartbeat_at=seconds(heartbeat_at),
    )


def attempts(value: Any) -> int:
    """The number of attempts in a column; 0 if the column is damaged."""
    return value if isinstance(value, int) else 0


def seconds(value: Any) -> float:
    """The time in a column; 0 if the column is damaged."""
    return value if isinstance(value, int | float) and math.isfinite(value) else 0.0


@runtime_checkable
class JournalDb(Protocol):
    """A database that stores the steps of durable runs.

    The end of such a run is a commit with `Commit.claim`. It is refused if another process has taken the run
    over; otherwise the claim and the steps are deleted in the same transaction. The events of a paused
    run stay; those of a run that has ended stay for EVENT_SECONDS after the last of them. A deletion of the
    session takes them along. Times are by the database's clock.
    """

    async def claim_run(
        self, run_id: str, owner: str, seconds: float, about: RunAbout | None = None
    ) -> ClaimedRun | None:
        """Claim a run, or renew the claim.

        Args:
            run_id: The run. owner: The process that claims it. seconds: For how long, from now. about: What
                `running_runs` shows of the run; None leaves the run out there. If the run was begun or
                submitted before, what is on record stays.

        Returns:
            None if another process has the run and its claim has not expired.
        """
        ...

    async def append_steps(
        self, claim: RunClaim, seconds: float, steps: Sequence[StepRow], events: Sequence[EventRow] = ()
    ) -> bool:
        """Store steps and events and renew the claim, in one transaction.

        Events that are stored already are not stored twice.

        Args:
            claim: The claim.
            seconds: For how long it holds from now.
            steps: The steps, in order.
            events: The events, in order.

        Returns:
            False if another process has taken the run over, or it has ended. Then nothing is stored.
        """
        ...

    async def load_events(self, run_id: str, *, after: int = 0, limit: int = 100) -> list[EventRow]:
        """The first `limit` rows whose `last_seq` is above `after`, in order."""
        ...

    async def running_runs(
        self,
        *,
        run_id: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunningRow]:
        """List runs that have begun and not ended, the newest first, whether a process has them or not.

        Args:
            run_id: Only this run.
            session_id: Only runs of this session.
            user_id: Only this user's runs; None: those of all users.
            limit: The maximum number of runs.
            before: Only runs that were begun before the run with this id.
        """
        ...

    async def release_claim(self, claim: RunClaim) -> None:
        """End the claim, if it still holds, so that others can claim the run. Steps and request stay."""
        ...

    async def submit_run(self, run: SubmittedRow) -> bool:
        """Store the request, for any process to claim it.

        Returns:
            False if the id is already known: the run was submitted or begun, or is stored.

        Raises:
            SessionOwnershipError: The session belongs to another user: it is stored, or the oldest durable
                run in it that has not ended is another user's. Of two users who submit into one new session
                at the same instant, one is refused.
        """
        ...

    async def load_request(self, run_id: str) -> bytes | None:
        """What a run that has not ended was asked, as JSON text: the request that was submitted, or else its
        first step of kind "base". None if there is neither.
        """
        ...

    async def take_run(self, owner: str, seconds: float, runner_ids: Sequence[str]) -> TakenRun | None:
        """Claim the oldest submitted run of these agents and teams that no process has.

        That includes runs whose process has died, once the claim has expired. If several processes ask at the
        same time, each gets a different run, and none waits for another.

        Args:
            owner: The process that claims the run.
            seconds: For how long, from now.
            runner_ids: The ids of the agents and teams that the process can run.

        Returns:
            None if there is no such run.
        """
        ...

    async def forget_run(self, run_id: str, owner: str | None = None) -> bool:
        """Delete the request, the steps and the claim of a run.

        Args:
            run_id: The run.
            owner: Delete only if this process has the run; None: in any case.

        Returns:
            False if there was nothing to delete.
        """
        ...

    async def unfinished_runs(self, *, limit: int = 100) -> list[str]:
        """The ids of runs that no process has right now, and that were submitted or have steps on record.

        The oldest come first.
        """
        ...
