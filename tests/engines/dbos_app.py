"""A process in which DBOS drives runs, and that is killed: `dbos_app EXECUTOR-ID [RUN-ID]`."""

from __future__ import annotations

import asyncio
import sys

from dbos import DBOS

from kern.engines import submission
from kern.engines.dbos import DbosRuns
from tests.engines.worker_app import FOLDER, team


async def main(executor: str, run_id: str | None = None) -> None:
    DBOS(
        config={
            "name": "kern-tests",
            "system_database_url": f"sqlite:///{FOLDER}/dbos.db",
            "executor_id": executor,
            "application_version": "1",
            "log_level": "ERROR",
        }
    )
    runs = DbosRuns(team)
    DBOS.launch()
    if run_id is not None:
        await runs.start(submission(team, "go", session_id="s", run_id=run_id))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
