"""Requests to cancel runs, in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from kern.db.base import ANY_TIME, NOBODY

_MOST = 10_000
"""How many requests of one user are kept, if the runs have no claims; the oldest are dropped first."""


class Cancels:
    """See `Db.request_cancel`; the caller holds its lock round each verb.

    Args:
        is_claimed: Whether a run has a claim, or was submitted: its requests are kept.
    """

    def __init__(self, is_claimed: Callable[[str], bool]) -> None:
        self._is_claimed = is_claimed
        self.requests: dict[str, dict[str | None, float]] = {}
        """By run: the requests by user (None for trusted code), each with its time."""

    def request(self, run_id: str, user_id: str | None) -> None:
        """Ask for the run to be cancelled."""
        self.requests.setdefault(run_id, {})[user_id] = time.monotonic()
        if len(self.requests) <= _MOST:
            return
        asked = [known for known, names in self.requests.items() if user_id in names]
        for known in asked[:-_MOST]:
            if not self._is_claimed(known):
                del self.requests[known][user_id]
        self.requests = {known: names for known, names in self.requests.items() if names}

    def take(
        self,
        run_ids: Sequence[str],
        owners: Mapping[str, str | None] = NOBODY,
        since: Mapping[str, float] = ANY_TIME,
    ) -> set[str]:
        """Which of these runs were asked to be cancelled; these requests, and older ones, are forgotten."""
        asked = {
            run_id: [names.pop(name) for name in {None, owners.get(run_id)} if name in names]
            for run_id in run_ids
            if (names := self.requests.get(run_id))
        }
        return {run_id for run_id, times in asked.items() if times and max(times) >= since.get(run_id, 0.0)}

    def runs_gone(self, run_ids: Iterable[str]) -> None:
        """Forget the requests for runs that have ended or were deleted."""
        for run_id in run_ids:
            self.requests.pop(run_id, None)

    def user_deleted(self, user_id: str) -> None:
        """Forget the requests in the user's name."""
        for names in self.requests.values():
            names.pop(user_id, None)
