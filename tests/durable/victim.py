"""Processes that drive a durable run, note what they are at, and are killed or frozen in it.

Run as a program it is a nursery: for each line of JSON on its input it forks a process that drives the run.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kern.db.base import Commit, Committed, Db
from kern.db.journals import EventRow, RunClaim, StepRow
from kern.db.sqlite import SqliteDb
from kern.durable import DbJournal
from kern.errors import KernError
from kern.run.output import TeamRunOutput
from kern.team import Team
from tests.durable.desk import Ledger, desk

BEGINS = {"asked": "model", "begun": "tool", "append": "commit", "end": "end"}
"""What a line in the ledger says is being done from now on."""
ENDS = {"model": "model", "tool": "tool", "appended": "commit", "ended": "end"}


@dataclass
class Death:
    """Kill this process at the n-th time that it is at something, a little later."""

    at: str
    number: int
    delay: float


class DeadlyLedger(Ledger):
    """A ledger that kills who writes to it."""

    def __init__(self, path: Path, death: Death | None) -> None:
        super().__init__(path)
        self._death = death
        self._seen: Counter[str] = Counter()

    def add(self, *words: object) -> None:
        super().add(*words)
        death, at = self._death, BEGINS.get(str(words[0]))
        if death is None or at is None:
            return
        self._seen[at] += 1
        if at == death.at and self._seen[at] == death.number:
            threading.Thread(target=_die, args=(death.delay,), daemon=True).start()


def _die(delay: float) -> None:
    time.sleep(delay)
    os.kill(os.getpid(), signal.SIGKILL)


def noted(kind: type[Any], ledger: Ledger) -> type[Any]:
    """A database of that kind that notes when it writes steps and ends."""

    class NotedDb(kind):
        async def append_steps(
            self,
            claim: RunClaim,
            seconds: float,
            steps: Sequence[StepRow],
            events: Sequence[EventRow] = (),
        ) -> bool:
            ledger.add("append", len(steps))
            done: bool = await super().append_steps(claim, seconds, steps, events)
            ledger.add("appended", len(steps))
            return done

        async def commit(self, commit: Commit) -> Committed:
            ledger.add("end")
            committed: Committed = await super().commit(commit)
            ledger.add("ended")
            return committed

    return NotedDb


def database(where: str, ledger: Ledger) -> Db:
    """The database at that place: a path, or the DSN of a Postgres server and the name of the tables."""
    if where.startswith("{"):
        from kern.db.postgres import PostgresDb

        options = json.loads(where)
        db: Db = noted(PostgresDb, ledger)(options["dsn"], session_table=options["table"])
        return db
    stored: Db = noted(SqliteDb, ledger)(where)
    return stored


async def live(order: dict[str, Any]) -> dict[str, Any]:
    """Drive the run, or go on with it; what it came to, as JSON."""
    folder = Path(order["folder"])
    death = Death(**order["death"]) if order.get("death") else None
    ledger = DeadlyLedger(folder / "ledger", death)
    db = database(order["db"], ledger)
    journal = DbJournal(db, claim_seconds=order.get("claim_seconds", 0.3))
    team = desk(ledger, db, journal, pace=order.get("pace", 0.004))
    begun = time.monotonic()
    while True:
        try:
            output = await team.arun("go", session_id=order["session"], run_id=order["run"])
            break
        except KernError as error:
            if type(error).__name__ != "SessionBusyError" or time.monotonic() - begun > 15:
                return {"error": type(error).__name__, "text": str(error)}
            await asyncio.sleep(0.05)  # the claim of the one that has died is not over yet
    result = await come_to(team, db, output, order["session"])
    await db.aclose()
    return result


async def come_to(team: Team, db: Db, output: TeamRunOutput, session_id: str) -> dict[str, Any]:
    """What a run has come to, as JSON."""
    rows = await db.load_runs(session_id, top_level=False)
    changes = await db.load_changes(session_id)
    return {
        "output": output.to_dict(),
        "state": await team.aget_session_state(session_id=session_id),
        "rows": sorted([row.run_id, row.status] for row in rows),
        "revisions": [change.revision for change in changes],
        "calls": [change.tool_call_id for change in changes],
        "unfinished": await DbJournal(db).unfinished(),
    }


def work(order: dict[str, Any]) -> None:
    """The life of one process."""
    random.seed()
    result = asyncio.run(live(order))
    path = Path(order["folder"]) / order["result"]
    path.with_suffix(".tmp").write_text(json.dumps(result))
    path.with_suffix(".tmp").replace(path)


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            try:
                work(order)
                os._exit(0)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
        if order.get("detached"):
            print(json.dumps({"pid": child}), flush=True)
            continue
        _, status = os.waitpid(child, 0)
        print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
