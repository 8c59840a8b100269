"""A database in which something happens just before one of its calls: what a second process would do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any

from kern.db.base import Db

READS = (
    "load_session",
    "load_session_and_run",
    "load_run",
    "load_runs",
    "load_changes",
    "list_runs",
    "acquire_lease",
    "release_lease",
    "request_cancel",
    "cancel_requested",
    "claim_run",
    "release_claim",
    "submit_run",
    "load_events",
    "running_runs",
    "load_request",
)
WRITES = ("commit", "append_steps", "release_claim")


class Interleaved:
    """Lets something happen before the n-th call of a database's verbs.

    Args:
        db: The database that is asked. What happens uses another object on the same one.
        verbs: The verbs of the database that count.
    """

    def __init__(self, db: Db, verbs: Sequence[str] = READS) -> None:
        self.calls: list[str] = []
        """The verbs that were called, in order."""
        self._at = -1
        self._what: Callable[[], Awaitable[object]] | None = None
        for name in verbs:
            setattr(db, name, self._wrapped(name, getattr(db, name)))

    def before(self, number: int, what: Callable[[], Awaitable[object]]) -> None:
        """Let `what` happen before the call of that number, counted from now."""
        self.calls, self._at, self._what = [], number, what

    @property
    def happened(self) -> bool:
        """Whether it has happened: there were that many calls."""
        return self._what is None

    def _wrapped(self, name: str, verb: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @wraps(verb)
        async def read(*args: Any, **options: Any) -> Any:
            what = self._what
            if what is not None and len(self.calls) == self._at:
                self._what = None
                await what()
            self.calls.append(name)
            return await verb(*args, **options)

        return read
