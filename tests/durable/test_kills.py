"""A durable run whose process is killed, or stands still, at any moment; another one goes on with it."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

from tests.durable.desk import Ledger
from tests.durable.nursery import Nursery, nursery, phase, read, tally, wrong
from tests.postgres import Postgres, new_tables

KINDS = ("model", "tool", "commit", "end", "any")
OFTEN = {"model": 12, "tool": 10, "commit": 16, "end": 1}
"""How often a run is at what."""


class SqliteFiles:
    """A file for each run."""

    def place(self, folder: Path) -> str:
        """Where the database of a run is, as `victim` is told."""
        return str(folder / "kern.db")

    def steps(self, place: str, run_id: str) -> str:
        """The steps on record, a line for each."""
        return sqlite_steps(place)


class PostgresTables:
    """The same tables for all runs."""

    def __init__(self, server: Postgres) -> None:
        self._server = server
        self._table = new_tables()

    def place(self, folder: Path) -> str:
        return json.dumps({"dsn": self._server.url, "table": self._table})

    def steps(self, place: str, run_id: str) -> str:
        if self._server.psql(f"SELECT to_regclass('{self._table}_steps') IS NULL") == "t":
            return ""  # it was killed before there were tables
        table = f"{self._table}_steps"
        return self._server.psql(
            f"SELECT kind || ' ' || data::text FROM {table} WHERE run_id = '{run_id}' ORDER BY seq"
        )


def sqlite_steps(path: str) -> str:
    if not Path(path).exists():
        return ""
    raw = sqlite3.connect(path)
    try:
        rows = raw.execute("SELECT kind, data FROM kern_sessions_steps ORDER BY seq").fetchall()
    except sqlite3.OperationalError:  # it was killed before there were tables
        rows = []
    finally:
        raw.close()
    return "\n".join(f"{kind} {data}" for kind, data in rows)


def deadly(dice: random.Random, kind: str) -> dict[str, Any]:
    """When to die."""
    at = dice.choice(list(OFTEN)) if kind == "any" else kind
    longest = {"model": 0.004, "tool": 0.004, "commit": 0.001, "end": 0.002}[at]
    return {"at": at, "number": dice.randint(1, OFTEN[at]), "delay": dice.random() * longest}


def survive(
    folder: Path, kills: int, nurse: Nursery, seed: int, kept: SqliteFiles | PostgresTables, each: int = 0
) -> tuple[list[str], list[str]]:
    """Kill runs, and go on with each; what was wrong, and what they were at.

    Args:
        each: Go on until so many were killed in each kind of step.
    """
    dice, found, phases = random.Random(seed), [], []
    number, lacking = 0, list(KINDS)
    while len(phases) < kills or (lacking := [kind for kind in OFTEN if phases.count(kind) < each]):
        assert number < 10 * kills, f"{lacking}: {tally(phases)}"
        place = folder / f"run{number}"
        place.mkdir(parents=True)
        db = kept.place(place)
        order = {
            "folder": str(place),
            "db": db,
            "session": f"s{number}",
            "run": f"R{number}",
            "result": "first.json",
        }
        kinds = KINDS if len(phases) < kills else lacking
        death = deadly(dice, kinds[number % len(kinds)])
        number += 1
        if nurse.ask({**order, "death": death})["status"] != -signal.SIGKILL:
            continue  # it was done before
        ledger = Ledger(place / "ledger")
        at, before, on_record = phase(ledger), len(ledger.lines()), kept.steps(db, order["run"])
        assert nurse.ask({**order, "result": "second.json"})["status"] == 0
        result = read(place / "second.json")
        texts = wrong(ledger, result, on_record, before)
        found += [f"run {number - 1}, killed in {at}: {text}" for text in texts]
        phases.append(at)
    return found, phases


@pytest.mark.timeout(120)  # of work that takes a few seconds on an idle machine
def test_a_run_whose_process_is_killed_goes_on_in_another_one(tmp_path: Path) -> None:
    with nursery() as nurse:
        found, phases = survive(tmp_path, 10, nurse, time.time_ns(), SqliteFiles())
    print(tally(phases))
    assert found == []


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_hundred_kills_in_every_kind_of_step_leave_nothing_wrong(tmp_path: Path) -> None:
    with nursery() as nurse:
        found, phases = survive(tmp_path, 100, nurse, time.time_ns(), SqliteFiles(), each=5)
    print(f"\n{len(phases)} kills on SQLite fell into: {tally(phases)}")
    assert found == []


def essence(result: dict[str, Any]) -> Any:
    """What a run has come to, from its process or as it is stored."""
    output = result.get("output", {})
    return [output.get("content"), output.get("tools"), *(result.get(k) for k in ("state", "rows", "calls"))]


def thaw(
    folder: Path, rounds: int, nurse: Nursery, seed: int, kept: SqliteFiles | PostgresTables
) -> tuple[list[str], int]:
    """Freeze processes past their claim, have another one go on, thaw them; what was wrong."""
    dice, found, frozen, number = random.Random(seed), [], 0, 0
    while frozen < rounds:
        place = folder / f"run{number}"
        place.mkdir(parents=True)
        db = kept.place(place)
        order = {
            "folder": str(place),
            "db": db,
            "session": f"s{number}",
            "run": f"R{number}",
            "claim_seconds": 0.4,
        }
        order["pace"] = 0.02
        number += 1
        pid = nurse.ask({**order, "result": "first.json", "detached": True})["pid"]
        ledger = Ledger(place / "ledger")
        until = time.monotonic() + 20
        while not ledger.path.exists() and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(dice.random() * 0.15)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.5)
        if (place / "first.json").exists():
            os.kill(pid, signal.SIGCONT)
            continue  # it was done before
        before, on_record = len(ledger.lines()), kept.steps(db, order["run"])
        assert nurse.ask({**order, "result": "second.json"})["status"] == 0
        second = read(place / "second.json")
        os.kill(pid, signal.SIGCONT)
        if second.get("error") == "StoreBusyError":
            continue  # it was frozen in the middle of a write to the file, which nobody else gets then
        until = time.monotonic() + 15
        while not (place / "first.json").exists() and time.monotonic() < until:
            time.sleep(0.01)
        assert nurse.ask({**order, "result": "third.json"})["status"] == 0  # what is stored after all that
        texts = wrong(ledger, read(place / "third.json"), on_record, before)
        texts = [text for text in texts if not text.startswith("again")]  # the frozen one ends what it was in
        if "error" in second:
            texts.append(f"the one that went on: {second}")
        elif essence(second) != essence(read(place / "third.json")):
            texts.append("the frozen process has written")
        first = read(place / "first.json")
        if "error" not in first and essence(first) != essence(read(place / "third.json")):
            texts.append(f"the frozen process came to another end: {first}")
        found += [f"run {number - 1}: {text}" for text in texts]
        frozen += 1
    return found, frozen


@pytest.mark.timeout(120)  # of work that takes a few seconds on an idle machine
def test_a_process_that_stood_still_and_goes_on_cannot_write(tmp_path: Path) -> None:
    with nursery() as nurse:
        found, _ = thaw(tmp_path, 2, nurse, time.time_ns(), SqliteFiles())
    assert found == []


@pytest.mark.long
@pytest.mark.timeout(900)
def test_twenty_processes_that_stood_still_leave_nothing_wrong(tmp_path: Path) -> None:
    with nursery() as nurse:
        found, frozen = thaw(tmp_path, 20, nurse, time.time_ns(), SqliteFiles())
    print(f"\n{frozen} frozen processes thawed")
    assert found == []


@pytest.mark.timeout(120)  # of work that takes a few seconds on an idle machine
def test_a_run_on_postgres_whose_process_is_killed_goes_on_in_another_one(
    tmp_path: Path, postgres: Postgres
) -> None:
    with nursery() as nurse:
        found, phases = survive(tmp_path, 5, nurse, time.time_ns(), PostgresTables(postgres))
        thawed, _ = thaw(tmp_path / "frozen", 1, nurse, time.time_ns(), PostgresTables(postgres))
    print(tally(phases))
    assert found + thawed == []


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_hundred_kills_on_postgres_leave_nothing_wrong(tmp_path: Path, postgres: Postgres) -> None:
    with nursery() as nurse:
        found, phases = survive(tmp_path, 100, nurse, time.time_ns(), PostgresTables(postgres), each=5)
    print(f"\n{len(phases)} kills on Postgres fell into: {tally(phases)}")
    assert found == []


@pytest.mark.long
@pytest.mark.timeout(900)
def test_twenty_processes_on_postgres_that_stood_still_leave_nothing_wrong(
    tmp_path: Path, postgres: Postgres
) -> None:
    with nursery() as nurse:
        found, frozen = thaw(tmp_path, 20, nurse, time.time_ns(), PostgresTables(postgres))
    print(f"\n{frozen} frozen processes thawed")
    assert found == []
