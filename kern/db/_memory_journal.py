"""The steps of runs with a journal, in memory, and the claims to these runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from kern.db.journals import (
    EVENT_SECONDS,
    ClaimedRun,
    EventRow,
    RunAbout,
    RunClaim,
    RunningRow,
    StepRow,
    SubmittedRow,
    TakenRun,
)
from kern.db.rows import Commit, SessionRow, check_begun
from kern.errors import RunLostError, SessionOwnershipError


@dataclass(slots=True)
class _Claimed:
    claim: RunClaim
    expires_at: float
    """By the monotonic clock."""
    about: RunAbout | None = None
    steps: list[StepRow] = field(default_factory=list)
    submitted: SubmittedRow | None = None
    begun_at: float = field(default_factory=time.time)
    heartbeat_at: float = field(default_factory=time.time)

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


@dataclass(slots=True)
class _Events:
    at: float
    """By the monotonic clock."""
    rows: dict[int, EventRow] = field(default_factory=dict)


class Journals:
    """See `kern.db.journals`; the caller holds its lock round each verb."""

    def __init__(self) -> None:
        self._runs: dict[str, _Claimed] = {}
        self._events: dict[str, _Events] = {}

    def claim(
        self,
        run_id: str,
        owner: str,
        seconds: float,
        about: RunAbout | None,
        waits: Callable[[str], bool],
    ) -> ClaimedRun | None:
        """Give `owner` the run; None if another has it. `waits` says whether a run waits for a person."""
        now = time.monotonic()
        known = self._runs.get(run_id)
        if known is not None and known.claim.owner != owner and now < known.expires_at:
            return None
        if known is None:
            claim = RunClaim(run_id=run_id, owner=owner, attempt=1)
            known = self._runs[run_id] = _Claimed(claim, 0.0)
        known.give(owner, now + seconds)
        known.heartbeat_at = time.time()
        if known.about is None or not known.matters:  # nobody becomes the owner of a begun run by its id
            known.about = about or known.about
        for name in [name for name, stored in self._events.items() if stored.at < now - EVENT_SECONDS]:
            if name not in self._runs and not waits(name):
                del self._events[name]
        stored = self._events.get(run_id)
        return ClaimedRun(
            known.claim, list(known.steps), max(stored.rows, default=0) if stored else 0, known.about
        )

    def has(self, run_id: str) -> bool:
        """Whether the run has a claim, or was submitted."""
        return run_id in self._runs

    def submit(self, run: SubmittedRow, session: SessionRow | None) -> bool:
        """Keep the request; False if the run is known.

        Args:
            run: The run.
            session: Its session, if it is stored.

        Raises:
            SessionOwnershipError: The session belongs to another user.
        """
        known = self._runs.get(run.run_id)
        if known is not None and (known.matters or time.monotonic() < known.expires_at):
            return False
        whose = session or self._first(run.about.session_id)
        if whose is not None and whose.user_id != run.about.user_id:
            raise SessionOwnershipError(run.about.session_id)
        nobodys = RunClaim(run_id=run.run_id, owner="", attempt=0)
        self._runs[run.run_id] = _Claimed(nobodys, 0.0, run.about, submitted=run)
        return True

    def request(self, run_id: str) -> bytes | None:
        """What the run was asked."""
        known = self._runs.get(run_id)
        if known is None:
            return None
        if known.submitted is not None:
            return known.submitted.request
        return next((step.data for step in known.steps if step.kind == "base"), None)

    def take(self, owner: str, seconds: float, runner_ids: Sequence[str]) -> TakenRun | None:
        """Give `owner` the oldest submitted run that nobody has."""
        now = time.monotonic()
        for known in self._runs.values():
            run = known.submitted
            if run is not None and run.about.runner_id in runner_ids and known.expires_at <= now:
                known.give(owner, now + seconds)
                return TakenRun(known.claim, run.request)
        return None

    def append(
        self, claim: RunClaim, seconds: float, steps: Sequence[StepRow], events: Sequence[EventRow]
    ) -> bool:
        """Keep steps and events, and renew the claim; False if it does not hold."""
        known = self._held(claim)
        if known is None:
            return False
        known.steps += steps
        known.expires_at, known.heartbeat_at = time.monotonic() + seconds, time.time()
        if events:
            stored = self._events.setdefault(claim.run_id, _Events(0.0))
            stored.at = time.monotonic()
            stored.rows.update({row.last_seq: row for row in events})
        return True

    def events(self, run_id: str, after: int, limit: int) -> list[EventRow]:
        """The events of the run after that number."""
        stored = self._events.get(run_id)
        if stored is None:
            return []
        return [stored.rows[number] for number in sorted(stored.rows) if number > after][:limit]

    def running(
        self,
        run_id: str | None,
        session_id: str | None,
        user_id: str | None,
        before: str | None,
        limit: int,
    ) -> list[RunningRow]:
        """Runs that have begun and have not ended, the newest first."""
        now, found = time.monotonic(), []
        names = list(self._runs)
        if before is not None:
            names = names[: names.index(before)] if before in names else []
        for name in reversed(names):
            known = self._runs[name]
            about = known.about
            if about is None or not known.matters:
                continue
            wanted = run_id in (None, name) and session_id in (None, about.session_id)
            if wanted and user_id in (None, about.user_id):
                row = RunningRow(
                    run_id=name,
                    about=about,
                    owner=known.claim.owner if now < known.expires_at else None,
                    attempt=known.claim.attempt,
                    begun_at=known.begun_at,
                    heartbeat_at=known.heartbeat_at,
                )
                found.append(row)
        return found[:limit]

    def deleted(
        self, *, session_id: str | None = None, user_id: str | None = None, run_ids: Iterable[str] = ()
    ) -> None:
        """Delete the events and steps of these runs, and of the unfinished runs of a session or user."""
        own = [
            name
            for name, run in self._runs.items()
            if run.about is not None
            and (run.about.session_id == session_id or (user_id is not None and run.about.user_id == user_id))
        ]
        for name in own:
            del self._runs[name]
        for name in (*own, *run_ids):
            self._events.pop(name, None)

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

    def check_owner(self, commit: Commit) -> None:
        """Check whether the commit may store a new session.

        Raises:
            SessionOwnershipError: A durable run of another user has begun in it.
        """
        first = self._first(commit.session_id)
        if first is not None:
            check_begun(commit, first.user_id)

    def _first(self, session_id: str) -> RunAbout | None:
        """The oldest durable run in the session that has not ended."""
        for run in self._runs.values():
            if run.matters and run.about is not None and run.about.session_id == session_id:
                return run.about
        return None

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
