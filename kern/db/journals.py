"""What a database keeps of runs that outlive their process: who has a run, and the steps that are done.

An optional power of a database, found by `isinstance(db, JournalDb)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


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
        session_id: Its session.
        runner_id: The agent or team that is asked.
        request: What it is asked, and on which terms, as JSON text (UTF-8).
    """

    run_id: str
    session_id: str
    runner_id: str
    request: bytes


@dataclass(slots=True, frozen=True)
class TakenRun:
    """A submitted run that was given to a process, and what it is asked, as JSON text (UTF-8)."""

    claim: RunClaim
    request: bytes


@dataclass(slots=True, frozen=True)
class ClaimedRun:
    """A claim that was granted, and the steps on record, in the order in which they were appended."""

    claim: RunClaim
    steps: Sequence[StepRow]


@runtime_checkable
class JournalDb(Protocol):
    """A database that keeps the steps of runs.

    The end of such a run is a commit with `Commit.claim`: it is refused to whoever has lost the claim, and
    deletes the claim and the steps in the same transaction. Times are by the database's clock.
    """

    async def claim_run(self, run_id: str, owner: str, seconds: float) -> ClaimedRun | None:
        """Give `owner` the run for `seconds` from now; None if another has it, whose time is not over."""
        ...

    async def append_steps(self, claim: RunClaim, seconds: float, steps: Sequence[StepRow]) -> bool:
        """Keep all the steps, and give the owner `seconds` from now; in one transaction.

        False if another process has taken the run over, or it has ended: nothing is kept.
        """
        ...

    async def release_claim(self, claim: RunClaim) -> None:
        """Let others have the run at once, if the claim still holds; its steps and its request stay."""
        ...

    async def submit_run(self, run: SubmittedRow) -> bool:
        """Keep the request, with a claim that nobody has; False if the id is known."""
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
