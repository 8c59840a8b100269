"""Durable runs that Temporal begins, and begins again: one workflow with one activity for each run.

Kern keeps the steps; Temporal keeps the request, sees that the process has died, and starts the activity in
another one. Nothing of the run goes through Temporal but what it is asked and where it stands: no limit of a
payload's size matters. Needs the extra `temporal`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from kern.durable.submission import Submission
from kern.engines.driving import Runner, by_id, drive, journal_of
from kern.errors import KernError, MissingExtraError, SessionDeletedError, UsageError

try:
    from temporalio import activity, workflow
    from temporalio.client import Client, WorkflowHandle
    from temporalio.common import RetryPolicy, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
    from temporalio.exceptions import ApplicationError
except ImportError as _missing:
    raise MissingExtraError("temporalio", "temporal") from _missing

__all__ = ["DurableRun", "TemporalRuns", "start_run"]

ACTIVITY = "kern-run"
HEARTBEAT_SECONDS = 10.0
LONGEST = timedelta(days=365)


@workflow.defn(name="KernRun", sandboxed=False)
class DurableRun:
    """The workflow of one run; its result says where the run stands: "COMPLETED", "ERROR", "PAUSED"..."""

    @workflow.run
    async def run(self, request: dict[str, Any], heartbeat_seconds: float) -> str:
        """Have the run driven to its end by whoever has the activity."""
        stands_at: str = await workflow.execute_activity(
            ACTIVITY,
            request,
            result_type=str,
            start_to_close_timeout=LONGEST,
            heartbeat_timeout=timedelta(seconds=heartbeat_seconds),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            retry_policy=RetryPolicy(
                initial_interval=timedelta(milliseconds=500),
                maximum_interval=timedelta(seconds=30),
            ),
        )
        return stands_at


class TemporalRuns:
    """What a Temporal worker needs to drive runs of agents and teams.

        runs = TemporalRuns(desk)
        async with Worker(
            client, task_queue="kern", workflows=runs.workflows, activities=runs.activities
        ): ...

    Args:
        runners: The agents and teams; each has an id, and a database that other processes see.

    Raises:
        UsageError: One has no id or no such database.
    """

    def __init__(self, *runners: Runner) -> None:
        self._runners = by_id(runners)
        for runner in runners:
            journal_of(runner)

    @property
    def workflows(self) -> Sequence[type]:
        """For `Worker(workflows=)`."""
        return [DurableRun]

    @property
    def activities(self) -> Sequence[Callable[..., Coroutine[Any, Any, str]]]:
        """For `Worker(activities=)`."""

        @activity.defn(name=ACTIVITY)
        async def kern_run(request: dict[str, Any]) -> str:
            return await self._activity(request)

        return [kern_run]

    async def _activity(self, request: Mapping[str, Any]) -> str:
        try:
            run = Submission.from_dict(request)
            runner = self._runners.get(run.runner_id)
            if runner is None:
                raise UsageError(
                    f"this worker has no agent or team {run.runner_id!r}, only {', '.join(self._runners)}"
                )
            beats = asyncio.create_task(_beat())
            try:
                return await self._driven(runner, run)
            finally:
                beats.cancel()
        except (UsageError, SessionDeletedError) as error:
            raise ApplicationError(str(error), type=type(error).__name__, non_retryable=True) from error
        except KernError as error:
            raise ApplicationError(str(error), type=type(error).__name__) from error

    async def _driven(self, runner: Runner, run: Submission) -> str:
        driving = asyncio.create_task(drive(runner, run, journal_of(runner)))
        try:
            await asyncio.wait([driving])
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            if details is not None and details.cancel_requested:
                await runner.acancel_run(run.run_id)  # the run ends, committed as cancelled
            else:
                driving.cancel()  # it is let go, and goes on in another attempt
            with suppress(asyncio.CancelledError, KernError):
                await driving
            raise
        return driving.result().status.value


async def _beat() -> None:
    timeout = activity.info().heartbeat_timeout
    pause = HEARTBEAT_SECONDS if timeout is None else timeout.total_seconds()
    while True:
        activity.heartbeat()
        await asyncio.sleep(pause / 3)


async def start_run(
    client: Client,
    run: Submission,
    *,
    task_queue: str,
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> WorkflowHandle[DurableRun, str]:
    """Have a run begun by a worker on that queue; `await handle.result()` says where it stands in the end.

    The id of the workflow is the run's: a run that goes on is not started twice, and one that has ended is
    looked up, not done again.

    Args:
        client: The connection to Temporal.
        run: What `kern.engines.submission` made.
        task_queue: The queue of the workers.
        heartbeat_seconds: After how long without a sign of life a worker counts as dead.
    """
    run = await run.with_files()
    return await client.start_workflow(
        DurableRun.run,
        args=[run.to_dict(), heartbeat_seconds],
        id=run.run_id,
        task_queue=task_queue,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
    )
