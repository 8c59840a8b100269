"""One run of a session at a time, for those who want it: `on_busy="queue"` and `on_busy="reject"`.

Within the process runs take turns by a lock, in the order of their coming. Between processes the session has
a lease in the database, with an expiry, so that it survives the death of its holder; who waits for it polls.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from kern.errors import SessionBusyError, SessionError, StoreError
from kern.runtime.debug import log
from kern.runtime.session import Ending, LiveSession
from kern.runtime.spec import OnBusy
from kern.state.large import uninterrupted

LEASE_SECONDS = 30.0
"""For how long a holder that has died keeps others out."""

RENEW_SECONDS = 10.0
RETRY_SECONDS = 1.0
"""How soon a renewal is tried again that the database could not answer."""

RELEASE_SECONDS = 5.0
"""How long the end of a run waits for the lease to be given back."""

SHORTEST_POLL = 0.05
LONGEST_POLL = 1.0


class Lease:
    """The lease of a session, held by one run.

    Args:
        session: The session.
        run_id: The run.
    """

    def __init__(self, session: LiveSession, run_id: str) -> None:
        self._session = session
        self._db = session.db
        # The run's id is the application's to choose: two runs with one id must not pass for one holder.
        self._owner = f"{run_id}:{uuid.uuid4().hex}"
        self._held_until = 0.0
        self._renewal: asyncio.Task[None] | None = None
        self._guarded: asyncio.Task[object] | None = None
        self._lost: SessionError | None = None

    async def acquire(self, *, wait: bool) -> None:
        """Take the lease, and keep it by renewals until `release`.

        Raises:
            SessionBusyError: Another has it, and `wait` is False.
        """
        pause = SHORTEST_POLL
        while not await self._ask():
            if not wait:
                raise SessionBusyError(self._session.session_id)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret hangs on it
            pause = min(2 * pause, LONGEST_POLL)
        self._renewal = asyncio.create_task(self._renew())

    async def release(self) -> None:
        """Give the lease back; a database that cannot be told will let it expire."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        try:
            await self._db.release_lease(self._session.session_id, self._owner)
        except StoreError as error:
            log.warning("session %s: the lease was not given back: %s", self._session.session_id, error)

    @asynccontextmanager
    async def guard(self) -> AsyncIterator[None]:
        """Inside the block, the loss of the lease cancels the task, and is raised.

        Raises:
            SessionError: Another run may have the session by now.
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

    async def _ask(self) -> bool:
        asked = time.monotonic()
        if not await self._db.acquire_lease(self._session.session_id, self._owner, LEASE_SECONDS):
            return False
        self._held_until = asked + LEASE_SECONDS
        return True

    async def _renewed(self) -> bool:
        """False if another run has, or has had, the session."""
        expired = time.monotonic() >= self._held_until  # this process stood still
        if not await self._ask():
            return False
        row = await self._db.load_session(self._session.session_id) if expired else None
        return row is None or row.version == self._session.row.version

    async def _renew(self) -> None:
        pause = RENEW_SECONDS
        while self._lost is None:
            await asyncio.sleep(pause)
            pause = RENEW_SECONDS
            try:
                if not await self._renewed():
                    self._lose("another run has taken it over")
            except StoreError as error:
                log.warning("session %s: the lease was not renewed: %s", self._session.session_id, error)
                pause = RETRY_SECONDS
                if time.monotonic() >= self._held_until:
                    self._lose(f"it could not be renewed: {error}")

    def _lose(self, why: str) -> None:
        self._lost = SessionError(f"this run has lost session {self._session.session_id!r}: {why}")
        if self._guarded is not None:
            self._guarded.cancel()


@asynccontextmanager
async def turn(
    session: LiveSession, ending: Ending, on_busy: OnBusy, run_id: str
) -> AsyncIterator[Lease | None]:
    """The session is this run's alone, inside the block; None where nothing has to be held for that.

    Raises:
        SessionBusyError: It is another's, and `on_busy` is "reject".
    """
    if on_busy == "share" or session.has_turn:
        yield None
        return
    if not session.turn.try_acquire():
        if on_busy == "reject":
            raise SessionBusyError(session.session_id)
        await session.turn.acquire()
    try:
        lease = Lease(session, run_id)
        try:
            await lease.acquire(wait=on_busy == "queue")
            ending.exclusive = True
            yield lease
        finally:
            ending.exclusive = False
            with suppress(TimeoutError):  # the lease will expire
                await uninterrupted(lease.release(), RELEASE_SECONDS)
    finally:
        session.turn.release()
