"""A durable run that Temporal begins, and begins again if its worker dies: one workflow for each run.

Needs `pip install "kern-agents[temporal]"` and a server, such as that of `temporal server start-dev`. Workers
and those who ask are processes of their own in earnest; here one does both.
"""

import asyncio
import os

from temporalio.client import Client
from temporalio.worker import Worker

from kern import Agent, RunContext, tool
from kern.db import SqliteDb
from kern.durable import DbJournal
from kern.engines import submission
from kern.engines.temporal import TemporalRuns, start_run


@tool(effect="idempotent")
def book(place: str, run_context: RunContext) -> str:
    """Book a table.

    Args:
        place: The restaurant.
    """
    return f"booked at {place}, under {run_context.run_id}"


db = SqliteDb("desk.db")
desk = Agent(id="desk", tools=[book], db=db, journal=DbJournal(db))
runs = TemporalRuns(desk)


async def main() -> None:
    """Work on a queue, and ask for a run."""
    client = await Client.connect(os.environ.get("TEMPORAL_ADDRESS", "127.0.0.1:7233"))
    async with Worker(client, task_queue="kern", workflows=runs.workflows, activities=runs.activities):
        run = submission(desk, "Book a table at Roma", session_id="ann", run_id="booking-7")
        handle = await start_run(client, run, task_queue="kern")
        print(await handle.result())
    output = await desk.aget_run_output(run.run_id)
    print(output.content if output is not None else None)


if __name__ == "__main__":
    asyncio.run(main())
