"""Kern's own worker, which needs only a database.

It executes submitted runs, and resumes runs whose process has died. It has no schedules, priorities or rate
limits, on purpose: use another engine for these.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final

from kern._error_text import error_text
from kern._keywords import ChecksArguments
from kern._log import named
from kern._numbers import check_seconds, check_whole
from kern.db.base import Db
from kern.durable.db_journal import CLAIM_SECONDS, DbJournal, Taken
from kern.durable.submission import Submission
from kern.engines.driving import Runner, by_id, drive, journal_of
from kern.errors import (
    KernError,
    RunLostError,
    SessionDeletedError,
    SessionOwnershipError,
    UsageError,
)

log: Final = named("kern")

MOST_ATTEMPTS = 20
LONGEST_PAUSE = 300.0
_LEFT = "fix the cause, or drop the run with DbJournal(db).forget(run_id)"


class Worker(ChecksArguments):
    """Takes submitted runs of agents and teams from the database, and executes them.

        worker = Worker(desk)
        await worker.work()  # until stop()

    Any number of workers, in any number of processes, share the runs of one database. If a worker dies,
    another one resumes its runs once the claims have expired.

    Args:
        runners: The agents and teams. All need the same database, and each a different id.
        at_once: The maximum number of runs at the same time.
        poll_seconds: How often an idle worker looks for runs, in seconds.
        claim_seconds: After how many seconds other workers may take over the runs of a worker that has died.
        attempts: The maximum number of attempts at a run. After that, the run waits for a person.

    Raises:
        UsageError: They have different databases, other processes cannot open the database, or one has no id.
    """

    def __init__(
        self,
        *runners: Runner,
        at_once: int = 10,
        poll_seconds: float = 1.0,
        claim_seconds: float = CLAIM_SECONDS,
        attempts: int = MOST_ATTEMPTS,
    ) -> None:
        check_whole("at_once", at_once, 1)
        check_whole("attempts", attempts, 1)
        check_seconds("poll_seconds", poll_seconds, endless=False)
        check_seconds("claim_seconds", claim_seconds, endless=False)
        self._runners = by_id(runners)
        journals = [journal_of(runner, claim_seconds) for runner in runners]
        if len({journal.db.identity for journal in journals}) > 1:
            raise UsageError(
                "the agents and teams of a worker must share one database: use a worker for each"
            )
        self._journal: DbJournal = journals[0]
        self._at_once = at_once
        self._pause = poll_seconds
        self._attempts = attempts
        self._stopping = asyncio.Event()
        self._runs: set[asyncio.Task[None]] = set()

    @property
    def db(self) -> Db:
        """The database from which the worker takes runs."""
        return self._journal.db

    async def work(self) -> None:
        """Take runs until `stop`; then release the runs in progress, for other workers.

        If the database cannot be reached, it is tried again.
        """
        ids = list(self._runners)
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            while not self._stopping.is_set():
                taken = await self._take(ids) if len(self._runs) < self._at_once else None
                if taken is not None:
                    self._runs.add(asyncio.create_task(self._drive(taken), name=f"run {taken.claim.run_id}"))
                    continue
                idle = self._pause * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
                waiting = {stopping, *self._runs}
                await asyncio.wait(waiting, timeout=idle, return_when=asyncio.FIRST_COMPLETED)
                self._runs = {run for run in self._runs if not run.done()}
        finally:
            stopping.cancel()
            await self._release_runs()

    def stop(self) -> None:
        """Make `work` release its runs and return. For signal handlers; call it on the event loop."""
        self._stopping.set()

    async def _take(self, ids: list[str]) -> Taken | None:
        try:
            return await self._journal.take(ids)
        except Exception as error:  # noqa: BLE001 - also of a database of the application's own
            log.warning("worker: cannot read the runs in %s: %s", self.db, error_text(error))
            return None

    async def _drive(self, taken: Taken) -> None:
        run_id, attempt = taken.claim.run_id, taken.claim.attempt
        try:
            run = Submission.from_dict(taken.request)
            if attempt > self._attempts:
                raise UsageError(
                    f"its process died in every attempt ({attempt - 1} so far), so it is not tried again"
                )
            output = await drive(self._runners[run.runner_id], run, taken)
            why = f": {output.error}" if output.error else ""
            log.info("worker: run %s has status %s%s", run_id, output.status.value, why)
            await taken.done_with()
        except (RunLostError, SessionDeletedError) as error:
            log.warning("worker: %s", error)
        except SessionOwnershipError as error:  # it never can be committed there
            log.error("worker: run %s has ended, refused: %s", run_id, error)
            await self._forget(taken)
        except Exception as error:  # noqa: BLE001 - it is logged, and the other runs continue
            await self._put_off(taken, error)

    async def _forget(self, taken: Taken) -> None:
        """Delete the request of a run that was refused."""
        try:
            await taken.done_with()
        except Exception as error:  # noqa: BLE001 - its claim expires
            log.warning("worker: run %s was not deleted: %s", taken.claim.run_id, error)

    async def _put_off(self, taken: Taken, why: Exception) -> None:
        """Postpone a run that has not ended and cannot continue now."""
        run_id, attempt = taken.claim.run_id, taken.claim.attempt
        if isinstance(why, KernError) and not isinstance(why, UsageError):
            pause = min(LONGEST_PAUSE, 2.0 ** min(attempt, 10))
            log.warning("worker: run %s has not ended, and is retried in %g s: %s", run_id, pause, why)
        else:
            pause = LONGEST_PAUSE
            log.error("worker: run %s cannot continue: %s; %s", run_id, why, _LEFT, exc_info=why)
        try:
            await taken.put_off(pause)
        except Exception as error:  # noqa: BLE001 - its claim expires
            log.warning("worker: run %s could not be postponed: %s", run_id, error)

    async def _release_runs(self) -> None:
        """Cancel the tasks. This does not end the durable runs: another worker resumes them."""
        for run in self._runs:
            run.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)
