"""Durable runs that DBOS begins, and begins again at the next start of its process: one workflow each.

Kern keeps the steps; DBOS keeps the request, and finds at its start which runs have not ended. It needs no
server: an SQLite file or Postgres will do. Needs the extra `dbos`.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

from kern._log import named
from kern.durable.submission import Submission
from kern.engines.driving import Runner, by_id, drive, journal_of
from kern.errors import (
    KernError,
    MissingExtraError,
    RunLostError,
    SessionDeletedError,
    ShutdownError,
    UsageError,
)

try:
    from dbos import DBOS, SetWorkflowID, WorkflowHandleAsync
except ImportError as _missing:
    raise MissingExtraError("dbos", "dbos") from _missing

__all__ = ["DbosRuns"]

log: Final = named("kern")

LONGEST_PAUSE = 30.0


class DbosRuns:
    """Durable runs of agents and teams as workflows of DBOS.

        DBOS(config=config)
        runs = DbosRuns(desk)
        DBOS.launch()
        handle = await runs.start(submission(desk, "Book a table", session_id="s"))
        await handle.get_result()  # "COMPLETED"

    Make it in every process, before `DBOS.launch()`, which goes on with the runs that the process of the same
    executor id had.

    Args:
        runners: The agents and teams; each has an id, and a database that other processes see.
        name: The name of the workflow, the same in all processes and versions of the application.

    Raises:
        UsageError: One has no id or no such database.
    """

    def __init__(self, *runners: Runner, name: str = "kern-run") -> None:
        self._runners = by_id(runners)
        for runner in runners:
            journal_of(runner)

        @DBOS.workflow(name=name)
        async def kern_run(request: dict[str, Any]) -> str:
            return await self._workflow(request)

        self._kern_run = kern_run

    async def start(self, run: Submission) -> WorkflowHandleAsync[str]:
        """Begin the run, in this process; `await handle.get_result()` says where it stands in the end.

        The id of the workflow is the run's: a run that goes on, or has ended, is not started again.
        """
        run = await run.with_files()
        with SetWorkflowID(run.run_id):
            return await DBOS.start_workflow_async(self._kern_run, run.to_dict())

    async def _workflow(self, request: dict[str, Any]) -> str:
        run = Submission.from_dict(request)
        runner = self._runners.get(run.runner_id)
        if runner is None:
            raise UsageError(f"there is no agent or team {run.runner_id!r}, only {', '.join(self._runners)}")
        pause = 0.5
        while True:
            try:
                return (await drive(runner, run, journal_of(runner))).status.value
            except (UsageError, SessionDeletedError):
                raise
            except ShutdownError as error:  # DBOS would store it as the end of the workflow
                raise asyncio.CancelledError(str(error)) from error
            except RunLostError as error:
                log.warning("dbos: %s", error)
            except KernError as error:
                # Another process has the run, or its claim is not over yet, or the database is away.
                log.info("dbos: run %s is tried again in %g s: %s", run.run_id, pause, error)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret hangs on it
            pause = min(2 * pause, LONGEST_PAUSE)
