"""`python -m benchmarks`: measure, print the table, write it as JSON."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.cases import CASES, PEERS
from benchmarks.environments import RESULTS, ROOT, versions
from benchmarks.harness import Measured, model_server, run_case
from benchmarks.report import Line, lines_of, machine, peer_notes, table, write_docs

_NAMED = ("kern", "httpx", "httpcore", "pydantic", "agno", "pydantic-ai-slim", "openai-agents", "langgraph")


def main(arguments: list[str] | None = None) -> int:
    """Run the cases that are named, or all; the exit status is 1 if a target was missed."""
    chosen = _parser().parse_args(arguments)
    known = {case.name: case for case in CASES}
    unknown = [name for name in chosen.names if name not in known]
    if unknown:
        print(f"no case named {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    measured: dict[str, Measured] = {}
    lines: list[Line] = []
    with model_server() as base_url:
        for name, case in known.items():
            if chosen.names and name not in chosen.names:
                continue
            sized = case.quick(case) if chosen.quick else case
            measured[name] = run_case(sized, base_url, with_peers=chosen.peers, tell=_tell)
            lines += lines_of(sized, measured[name])
    _tell("")
    print(table(lines))
    notes = peer_notes(measured)
    for note in notes:
        print(f"- {note}")
    about = machine() | {"sizes": "quick" if chosen.quick else "full"} | _versions(chosen.peers)
    path = Path(chosen.json) if chosen.json else RESULTS / "latest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": about, "rows": [line.data for line in lines], "cases": measured}
    path.write_text(json.dumps(report, indent=2), encoding="utf-8")
    if chosen.docs:
        write_docs(ROOT / "docs" / "performance.md", lines, notes, about)
    return int(any(line.ok is False for line in lines))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"cases: {', '.join(case.name for case in CASES)}")
    parser.add_argument("--peers", action="store_true", help="measure other frameworks, too; installs them")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, fewer rounds")
    parser.add_argument("--json", metavar="FILE", help="where the results go, besides the table")
    parser.add_argument("--docs", action="store_true", help="write the table into docs/performance.md")
    return parser


def _tell(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _versions(with_peers: bool) -> dict[str, str]:
    found = versions("")
    for env in PEERS if with_peers else ():
        found = versions(env) | found
    return {name: found[name] for name in _NAMED if name in found}


if __name__ == "__main__":
    sys.exit(main())
