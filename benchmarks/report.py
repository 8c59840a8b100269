"""From measurements to a table with verdicts."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cases import PEERS, Case, Row
from benchmarks.harness import Measured

HEADER = ("what", "kern", "held against", "", "ratio", "target", "verdict", "fastest peer", "peak MB")
BEGIN, END = "<!-- table: written by `python -m benchmarks --docs` -->", "<!-- end of the table -->"


@dataclass(frozen=True)
class Line:
    """A row with its numbers."""

    cells: tuple[str, ...]
    ok: bool | None
    data: dict[str, Any]


def lines_of(case: Case, measured: Measured) -> list[Line]:
    """The rows of a case; those whose variant was not measured say why."""
    return [_line(case, row, measured) for row in case.rows]


def _line(case: Case, row: Row, measured: Measured) -> Line:
    mine = measured.get(row.of, {"unsupported": "not measured"})
    if "unsupported" in mine:
        cells = (row.title, mine["unsupported"], "", "", "", "", "not measured", "", "")
        return Line(cells, None, {"row": row.title, "unsupported": mine["unsupported"]})
    value = mine[row.metric] * row.scale
    base = measured.get(row.against, {}).get(row.metric)
    base = None if base is None else base * row.scale
    ratio = None if not base else value / base
    verdicts: list[bool] = []
    target = ""
    if row.at_most is not None:
        judged = value - base if row.plus and base is not None else ratio if row.against else value
        target = _target(row)
        if judged is not None:
            verdicts.append(judged <= row.at_most)
    peers = {
        peer: measured[peer][row.metric] * row.scale
        for peer in PEERS
        if row.metric in measured.get(peer, {}) and not row.metric.endswith("growth") and row.of == "kern"
    }
    best = min(peers, key=lambda peer: peers[peer], default=None)
    rival = ""
    if best is not None:
        times = peers[best] / value if value else float("inf") if peers[best] else 1.0
        rival = f"{best} {_number(peers[best])} ({times:.1f} x)"
        verdicts.append(times >= row.fastest_by if peers[best] or value else True)
    ok = all(verdicts) if verdicts else None
    cells = (
        row.title,
        f"{_number(value)} {row.unit}".strip(),
        row.against if base is not None else "",
        "" if base is None else f"{_number(base)} {row.unit}",
        "" if ratio is None else f"+{value - (base or 0):.2f} {row.unit}" if row.plus else f"{ratio:.2f}",
        target,
        "" if ok is None else "met" if ok else "MISSED",
        rival,
        f"{mine['peak'] / 1e6:.0f}" if "peak" in mine else "",
    )
    data = {"row": row.title, "case": case.name, "value": value, "unit": row.unit, "against": base}
    return Line(cells, ok, {**data, "ratio": ratio, "target": row.at_most, "met": ok, "peers": peers})


def _target(row: Row) -> str:
    if row.plus:
        return f"+{row.at_most:g} {row.unit}"
    return f"{row.at_most:g}" if row.against else f"{row.at_most:g} {row.unit}".strip()


def _number(value: float) -> str:
    if value == 0 or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def table(lines: Iterable[Line]) -> str:
    """The lines as text that is a Markdown table as well."""
    rows = [HEADER, *(line.cells for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADER))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(text)


def peer_notes(measured: dict[str, Measured]) -> list[str]:
    """What peers could not do, and what they lost on the way."""
    notes = []
    for case, results in measured.items():
        for label, result in results.items():
            if "unsupported" in result:
                notes.append(f"{case}, {label}: {result['unsupported']}")
            elif result.get("lost"):
                notes.append(f"{case}, {label}: {result['lost']:g} of the counts are lost")
    return notes


def machine() -> dict[str, Any]:
    """Where the numbers come from."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = names[0] if names else cpu
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load": round(load, 1),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def write_docs(path: Path, lines: Iterable[Line], notes: Iterable[str], about: dict[str, Any]) -> None:
    """Put the table into the document, between its two marks."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} has no place for the table")
    facts = ", ".join(f"{name} {value}" for name, value in about.items())
    block = [BEGIN, "", f"Measured on: {facts}.", "", table(lines), ""]
    block += [*(f"- {note}" for note in notes), "", END]
    path.write_text(before + "\n".join(block) + after, encoding="utf-8")
