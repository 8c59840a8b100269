"""A Temporal worker that is killed: `temporal_app ADDRESS QUEUE`."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from temporalio.client import Client
from temporalio.worker import Worker

from kern.engines.temporal import TemporalRuns
from tests.engines.worker_app import team


async def main(address: str, queue: str) -> None:
    runs = TemporalRuns(team)
    client = await Client.connect(address)
    worker = Worker(
        client,
        task_queue=queue,
        workflows=runs.workflows,
        activities=runs.activities,
        graceful_shutdown_timeout=timedelta(0),
    )
    async with worker:
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
