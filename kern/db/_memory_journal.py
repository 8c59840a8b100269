"""The steps of runs with a journal, in memory, and the claims to these runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from kern.db.journals import ClaimedRun, RunClaim, StepRow, SubmittedRow, TakenRun
from kern.errors import RunLostError


@dataclass(slots=True)
class _Claimed:
    claim: RunClaim
    expires_at: float
    """By the monotonic clock."""
    steps: list[StepRow] = field(default_factory=list)
    submitted: SubmittedRow | None = None

    def give(self, owner: str, until: float) -> None:
        """Let `owner` have the run."""
        self.expires_at = until
        was = self.claim
        if was.owner != owner:
            self.claim = RunClaim(
                run_id=was.run_id, owner=owner, attempt=was.attempt + 1, before=was.owner or None
            )

    @property
    def matters(self) -> bool:
        """It is there while nobody has it."""
        return bool(self.steps) or self.submitted is not None


class Journals:
    """See `kern.db.journals`; the caller holds its lock round each verb."""

    def __init__(self) -> None:
        self._runs: dict[str, _Claimed] = {}

    def claim(self, run_id: str, owner: str, seconds: float) -> ClaimedRun | None:
        """Give `owner` the run; None if another has it."""
        now = time.monotonic()
        known = self._runs.get(run_id)
        if known is not None and known.claim.owner != owner and now < known.expires_at:
            return None
        if known is None:
            claim = RunClaim(run_id=run_id, owner=owner, attempt=1)
            known = self._runs[run_id] = _Claimed(claim, 0.0)
        known.give(owner, now + seconds)
        return ClaimedRun(known.claim, list(known.steps))

    def submit(self, run: SubmittedRow) -> bool:
        """Keep the request; False if the run is known."""
        if run.run_id in self._runs:
            return False
        nobodys = RunClaim(run_id=run.run_id, owner="", attempt=0)
        self._runs[run.run_id] = _Claimed(nobodys, 0.0, submitted=run)
        return True

    def take(self, owner: str, seconds: float, runner_ids: Sequence[str]) -> TakenRun | None:
        """Give `owner` the oldest submitted run that nobody has."""
        now = time.monotonic()
        for known in self._runs.values():
            run = known.submitted
            if run is not None and run.runner_id in runner_ids and known.expires_at <= now:
                known.give(owner, now + seconds)
                return TakenRun(known.claim, run.request)
        return None

    def append(self, claim: RunClaim, seconds: float, steps: Sequence[StepRow]) -> bool:
        """Keep the steps and renew the claim; False if it does not hold."""
        known = self._held(claim)
        if known is None:
            return False
        known.steps += steps
        known.expires_at = time.monotonic() + seconds
        return True

    def release(self, claim: RunClaim) -> None:
        """Let others have the run."""
        known = self._held(claim)
        if known is None:
            return
        if known.matters:
            known.expires_at = 0.0
        else:
            del self._runs[claim.run_id]

    def forget(self, run_id: str, owner: str | None) -> bool:
        """Delete all that is known of a run."""
        known = self._runs.get(run_id)
        if known is None or owner not in (None, known.claim.owner):
            return False
        del self._runs[run_id]
        return True

    def unfinished(self, limit: int) -> list[str]:
        """Runs with steps or a request that nobody has."""
        now = time.monotonic()
        free = [run_id for run_id, known in self._runs.items() if known.matters and known.expires_at <= now]
        return free[:limit]

    def run_ended(self, claim: RunClaim) -> None:
        """The end of the run is committed.

        Raises:
            RunLostError: The claim does not hold any more.
        """
        if self._held(claim) is None:
            raise RunLostError(claim.run_id)
        del self._runs[claim.run_id]

    def _held(self, claim: RunClaim) -> _Claimed | None:
        known = self._runs.get(claim.run_id)
        return known if known is not None and known.claim.owner == claim.owner else None
