"""The nursery of `victim`, as a test uses it, and what a test checks after a death."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kern.run.output import TeamRunOutput
from tests.durable.desk import Ledger, faults
from tests.durable.victim import BEGINS, ENDS
from tests.processes import ROOT


class Nursery:
    """A process that forks others."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """Have a process live; returns how it has ended, or its id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the nursery is gone"
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def nursery() -> Iterator[Nursery]:
    """A nursery."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.durable.victim"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield Nursery(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=20)
        assert process.stdout is not None
        process.stdout.close()


def phase(ledger: Ledger) -> str:
    """What a process was at when it died."""
    open_phases: Counter[str] = Counter()
    for words in ledger.lines():
        if words[0] in BEGINS:
            open_phases[BEGINS[words[0]]] += 1
        elif words[0] in ENDS:
            open_phases[ENDS[words[0]]] -= 1
    for name in ("end", "commit", "tool", "model"):
        if open_phases[name] > 0:
            return name
    return "between"


def wrong(ledger: Ledger, result: dict[str, Any], on_record: str, lines_before: int) -> list[str]:
    """What is wrong after a process has died and another one has gone on.

    Args:
        on_record: The steps that were on record at the death, as text.
        lines_before: How many lines the ledger had then.
    """
    if "error" in result:
        return [f"{result['error']}: {result['text']}"]
    output = TeamRunOutput.from_dict(result["output"])
    found = faults(ledger, result["state"], output)
    if len(result["rows"]) != 4 or any(status != "COMPLETED" for _, status in result["rows"]):
        found.append(f"rows {result['rows']}")
    if result["revisions"] != list(range(1, 8)) or len(set(result["calls"])) != 7:
        found.append(f"changes {result['revisions']} {result['calls']}")
    if result["unfinished"]:
        found.append(f"left behind: {result['unfinished']}")
    if output.metrics.requests != 12:
        found.append(f"requests {output.metrics.requests}")
    return found + again(ledger, on_record, lines_before)


def again(ledger: Ledger, on_record: str, lines_before: int) -> list[str]:
    """What was done again although it was on record."""
    before: dict[tuple[str, str], str] = {}
    found = []
    for number, words in enumerate(ledger.lines()):
        if words[0] not in ("tool", "model"):
            continue
        key, mark = (words[1], words[2]), words[3] if words[0] == "model" else words[2]
        if number < lines_before:
            before[key] = mark
        elif key in before and _kept(words, before[key], on_record):
            found.append(f"again: {words}, on record was {before[key]}")
    return found


_SAID = {"charge": "charged", "look": "seen", "publish": "published"}


def _kept(words: list[str], mark: str, on_record: str) -> bool:
    if words[0] == "tool":
        return f'"content":"{_SAID[words[1]]} {mark}"' in on_record
    return f"{mark}" in on_record and _answered(mark, on_record)


def _answered(nonce: str, on_record: str) -> bool:
    return any(nonce in line for line in on_record.splitlines() if line.startswith("model "))


def tally(phases: list[str]) -> str:
    """How many deaths fell into what."""
    counts: dict[str, int] = defaultdict(int)
    for name in phases:
        counts[name] += 1
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))


def read(path: Path) -> dict[str, Any]:
    """What a process has left."""
    result: dict[str, Any] = json.loads(path.read_text())
    return result
