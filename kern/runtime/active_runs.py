"""Runs that this process drives: from the first moment, when they still wait for their session, to the end.

They can be cancelled by their id: in this process at once, from another one through the database.
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

from kern._sync.executor import carry_context
from kern._sync.fork import after_fork_in_child
from kern._sync.lock import End
from kern.db.base import Db
from kern.errors import SessionOwnershipError, ShutdownError, StoreError
from kern.run.cancel import CancelResult
from kern.runtime.run_ends import CancelToken
from kern.runtime.run_tree import RunRequest, RunTree, log

POLL_SECONDS = 1.0
"""How often the database is asked whether another process wants a run to be cancelled."""


class RunStopped(Exception):
    """A run was cancelled by its id before it had begun."""


class ActiveRun:
    """A run that the application has asked for and whose end is not committed yet.

    Args:
        request: What was asked for.
    """

    def __init__(self, request: RunRequest) -> None:
        self.request = request
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        if getattr(self.loop, "_default_executor", self.loop) is None:
            carry_context(self.loop)  # to runs inside of this one that its tools make in threads
        self.key: tuple[Hashable, str] = (request.db.identity, request.run_id)
        """The database, and the id there; of each user one run may bear it until owners are checked."""
        self.cancel_token: CancelToken = CancelToken(self.loop)
        self.tree: RunTree | None = None
        """Its runs, once it has begun."""
        self.since: float | None = None if request.resume is not None else time.monotonic()
        """When it was asked for; a run that goes on is older than that."""
        self.done: End = End()
        self._task = asyncio.current_task()
        self.token: Token[frozenset[ActiveRun]] | None = None
        """Of the mark that the code inside belongs to this run, once it is noted."""
        self.released = False
        """This process lets go of it; another one goes on."""
        self.claimed = False
        """Its owner has been checked, and the id that the caller gave is its own."""

    @property
    def alive(self) -> bool:
        """Its event loop is not closed, so that it may end yet."""
        return not self.done.done() and not self.loop.is_closed()

    @property
    def durable(self) -> bool:
        """Another process can go on with it."""
        steps = None if self.tree is None else self.tree.steps
        return steps is not None and steps.claim is not None

    def cancel_tokens(self) -> Iterator[tuple[str, CancelToken]]:
        """The id of every run of the tree, members' too, and whether it is stopped."""
        yield self.request.run_id, self.cancel_token
        if self.tree is not None:
            yield from [(run.run_id, run.cancel_token) for run in list(self.tree.runs)]

    async def look(self) -> None:
        """Stop the run if another process has asked for it, and those of the tree that it has asked for.

        Raises:
            StoreError: The database cannot say.
        """
        if self.request.db.shared:
            await _look(self.request.db, [self])

    def cancel(self) -> None:
        """Cancel the task that drives it; from any thread."""
        if self._task is not None and self.alive:
            with suppress(RuntimeError):  # closed in this instant
                self.loop.call_soon_threadsafe(self._cancel)

    def release(self) -> None:
        """Have this process let go of a run that another one can go on with; from any thread."""
        self.released = True
        self.cancel()

    async def take_cancellation_back(self) -> None:
        """The task was cancelled by `cancel`, or is about to be, and raises something else instead."""
        task, self._task = self._task, None
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)  # one that is on its way arrives here
        if task is not None and task.cancelling():
            task.uncancel()

    def _cancel(self) -> None:
        if self._task is not None and not self.done.done():  # the task may do other things by now
            self.cancel_token.cut_short = True
            self._task.cancel()


_inside: ContextVar[frozenset[ActiveRun]] = ContextVar("kern_inside_of", default=frozenset())


def inside_of(run: ActiveRun) -> bool:
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
        """The databases that a timer of the loop asks; weak, since a loop may end before its timer does."""

    def __iter__(self) -> Iterator[ActiveRun]:
        with self._mutex:
            return iter([run for users in self._runs.values() for run in users.values()])

    @contextmanager
    def closed(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """Inside the block no new run begins on that loop, but for runs inside of runs."""
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
        """Note that a run begins, which the running code belongs to from then on.

        Returns its user's own run of that id, if there is one, and notes nothing then.
        Runs of other users are not asked about: whoever may not have the session would hold its owner up.

        Args:
            nested: It is started inside of another run.

        Raises:
            ShutdownError: No new run begins on its loop.
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
        """The run has ended and is committed, or never will be."""
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
        """Have the id, once the owner of the session was checked; False if another user's run has it."""
        with self._mutex:
            for other in self._runs.get(active.key, {}).values():
                if other is not active and other.claimed and other.alive:
                    return False
            active.claimed = True
        return True

    def drives(self, db: Db, run_id: str) -> bool:
        """Whether this process drives the top-level run of that id, in that database."""
        with self._mutex:
            return (db.identity, run_id) in self._runs

    def own(self, db: Db, run_id: str, user_id: str | None) -> ActiveRun | None:
        """The run of that id which the user has asked this process for, if it goes on."""
        with self._mutex:
            found = self._runs.get((db.identity, run_id), {}).get(user_id)
        return found if found is not None and found.alive else None

    def cancel(self, db: Db, run_id: str, user_id: str | None) -> CancelResult:
        """Cancel a run of that database, or a member's run; from any thread. Never waits.

        Raises:
            SessionOwnershipError: It is another user's.
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
        """The top-level runs of that id: several while it is unknown which of them owns the session."""
        with self._mutex:
            return [run for run in self._runs.get((db.identity, run_id), {}).values() if run.alive]

    def _watch(self, db: Db, loop: asyncio.AbstractEventLoop) -> None:
        """See that the database is asked, as long as runs of it go on."""
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
            task = loop.create_task(self._ask(db, runs))
            task.add_done_callback(lambda _: self._watch(db, loop))

    async def _ask(self, db: Db, runs: list[ActiveRun]) -> None:
        try:
            await _look(db, runs)
        except StoreError as error:
            log.warning("could not read the cancel requests of other processes: %s", error)


def _cancel_top_level(bearing: Sequence[ActiveRun], user_id: str | None) -> CancelResult:
    """Cancel the one of the runs that has begun; before that, the user's own one."""
    begun = [run for run in bearing if run.tree is not None]
    allowed = [run for run in bearing if user_id is None or run.request.user_id == user_id]
    for run in begun or allowed:
        return _cancel(run, run.cancel_token, user_id)
    raise SessionOwnershipError(bearing[0].request.session_id)


def _cancel(active: ActiveRun, cancel_token: CancelToken, user_id: str | None) -> CancelResult:
    if user_id is not None and user_id != active.request.user_id:
        raise SessionOwnershipError(active.request.session_id)
    return CancelResult.cancelled if cancel_token.stop() else CancelResult.too_late


async def _look(db: Db, runs: list[ActiveRun]) -> None:
    """Stop what other processes want to be stopped."""
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
