"""A durable run that DBOS begins, and goes on with at the next start of its process. No server: SQLite.

Needs `pip install "kern-agents[dbos]"`.
"""

import asyncio

from dbos import DBOS, DBOSConfig

from kern import Agent, RunContext, tool
from kern.db import SqliteDb
from kern.durable import DbJournal
from kern.engines import submission
from kern.engines.dbos import DbosRuns


@tool(effect="idempotent")
def book(place: str, run_context: RunContext) -> str:
    """Book a table.

    Args:
        place: The restaurant.
    """
    return f"booked at {place}, under {run_context.run_id}"


db = SqliteDb("desk.db")
desk = Agent(id="desk", tools=[book], db=db, journal=DbJournal(db))

# Each process has an executor_id of its own, the same after its restart: DBOS finds by it what was begun.
config = DBOSConfig(
    name="desk", system_database_url="sqlite:///dbos.db", executor_id="desk-1", log_level="ERROR"
)


async def main() -> None:
    """Go on with what was begun, and ask for a run."""
    DBOS(config=config)
    runs = DbosRuns(desk)
    DBOS.launch()
    run = submission(desk, "Book a table at Roma", session_id="ann", run_id="booking-7")
    handle = await runs.start(run)
    print(await handle.get_result())
    output = await desk.aget_run_output(run.run_id)
    print(output.content if output is not None else None)
    DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main())
