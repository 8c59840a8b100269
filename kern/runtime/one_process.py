"""A run's id in one process alone, for runs without a journal: a run that has an id of the caller's, and a
paused run that is being continued.

A run with a journal has a claim in the database (`kern.db.journals`). One without holds the same claim, and
records nothing: so the two exclude each other, too. A database without journals has a lease instead.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from kern.db.base import Db
from kern.db.journals import ClaimedRun, JournalDb, RunClaim, TakenRun
from kern.durable.db_journal import new_owner
from kern.errors import RunConflictError
from kern.run.output import RunStatus
from kern.runtime.lease import Lease, lease_of_run

CLAIM_SECONDS = 10.0
"""How long a process that died keeps others from its run."""

CLAIM_RENEW_SECONDS = 3.0

Untouched = Callable[[], Awaitable[bool]]


class OnRecord(Exception):
    """Raised if a run with a journal has this id and has not ended: it was submitted, or its process died.

    Args:
        run: The run. Its claim is released, and can be had again with the same owner.
    """

    def __init__(self, run: TakenRun) -> None:
        super().__init__(run.claim.run_id)
        self.run = run


class RunLease(Lease):
    """A lease on the id of a run."""

    claim: RunClaim | None = None
    """The claim behind it; None if the database has no journals."""

    async def on_record(self) -> TakenRun | None:
        """Return the run with a journal that has this id and has not ended, if there is one."""
        return None


class _Claim(RunLease):
    """A claim to the run, by a run that records nothing."""

    _found: ClaimedRun | None = None

    async def _take(self) -> bool:
        found = await self._journals.claim_run(self._run_id, self._owner, self._seconds)
        if found is None or (self._found is not None and len(found.steps) != len(self._found.steps)):
            return False  # another process has the run, or had it while this one was frozen
        self._found, self.claim = found, found.claim
        return True

    async def _give_back(self) -> None:
        if self.claim is not None:
            await self._journals.release_claim(self.claim)

    async def on_record(self) -> TakenRun | None:
        """Return the run with a journal that has this id and has not ended, if there is one."""
        found = self._found
        if found is None or not (found.steps or found.about):
            return None
        request = await self._journals.load_request(self._run_id)
        return TakenRun(found.claim, request or b"") if found.steps or request is not None else None

    @property
    def _journals(self) -> JournalDb:
        assert isinstance(self._db, JournalDb)
        return self._db


@asynccontextmanager
async def had(db: Db, run_id: str, untouched: Untouched | None = None) -> AsyncIterator[RunLease | None]:
    """Keep other processes from the run inside the block. Yields None if another process has it.

    Args:
        db: The database.
        run_id: The run.
        untouched: As for a `Lease`; None: the run is paused, and has to be so still.
    """

    async def waits() -> bool:
        row = await db.load_run(run_id)
        return row is not None and row.status == RunStatus.paused.value

    kind = _Claim if isinstance(db, JournalDb) else RunLease
    lease = kind(
        db,
        lease_of_run(run_id),
        run_id,
        what=f"the run {run_id!r}",
        untouched=untouched or waits,
        seconds=CLAIM_SECONDS,
        renew=CLAIM_RENEW_SECONDS,
    )
    try:
        yield lease if await lease.acquire(wait=False) else None
    finally:
        await lease.released()


@asynccontextmanager
async def reserved(db: Db, run_id: str) -> AsyncIterator[Lease | None]:
    """Reserve a run id that the caller chose, across processes. Yields None if another process has it.

    Raises:
        OnRecord: A run with a journal has this id.
    """

    async def untouched() -> bool:
        row = await db.load_run(run_id)
        return row is None or row.status in (RunStatus.error.value, RunStatus.cancelled.value)

    async with had(db, run_id, untouched) as lease:
        await _not_on_record(lease)
        yield lease


@asynccontextmanager
async def claimed(db: Db, run_id: str) -> AsyncIterator[Lease]:
    """Claim a paused run, so that only one process continues it.

    Raises:
        RunConflictError: The run is being continued already.
        OnRecord: It was continued with a journal, and the process has died.
    """
    async with had(db, run_id) as lease:
        if lease is None:
            raise RunConflictError(f"run {run_id!r} is being continued already")
        await _not_on_record(lease)
        yield lease


async def _not_on_record(lease: RunLease | None) -> None:
    if lease is not None and (run := await lease.on_record()) is not None:
        raise OnRecord(run)


async def claimed_elsewhere(db: Db, run_id: str) -> bool:
    """Whether another process is continuing or repeating the run right now, without a journal.

    The run is asked for 0 seconds: a process that begins at this moment is not kept from it.
    """
    if isinstance(db, JournalDb):
        found = await db.claim_run(run_id, new_owner(), 0.0)
        if found is not None:
            await db.release_claim(found.claim)
        return found is None
    name, owner = lease_of_run(run_id), new_owner()
    if not await db.acquire_lease(name, owner, 0.0):
        return True
    await db.release_lease(name, owner)
    return False
