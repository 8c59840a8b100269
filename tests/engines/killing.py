"""Killing whoever drives a run, and what a test checks after another one has gone on."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kern.durable import DbJournal
from kern.engines import submission
from kern.run.output import RunStatus, TeamRunOutput
from tests.durable.desk import Ledger, desk
from tests.durable.nursery import wrong
from tests.durable.test_kills import PostgresTables, SqliteFiles
from tests.durable.victim import come_to, database
from tests.processes import ROOT, environment

LINES = 60
"""A run leaves a few more lines in its ledger."""
SECONDS = 40.0

Kept = SqliteFiles | PostgresTables


class Process:
    """A program that drives runs; what it prints goes into a file."""

    def __init__(self, command: Sequence[str], folder: Path, db: str, more: dict[str, str]) -> None:
        told = {"KERN_TEST_FOLDER": str(folder), "KERN_TEST_DB": db, **more}
        with (folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                env={**environment(), **told},
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.pid = self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def terminate(self) -> int:
        self._process.terminate()
        return self._process.wait(timeout=SECONDS)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None


@contextmanager
def processes(folder: Path, db: str, **more: str) -> Iterator[Callable[..., Process]]:
    """Starts programs, and ends those that are left."""
    started: list[Process] = []

    def start(*command: str) -> Process:
        started.append(Process(command, folder, db, more))
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            if process.alive:
                process.kill()


def until(what: Callable[[], bool], folder: Path, seconds: float = SECONDS) -> None:
    """Wait for it."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, (folder / "log").read_text()[-3000:]
        time.sleep(0.002)


def drivers(ledger: Ledger) -> list[int]:
    """Who has driven the run, one after the other."""
    return [int(words[1]) for words in ledger.lines() if words[0] == "by"]


def kill_in_the_middle(folder: Path, ledger: Ledger, dice: random.Random) -> int:
    """Kill the first driver at a random moment; how many lines the ledger has then."""
    lines = dice.randint(1, LINES)
    until(lambda: len(ledger.lines()) > lines, folder)
    time.sleep(dice.random() * 0.01)
    os.kill(drivers(ledger)[0], signal.SIGKILL)
    return len(ledger.lines())


def outcome(db: str, run_id: str, session_id: str) -> dict[str, Any]:
    """What the run has come to, once it has ended."""

    async def look() -> dict[str, Any]:
        ledger = Ledger(Path(os.devnull))
        opened = database(db, ledger)
        team = desk(ledger, opened)
        end = time.monotonic() + SECONDS
        try:
            while True:
                output = await team.aget_run_output(run_id)
                if isinstance(output, TeamRunOutput) and output.status not in (
                    RunStatus.running,
                    RunStatus.pending,
                ):
                    return await come_to(team, opened, output, session_id)
                if time.monotonic() > end:
                    return {"error": "no end", "text": f"run {run_id} does not end"}
                await asyncio.sleep(0.02)
        finally:
            await opened.aclose()

    return asyncio.run(look())


def hand_over(db: str, run_id: str, session_id: str) -> None:
    """Submit the run for workers."""

    async def submit() -> None:
        ledger = Ledger(Path(os.devnull))
        opened = database(db, ledger)
        run = submission(desk(ledger, opened), "go", run_id=run_id, session_id=session_id)
        assert await DbJournal(opened).submit(run)
        await opened.aclose()

    asyncio.run(submit())


def faults_of(
    folder: Path, db: str, run_id: str, session_id: str, kept: Kept, killed: int | None, on_record: str
) -> list[str]:
    """What is wrong with the run after all that."""
    ledger = Ledger(folder / "ledger")
    result = outcome(db, run_id, session_id)
    before = len(ledger.lines()) if killed is None else killed
    found = wrong(ledger, result, on_record, before)
    return [f"{text}\n{(folder / 'log').read_text()[-2000:]}" for text in found]
