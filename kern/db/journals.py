"""What a database keeps of runs that outlive their process: who has a run, the steps that are done, and
what the run has told.

An optional power of a database, found by `isinstance(db, JournalDb)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

EVENT_SECONDS = 86_400.0
"""For how long the events of a run that has ended are kept."""


@dataclass(slots=True, frozen=True, kw_only=True)
class StepRow:
    """One step of a run that is done, as it is stored.

    Args:
        key: What the step is, unique in the run.
        kind: What sort of step it is.
        data: What it came to, as JSON text (UTF-8).
    """

    key: str
    kind: str
    data: bytes


@dataclass(slots=True, frozen=True, kw_only=True)
class EventRow:
    """Some events of a run, one after another.

    Args:
        last_seq: The number of the last one, unique in the run.
        data: All of them, as a JSON array (UTF-8).
    """

    last_seq: int
    data: bytes


@dataclass(slots=True, frozen=True, kw_only=True)
class RunAbout:
    """What is to be known of a run while it goes on.

    Args:
        runner_id: The agent or team.
        is_team: It is a team.
    """

    session_id: str
    user_id: str | None
    runner_id: str
    is_team: bool


@dataclass(slots=True, frozen=True, kw_only=True)
class RunningRow:
    """A run that was begun and has not ended.

    Args:
        about: What it is.
        owner: The process that has it; None if none has it right now.
        attempt: How many processes have had it.
        begun_at: When it was claimed first, by the database's clock.
        heartbeat_at: When its owner has last renewed the claim.
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
        owner: Who has it: a name that no other process, and no other attempt, uses.
        attempt: 1 for the first process that had the run, one more for each that took it over.
        before: The owner of the attempt before this one; None for the first.
    """

    run_id: str
    owner: str
    attempt: int
    before: str | None = None


@dataclass(slots=True, frozen=True, kw_only=True)
class SubmittedRow:
    """A run that was asked for and that any process may begin, as it is stored.

    Args:
        run_id: Its id.
        about: Its session, whose that is, and the agent or team that is asked.
        request: What it is asked, and on which terms, as JSON text (UTF-8).
    """

    run_id: str
    about: RunAbout
    request: bytes


@dataclass(slots=True, frozen=True)
class TakenRun:
    """A submitted run that was given to a process, and what it is asked, as JSON text (UTF-8)."""

    claim: RunClaim
    request: bytes


@dataclass(slots=True, frozen=True)
class ClaimedRun:
    """A claim that was granted.

    Args:
        steps: The steps on record, in the order in which they were appended.
        last_seq: The number of the last event that is kept of the run; 0 without any.
        about: What was noted of the run when it was begun or submitted, or is noted now; None if nothing was.
    """

    claim: RunClaim
    steps: Sequence[StepRow]
    last_seq: int = 0
    about: RunAbout | None = None


def run_about(
    session_id: str | None, user_id: str | None, runner_id: str | None, is_team: bool | int | None
) -> RunAbout | None:
    """What a row of a table says of a run; None if nothing was noted."""
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
    attempt: int,
    begun_at: float,
    heartbeat_at: float,
) -> RunningRow:
    """The row of a table."""
    about = RunAbout(session_id=session_id, user_id=user_id, runner_id=runner_id, is_team=bool(is_team))
    return RunningRow(
        run_id=run_id,
        about=about,
        owner=owner,
        attempt=attempt,
        begun_at=begun_at,
        heartbeat_at=heartbeat_at,
    )


@runtime_checkable
class JournalDb(Protocol):
    """A database that keeps the steps of runs.

    The end of such a run is a commit with `Commit.claim`: it is refused to whoever has lost the claim, and
    deletes the claim and the steps in the same transaction. The events stay for a day after that, or until
    the session is deleted. Times are by the database's clock.
    """

    async def claim_run(
        self, run_id: str, owner: str, seconds: float, about: RunAbout | None = None
    ) -> ClaimedRun | None:
        """Give `owner` the run for `seconds` from now; None if another has it, whose time is not over.

        Args:
            about: What `running_runs` is to tell of it; None leaves it out there. What was noted of a run
                that was begun or submitted stays as it is.
        """
        ...

    async def append_steps(
        self, claim: RunClaim, seconds: float, steps: Sequence[StepRow], events: Sequence[EventRow] = ()
    ) -> bool:
        """Keep all the steps and events, and give the owner `seconds` from now; in one transaction.

        Events that are kept already are kept once. False if another process has taken the run over, or it has
        ended: nothing is kept.
        """
        ...

    async def load_events(self, run_id: str, *, after: int = 0, limit: int = 100) -> list[EventRow]:
        """The first `limit` rows with events of a number above `after`, in their order."""
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
        """Runs that have begun and have not ended, the newest first, whether a process has them or not.

        Args:
            run_id: Only this run.
            session_id: Only runs of this session.
            user_id: Only this user's runs; None for all users.
            limit: At most so many.
            before: Only runs that were begun before this one.
        """
        ...

    async def release_claim(self, claim: RunClaim) -> None:
        """Let others have the run at once, if the claim still holds; its steps and its request stay."""
        ...

    async def submit_run(self, run: SubmittedRow) -> bool:
        """Keep the request, with a claim that nobody has; False if the id is known."""
        ...

    async def load_request(self, run_id: str) -> bytes | None:
        """What was submitted under that id and has not ended, as JSON text; None if nothing was."""
        ...

    async def take_run(self, owner: str, seconds: float, runner_ids: Sequence[str]) -> TakenRun | None:
        """Give `owner` the oldest submitted run of one of these agents and teams that nobody has.

        A run whose process has died is among them once its claim is over. None if there is none. Of several
        processes that ask at once, each gets another run, and none waits for another one.
        """
        ...

    async def forget_run(self, run_id: str, owner: str | None = None) -> bool:
        """Delete the request, the steps and the claim, if it is `owner`'s; None deletes whoever has the run.

        False if there was nothing of the kind.
        """
        ...

    async def unfinished_runs(self, *, limit: int = 100) -> list[str]:
        """The ids of runs that were submitted or have steps on record, and that no process has right now.

        The oldest come first.
        """
        ...
