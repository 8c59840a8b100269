"""A run that outlives its process, with nothing but a database: it is submitted here, and a worker does it.

In earnest the worker is a process of its own, or several on any machine that reaches the database:

    kern worker examples/durable_worker.py:desk
"""

import asyncio

from kern import Agent, RunContext, tool
from kern.db import SqliteDb
from kern.durable import DbJournal
from kern.engines import Worker, submission, submit


@tool(effect="idempotent")
def book(place: str, run_context: RunContext) -> str:
    """Book a table.

    Args:
        place: The restaurant.
    """
    return f"booked at {place}, under {run_context.run_id}"


db = SqliteDb("desk.db")
desk = Agent(id="desk", tools=[book], db=db, journal=DbJournal(db))


async def main() -> None:
    """Submit a run, have it done, and read what it came to."""
    run = submission(desk, "Book a table at Roma", session_id="ann", run_id="booking-7")
    print("new:", await submit(desk, run))
    worker = Worker(desk, poll_seconds=0.1)
    working = asyncio.create_task(worker.work())
    async for event in desk.follow(run.run_id):  # from any process
        print(event.event)
    worker.stop()
    await working
    output = await desk.aget_run_output(run.run_id)
    print(output.content if output is not None else None)


if __name__ == "__main__":
    asyncio.run(main())
