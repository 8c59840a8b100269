"""Durable runs as workflows of DBOS, one per run. DBOS starts a run again when its process is started again.

Kern stores the steps; DBOS stores the request, and finds the runs that have not ended when it starts. DBOS
needs no server, only an SQLite file or Postgres. Needs the extra `dbos`.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

from kern._log import named
from kern.durable.same_run import check_same_submission
from kern.durable.submission import Submission
from kern.engines.driving import Runner, by_id, check_known, drive, journal_of
from kern.errors import (
    KernError,
    MissingExtraError,
    RunLostError,
    SessionDeletedError,
    SessionOwnershipError,
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

    Create it in every process, before `DBOS.launch()`. The launch resumes the runs of the earlier process
    with the same executor id.

    Args:
        runners: The agents and teams. Each needs an id, and a database that other processes can open.
        name: The name of the workflow; the same in all processes and versions of the application.

    Raises:
        UsageError: One of them has no id, or no such database.
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
        """Start the run in this process. `await handle.get_result()` returns its final status, such as
        "COMPLETED".

        The run id is also the id of the workflow: a run that is in progress, or has ended, is not started
        again.

        Raises:
            UsageError: There is no agent or team with that id here, or a file of the input cannot be read.
            SessionOwnershipError: The session, or the run of that id, belongs to another user.
            RunMismatch: The id belongs to a run with other values.
            SessionDeletedError: DBOS knows the run as ended, but it was deleted from Kern's database.
            StoreError: The database failed.
        """
        run = await run.with_files()
        stored = await check_known(self._runner(run), run)
        with SetWorkflowID(run.run_id):
            handle = await DBOS.start_workflow_async(self._kern_run, run.to_dict())
        # DBOS returns the workflow with this id, even if it has another request.
        status = await handle.get_status()
        args = () if status.input is None else status.input["args"]
        if args and isinstance(args[-1], dict):
            check_same_submission(Submission.from_dict(args[-1]), run)
        if not stored and status.status == "SUCCESS" and not await check_known(self._runner(run), run):
            raise SessionDeletedError(run.session_id)
        return handle

    def _runner(self, run: Submission) -> Runner:
        runner = self._runners.get(run.runner_id)
        if runner is None:
            raise UsageError(f"there is no agent or team {run.runner_id!r}, only {', '.join(self._runners)}")
        return runner

    async def _workflow(self, request: dict[str, Any]) -> str:
        run = Submission.from_dict(request)
        runner, pause = self._runner(run), 0.5
        while True:
            try:
                return (await drive(runner, run, journal_of(runner))).status.value
            except (UsageError, SessionDeletedError, SessionOwnershipError):
                raise
            except ShutdownError as error:  # any other error would end the workflow for DBOS
                raise asyncio.CancelledError(str(error)) from error
            except RunLostError as error:
                log.warning("dbos: %s", error)
            except KernError as error:
                # Another process has the run, its claim has not expired, or the database cannot be reached.
                log.info("dbos: run %s is retried in %g s: %s", run.run_id, pause, error)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            pause = min(2 * pause, LONGEST_PAUSE)
