"""Durable runs as workflows of Temporal: one workflow with one activity for each run.

Kern stores the steps. Temporal stores the request, notices that a process has died, and starts the activity
in another one. Only the request, with its media, and the final status go through Temporal. Needs the extra
`temporal`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from kern._json import json_bytes
from kern._numbers import check_seconds
from kern.durable.same_run import check_same_submission
from kern.durable.submission import Submission
from kern.engines.driving import Runner, by_id, drive, journal_of
from kern.errors import KernError, MissingExtraError, SessionDeletedError, SessionOwnershipError, UsageError

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
MOST_BYTES = 1_900_000
"""The largest request in bytes: by default a Temporal server refuses payloads above 2 MB."""
_MEMO = "kern-run"
"""The key in the memo of a workflow for the owner of the run and the fingerprint of its input."""
LONGEST = timedelta(days=365)


@workflow.defn(name="KernRun", sandboxed=False)
class DurableRun:
    """The workflow of one run. Its result is the run's final status: "COMPLETED", "ERROR", "PAUSED"..."""

    @workflow.run
    async def run(self, request: dict[str, Any], heartbeat_seconds: float) -> str:
        """Run the activity, which drives the run to its end."""
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
    """The workflows and activities that a Temporal worker needs to drive runs of agents and teams.

        runs = TemporalRuns(desk)
        async with Worker(
            client, task_queue="kern", workflows=runs.workflows, activities=runs.activities
        ): ...

    Args:
        runners: The agents and teams. Each needs an id, and a database that other processes can open.

    Raises:
        UsageError: One of them has no id, or no such database.
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
        except (UsageError, SessionDeletedError, SessionOwnershipError) as error:
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
                await runner.acancel_run(run.run_id)  # the run ends, with status CANCELLED
            else:
                driving.cancel()  # the run does not end; another attempt resumes it
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
    """Start a run on a worker of that queue. `await handle.result()` returns its final status.

    The run id is also the id of the workflow: a run that is in progress is not started twice, and for one
    that has ended the stored status is returned.

    Args:
        client: The connection to Temporal.
        run: The result of `kern.engines.submission`.
        task_queue: The queue of the workers.
        heartbeat_seconds: The seconds without a heartbeat after which a worker counts as dead.

    Raises:
        UsageError: A file of the input cannot be read, or the request is too large for Temporal.
        SessionOwnershipError: The run of that id is in progress, and belongs to another user.
        RunMismatch: The run of that id is in progress, and has other values.
    """
    check_seconds("heartbeat_seconds", heartbeat_seconds, endless=False)
    run = await run.with_files()
    request = run.to_dict()
    if (size := len(json_bytes(request))) > MOST_BYTES:
        raise UsageError(
            f"the request of run {run.run_id!r} has {size:,} bytes, with its media; Temporal accepts at most "
            f"{MOST_BYTES:,}: pass large media by URL, or submit the run to Kern's own worker"
        )
    named = replace(
        run, input="", messages=None, media=None, session_state=None, metadata=None, dependencies=None
    )
    handle = await client.start_workflow(
        DurableRun.run,
        args=[request, heartbeat_seconds],
        id=run.run_id,
        task_queue=task_queue,
        id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        memo={_MEMO: named.to_dict()},
    )
    # Temporal returns the workflow with this id, even if it has another request.
    known = await (await handle.describe()).memo_value(_MEMO, None)
    if isinstance(known, dict):
        check_same_submission(Submission.from_dict(known), run)
    return handle
