"""The runs that this process drives, from their request, before they have their session, to their end.

A run can be cancelled by its id: in this process at once, from another process through the database.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from typing import Final
from weakref import WeakKeyDictionary

from kern._error_text import error_text
from kern._sync.executor import carry_context
from kern._sync.fork import after_fork_in_child
from kern._sync.lock import End
from kern.db.base import Db
from kern.errors import SessionOwnershipError, ShutdownError, UsageError
from kern.run.cancel import CancelResult
from kern.runtime.run_ends import CancelToken
from kern.runtime.run_tree import RunRequest, RunTree, log

POLL_SECONDS = 1.0
"""Seconds between two reads of the cancel requests in the database."""


class RunStopped(Exception):
    """Raised for a run that was cancelled by its id before it had begun."""


class ActiveRun:
    """A run whose result is not committed yet.

    Args:
        request: The request for the run.
    """

    def __init__(self, request: RunRequest) -> None:
        self.request = request
        try:
            self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        except RuntimeError as error:
            raise UsageError(
                "a run needs asyncio's event loop, and none is running in this thread: Kern does not run on "
                'trio; under anyio use the backend "asyncio"'
            ) from error
        if getattr(self.loop, "_default_executor", self.loop) is None:
            carry_context(self.loop)  # so that runs that its tools start in threads find this one
        self.key: tuple[Hashable, str] = (request.db.identity, request.run_id)
        """The database and the run id. Until owners are checked, each user may have a run with this id."""
        self.cancel_token: CancelToken = CancelToken(self.loop)
        self.tree: RunTree | None = None
        """The tree of runs; None before the run has begun."""
        self.since: float | None = None if request.resume is not None else time.monotonic()
        """When it was requested; None if the run is older: cancel requests may have come before."""
        self.opens = request.journal is not None
        """Whether its journal is being opened: how old a request to cancel it may be is not known yet."""
        self.done: End = End()
        self._task = asyncio.current_task()
        self.token: Token[frozenset[ActiveRun]] | None = None
        """Resets the context variable that says that the running code belongs to this run."""
        self.released = False
        """Whether this process releases the run, so that another process may resume it."""
        self.claimed = False
        """Whether the owner has been checked, and the run has its id for itself."""

    @property
    def alive(self) -> bool:
        """Whether the run has not ended and can still end: its event loop is not closed."""
        return not self.done.done() and not self.loop.is_closed()

    @property
    def durable(self) -> bool:
        """Whether another process can resume the run."""
        steps = None if self.tree is None else self.tree.steps
        return steps is not None and steps.claim is not None

    def cancel_tokens(self) -> Iterator[tuple[str, CancelToken]]:
        """Yield the id and the cancel token of every run of the tree."""
        yield self.request.run_id, self.cancel_token
        if self.tree is not None:
            yield from [(run.run_id, run.cancel_token) for run in list(self.tree.runs)]

    async def check_cancel_requests(self) -> None:
        """Stop the runs of the tree that another process has asked to cancel.

        Raises:
            StoreError: The requests cannot be read.
        """
        if self.request.db.shared:
            await _check_cancel_requests(self.request.db, [self])

    def cancel(self) -> None:
        """Cancel the task that drives the run, from any thread."""
        if self._task is not None and self.alive:
            with suppress(RuntimeError):  # closed in this instant
                self.loop.call_soon_threadsafe(self._cancel)

    def release(self) -> None:
        """Release a run that another process can resume, from any thread."""
        self.released = True
        self.cancel()

    async def take_cancellation_back(self) -> None:
        """Take the cancellation by `cancel` back, since the task raises another error instead."""
        task, self._task = self._task, None
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)  # a pending cancellation arrives here
        if task is not None and task.cancelling():
            task.uncancel()

    def _cancel(self) -> None:
        if self._task is not None and not self.done.done():  # the task may have other work by now
            self.cancel_token.cut_short = True
            self._task.cancel()


_inside: ContextVar[frozenset[ActiveRun]] = ContextVar("kern_inside_of", default=frozenset())


def is_inside(run: ActiveRun) -> bool:
    """Whether the running code belongs to that run."""
    return run in _inside.get()


class ActiveRuns:
    """The runs that this process drives."""

    def __init__(self) -> None:
        self._reset()
        after_fork_in_child(self._reset)

    def _reset(self) -> None:
        self._mutex = threading.Lock()
        self._runs: dict[tuple[Hashable, str], dict[str | None, ActiveRun]] = {}
        self._closed: Counter[asyncio.AbstractEventLoop] = Counter()
        self._watching: WeakKeyDictionary[asyncio.AbstractEventLoop, set[Hashable]] = WeakKeyDictionary()
        """The databases that each loop polls with a timer; weak, since a loop may end before its timer."""

    def __iter__(self) -> Iterator[ActiveRun]:
        with self._mutex:
            return iter([run for users in self._runs.values() for run in users.values()])

    @contextmanager
    def closed(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Inside the block no new run begins on that loop, except runs inside runs."""
        with self._mutex:
            self._closed[loop] += 1
        try:
            yield
        finally:
            with self._mutex:
                self._closed[loop] -= 1
                if not self._closed[loop]:
                    del self._closed[loop]

    def enter(self, active: ActiveRun, *, nested: bool) -> ActiveRun | None:
        """Note that a run begins; the running code belongs to it from then on.

        Runs of other users with the same id do not count: otherwise a user without access could
        block the owner.

        Args:
            active: The run.
            nested: The run starts inside another run.

        Returns:
            None; or the user's own run with that id, if there is one: then nothing is noted.

        Raises:
            ShutdownError: No new run may begin on the loop.
        """
        with self._mutex:
            if active.loop in self._closed and not nested:
                raise ShutdownError(
                    "kern.shutdown() is in progress: no new run can start on this event loop until it returns"
                )
            users = self._runs.setdefault(active.key, {})
            other = users.get(active.request.user_id)
            if other is not None and other.alive:
                return other
            users[active.request.user_id] = active
        active.token = _inside.set(_inside.get() | {active})
        if active.request.db.shared:
            self._watch(active.request.db, active.loop)
        return None

    def leave(self, active: ActiveRun) -> None:
        """Note that the run has ended, committed or not."""
        with self._mutex:
            users = self._runs.get(active.key, {})
            if users.get(active.request.user_id) is active:  # it is not after a fork
                del users[active.request.user_id]
                if not users:
                    del self._runs[active.key]
        if active.token is not None:
            _inside.reset(active.token)
        active.done.reached()

    def claim(self, active: ActiveRun) -> bool:
        """Claim the id after the owner was checked. Return False if another user's run has it."""
        with self._mutex:
            for other in self._runs.get(active.key, {}).values():
                if other is not active and other.claimed and other.alive:
                    return False
            active.claimed = True
        return True

    def drives(self, db: Db, run_id: str) -> bool:
        """Whether this process drives a top-level run with that id in that database."""
        with self._mutex:
            return (db.identity, run_id) in self._runs

    def own(self, db: Db, run_id: str, user_id: str | None) -> ActiveRun | None:
        """Return the user's run with that id in this process, if it is in progress."""
        with self._mutex:
            found = self._runs.get((db.identity, run_id), {}).get(user_id)
        return found if found is not None and found.alive else None

    def cancel(self, db: Db, run_id: str, user_id: str | None) -> CancelResult:
        """Cancel a run in that database, also a team member's, from any thread. Never waits.

        Raises:
            SessionOwnershipError: The run belongs to another user.
        """
        bearing = self._top_level(db, run_id)
        if bearing:
            return _cancel_top_level(bearing, user_id)
        for active in self:
            if active.key[0] == db.identity and active.alive:
                for known, cancel_token in active.cancel_tokens():
                    if known == run_id:
                        return _cancel(active, cancel_token, user_id)
        return CancelResult.unknown

    def _top_level(self, db: Db, run_id: str) -> list[ActiveRun]:
        """Return the top-level runs with that id: several until it is known which user owns the session."""
        with self._mutex:
            return [run for run in self._runs.get((db.identity, run_id), {}).values() if run.alive]

    def _watch(self, db: Db, loop: asyncio.AbstractEventLoop) -> None:
        """Poll the cancel requests in the database while runs of it are in progress."""
        if not db.shared:
            return
        with self._mutex:
            watched = self._watching.setdefault(loop, set())
        if db.identity not in watched:
            watched.add(db.identity)
            loop.call_later(POLL_SECONDS, self._poll, db, loop)

    def _poll(self, db: Db, loop: asyncio.AbstractEventLoop) -> None:
        self._watching[loop].discard(db.identity)
        runs = [run for run in self if run.loop is loop and run.request.db.identity == db.identity]
        if runs:
            task = loop.create_task(self._check_now(db, [run for run in runs if not run.opens]))
            task.add_done_callback(lambda _: self._watch(db, loop))

    async def _check_now(self, db: Db, runs: list[ActiveRun]) -> None:
        try:
            await _check_cancel_requests(db, runs)
        except Exception as error:  # noqa: BLE001 - also of a database of the application's own
            log.warning("could not read the cancel requests of other processes: %s", error_text(error))


def _cancel_top_level(bearing: Sequence[ActiveRun], user_id: str | None) -> CancelResult:
    """Cancel the run that has begun, or, if none has, the user's own run."""
    begun = [run for run in bearing if run.tree is not None]
    allowed = [run for run in bearing if user_id is None or run.request.user_id == user_id]
    for run in begun or allowed:
        return _cancel(run, run.cancel_token, user_id)
    raise SessionOwnershipError(bearing[0].request.session_id)


def _cancel(active: ActiveRun, cancel_token: CancelToken, user_id: str | None) -> CancelResult:
    if user_id is not None and user_id != active.request.user_id:
        raise SessionOwnershipError(active.request.session_id)
    return CancelResult.cancelled if cancel_token.stop() else CancelResult.too_late


async def _check_cancel_requests(db: Db, runs: list[ActiveRun]) -> None:
    """Stop the runs that other processes have asked to cancel."""
    cancel_tokens: dict[str, CancelToken] = {}
    owners: dict[str, str | None] = {}
    since: dict[str, float] = {}
    for run in runs:
        for run_id, cancel_token in run.cancel_tokens():
            if not cancel_token.sealed:
                cancel_tokens[run_id], owners[run_id] = cancel_token, run.request.user_id
                if run.since is not None:
                    since[run_id] = run.since
    for run_id in await db.cancel_requested(list(cancel_tokens), owners=owners, since=since):
        cancel_tokens[run_id].stop()


active_runs: Final = ActiveRuns()
