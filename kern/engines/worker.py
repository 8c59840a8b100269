"""Kern's own worker, for those who have only a database.

It takes submitted runs, and goes on with those whose process has died.

It grows no schedules, priorities or rates: engines have these.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final

from kern._log import named
from kern.db.base import Db
from kern.durable.db_journal import CLAIM_SECONDS, DbJournal, Taken
from kern.durable.submission import Submission
from kern.engines.driving import Runner, by_id, drive, journal_of
from kern.errors import KernError, RunLostError, SessionDeletedError, StoreError, UsageError

log: Final = named("kern")

MOST_ATTEMPTS = 20
LONGEST_PAUSE = 300.0
_LEFT = "mend that, or give it up with DbJournal(db).forget(run_id)"


class Worker:
    """Takes submitted runs of agents and teams, and drives them to their ends.

        worker = Worker(desk)
        await worker.work()  # until stop()

    Any number of workers, in any number of processes, share the runs of one database. A run whose worker has
    died is gone on with by another one once its claim is over.

    Args:
        runners: The agents and teams, all with the same database; each has an id of its own.
        at_once: How many runs it has at a time.
        poll_seconds: How often an idle worker looks for runs.
        claim_seconds: For how long a worker that has died keeps others from its runs.
        attempts: How often a run is begun, or gone on with, before it is left for a person to look at.

    Raises:
        UsageError: They do not have one database that other processes see, or one has no id.
    """

    def __init__(
        self,
        *runners: Runner,
        at_once: int = 10,
        poll_seconds: float = 1.0,
        claim_seconds: float = CLAIM_SECONDS,
        attempts: int = MOST_ATTEMPTS,
    ) -> None:
        if at_once < 1 or poll_seconds <= 0 or attempts < 1:
            raise UsageError(
                f"at_once and attempts are at least 1 and poll_seconds is above 0, not {at_once!r}, "
                f"{attempts!r} and {poll_seconds!r}"
            )
        self._runners = by_id(runners)
        journals = [journal_of(runner, claim_seconds) for runner in runners]
        if len({journal.db.identity for journal in journals}) > 1:
            raise UsageError("the agents and teams of a worker have one database: use a worker for each")
        self._journal: DbJournal = journals[0]
        self._at_once = at_once
        self._pause = poll_seconds
        self._attempts = attempts
        self._stopping = asyncio.Event()
        self._runs: set[asyncio.Task[None]] = set()

    @property
    def db(self) -> Db:
        """The database whose runs it takes."""
        return self._journal.db

    async def work(self) -> None:
        """Take runs until `stop`; then let go of those that go on, for other workers.

        A database that cannot be reached is tried again.
        """
        ids = list(self._runners)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            while not self._stopping.is_set():
                taken = await self._take(ids) if len(self._runs) < self._at_once else None
                if taken is not None:
                    self._runs.add(asyncio.create_task(self._drive(taken), name=f"run {taken.claim.run_id}"))
                    continue
                idle = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret hangs on it
                waiting = {stopping, *self._runs}
                await asyncio.wait(waiting, timeout=idle, return_when=asyncio.FIRST_COMPLETED)
                self._runs = {run for run in self._runs if not run.done()}
        finally:
            stopping.cancel()
            await self._let_go()

    def stop(self) -> None:
        """Have `work` let go of its runs and return; for signal handlers, on the event loop."""
        self._stopping.set()

    async def _take(self, ids: list[str]) -> Taken | None:
        try:
            return await self._journal.take(ids)
        except StoreError as error:
            log.warning("worker: %s cannot be asked for runs: %s", self.db, error)
            return None

    async def _drive(self, taken: Taken) -> None:
        run_id, attempt = taken.claim.run_id, taken.claim.attempt
        try:
            run = Submission.from_dict(taken.request)
            if attempt > self._attempts:
                raise UsageError(f"it was begun {attempt - 1} times, and its process has died each time")
            output = await drive(self._runners[run.runner_id], run, taken)
            log.info("worker: run %s stands at %s", run_id, output.status.value)
            await taken.done_with()
        except (RunLostError, SessionDeletedError) as error:
            log.warning("worker: %s", error)
        except Exception as error:  # noqa: BLE001 - it is logged, and the other runs go on
            await self._put_off(taken, error)

    async def _put_off(self, taken: Taken, why: Exception) -> None:
        """A run that has not ended, and cannot be gone on with now."""
        run_id, attempt = taken.claim.run_id, taken.claim.attempt
        if isinstance(why, KernError) and not isinstance(why, UsageError):
            pause = min(LONGEST_PAUSE, 2.0 ** min(attempt, 10))
            log.warning("worker: run %s has not ended, and is tried again in %g s: %s", run_id, pause, why)
        else:
            pause = LONGEST_PAUSE
            log.error("worker: run %s cannot go on: %s; %s", run_id, why, _LEFT, exc_info=why)
        try:
            await taken.put_off(pause)
        except StoreError as error:
            log.warning("worker: run %s was not put off: %s", run_id, error)

    async def _let_go(self) -> None:
        """Durable runs whose task is cancelled have not ended: another worker goes on with them."""
        for run in self._runs:
            run.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)
