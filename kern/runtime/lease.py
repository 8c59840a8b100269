"""Leases across processes: exclusive use of a session (`on_busy="queue"` and "reject"), or of a run's id.

Inside a process, a fair lock gives runs the session in the order of their requests. Between processes there
is a lease in the database. It expires, so that others get it when the process of its holder dies; a living
holder renews it. Waiters poll.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from kern._error_text import error_text
from kern._sync.shield import uninterrupted, wait_until_done
from kern.db.base import Db
from kern.db.journals import RunClaim
from kern.errors import SessionBusyError, SessionError
from kern.runtime.debug import log
from kern.runtime.request import OnBusy
from kern.runtime.run_ends import SessionRun
from kern.runtime.session import LiveSession

EXCLUSIVE_POLL_SECONDS = 1.0
"""How often a waiter checks whether the holder of the session will ever end."""


LONG_SECONDS = 60.0
"""After how long a warning is logged that a run still waits."""

_WAITS_LONG = (
    "run %s has waited for session %s for %g s; run %s uses the session. If a tool of that run started this "
    "run in a thread that it made itself, the two wait for each other: start the run with asyncio.to_thread, "
    "or with contextvars.copy_context().run"
)

LEASE_SECONDS = 30.0
"""How long a lease keeps others out after its holder died."""

RENEW_SECONDS = 10.0
RETRY_SECONDS = 1.0
"""How soon a failed renewal is tried again."""

RELEASE_SECONDS = 5.0
"""How long the end of a run waits for the release of the lease."""

SHORTEST_POLL = 0.05
LONGEST_POLL = 1.0


def lease_of_session(session_id: str) -> str:
    """Return the name of a session's lease. No session id gives the name of another lease."""
    return f"session:{session_id}" if session_id.startswith(("session:", "run:")) else session_id


def lease_of_run(run_id: str) -> str:
    """Return the name of a run's lease."""
    return f"run:{run_id}"


class Lease:
    """A lease that one run holds, and renews until it releases it.

    Args:
        db: The database that grants the lease.
        name: The name of the lease.
        run_id: The id of the run.
        what: What the lease is for, in errors.
        untouched: Called if the lease expired before it was renewed: returns whether nobody else used what it
            is for.
        seconds: How long the lease lasts without renewal.
        renew: Seconds between renewals.
        claim: The claim to the run, if it has a journal: the lease of the process before is released first.
    """

    def __init__(
        self,
        db: Db,
        name: str,
        run_id: str,
        *,
        what: str,
        untouched: Callable[[], Awaitable[bool]],
        seconds: float,
        renew: float,
        claim: RunClaim | None = None,
    ) -> None:
        self._db = db
        self._name = name
        self._run_id = run_id
        # Applications choose run ids: two runs with the same id must not count as one holder.
        self._owner = f"{run_id}:{uuid.uuid4().hex if claim is None else claim.owner}"
        self._before = None if claim is None or claim.before is None else f"{run_id}:{claim.before}"
        self._what = what
        self._untouched = untouched
        self._seconds = seconds
        self._pause = renew
        self._held_until = 0.0
        self._renewal: asyncio.Task[None] | None = None
        self._guarded: asyncio.Task[object] | None = None
        self._lost: SessionError | None = None

    async def acquire(self, *, wait: bool) -> bool:
        """Take the lease, and renew it until `release`. False: another has it, and not `wait`."""
        pause = SHORTEST_POLL
        if self._before is not None:
            await self._db.release_lease(self._name, self._before)
        while not await self._acquire():
            if not wait:
                return False
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - not used for security
            pause = min(2 * pause, LONGEST_POLL)
        self._renewal = asyncio.create_task(self._renew())
        return True

    async def release(self) -> None:
        """Release the lease. If the database cannot be reached, the lease expires."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        try:
            await self._give_back()
        except Exception as error:  # noqa: BLE001 - the lease expires, and the run has its result
            log.warning("%s: the lease could not be released: %s", self._what, error)

    async def released(self) -> None:
        """Release the lease at the end of the run, in spite of cancellation, and for `RELEASE_SECONDS`."""
        with suppress(TimeoutError):  # the lease will expire
            await uninterrupted(self.release, RELEASE_SECONDS)

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """Inside the block, the loss of the lease cancels the task.

        Raises:
            SessionError: The lease was lost: another run may use the session by now.
        """
        task = self._guarded = asyncio.current_task()
        assert task is not None
        others = task.cancelling()
        try:
            if self._lost is not None:
                raise self._lost
            yield
        except asyncio.CancelledError as error:
            if self._lost is not None and task.uncancel() <= others:
                raise self._lost from error
            raise
        finally:
            self._guarded = None

    async def _acquire(self) -> bool:
        asked = time.monotonic()
        if not await self._take():
            return False
        self._held_until = asked + self._seconds
        return True

    async def _take(self) -> bool:
        return await self._db.acquire_lease(self._name, self._owner, self._seconds)

    async def _give_back(self) -> None:
        await self._db.release_lease(self._name, self._owner)

    async def _renewed(self) -> bool:
        """Renew the lease. Return False if another run has, or had, what it is for."""
        expired = time.monotonic() >= self._held_until  # this process was frozen
        return await self._acquire() and (not expired or await self._untouched())

    async def _renew(self) -> None:
        pause = self._pause
        while self._lost is None:
            await asyncio.sleep(pause)
            pause = self._pause
            try:
                if not await self._renewed():
                    self._lose("another run took it over")
            except Exception as error:  # noqa: BLE001 - also of a database of the application's own
                log.warning("%s: the lease was not renewed: %s", self._what, error_text(error))
                pause = min(RETRY_SECONDS, self._pause)
                if time.monotonic() >= self._held_until:
                    self._lose(f"it could not be renewed: {error}")

    def _lose(self, why: str) -> None:
        self._lost = SessionError(f"this run lost its exclusive use of {self._what}: {why}")
        if self._guarded is not None:
            self._guarded.cancel()


async def _wait_for_exclusive_use(session: LiveSession, run_id: str) -> None:
    """Take `exclusive_lock` for a run, in the order of the requests.

    Raises:
        SessionBusyError: The stream of the run that holds it was left, and the run does not end; or a tool of
            that run waits for this one.
    """
    acquiring = asyncio.ensure_future(session.exclusive_lock.acquire())
    since, logged = time.monotonic(), False
    try:
        while not acquiring.done():
            await asyncio.wait([acquiring], timeout=EXCLUSIVE_POLL_SECONDS)
            if not logged and time.monotonic() - since > LONG_SECONDS:
                logged = True
                holders = [run.run_id for run in session.exclusive_runs]
                log.warning(_WAITS_LONG, run_id, session.session_id, LONG_SECONDS, ", ".join(holders))
            for session_run in session.exclusive_runs:
                if not acquiring.done() and (why := session_run.why_not_to_wait()):
                    raise SessionBusyError(
                        session.session_id, f"is used exclusively by run {session_run.run_id!r}, {why}"
                    )
    except BaseException:
        acquiring.cancel()
        await wait_until_done(acquiring)
        if not acquiring.cancelled() and acquiring.exception() is None:
            session.exclusive_lock.release()
        raise


@asynccontextmanager
async def exclusive_session(
    session: LiveSession,
    session_run: SessionRun,
    on_busy: OnBusy,
    run_id: str,
    claim: RunClaim | None = None,
) -> AsyncIterator[Lease]:
    """Give the run exclusive use of the session inside the block.

    Raises:
        SessionBusyError: Another run uses the session, and `on_busy` is "reject".
    """
    if not session.exclusive_lock.try_acquire():
        if on_busy == "reject":
            raise SessionBusyError(session.session_id)
        await _wait_for_exclusive_use(session, run_id)
    try:
        lease = _of_session(session, run_id, claim)
        try:
            if not await lease.acquire(wait=on_busy == "queue"):
                raise SessionBusyError(session.session_id)
            session_run.exclusive = True
            yield lease
        finally:
            session_run.exclusive = False
            await lease.released()
    finally:
        session.exclusive_lock.release()


def _of_session(session: LiveSession, run_id: str, claim: RunClaim | None) -> Lease:
    async def untouched() -> bool:
        row = await session.db.load_session(session.session_id)
        return row is None or row.version == session.row.version

    return Lease(
        session.db,
        lease_of_session(session.session_id),
        run_id,
        what=f"session {session.session_id!r}",
        untouched=untouched,
        seconds=LEASE_SECONDS,
        renew=RENEW_SECONDS,
        claim=claim,
    )
