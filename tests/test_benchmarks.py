"""The benchmarks run, at sizes that measure nothing: so that they are there when they are wanted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cases import CASES
from benchmarks.harness import model_server, run_case
from benchmarks.report import BEGIN, END, lines_of, peer_notes, table, write_docs

SMALL = {
    "tool-run": {"count": 2},
    "stream-responses": {"model": "text:30", "expected": 30},
    "one-session": {"count": 3},
}


@pytest.mark.parametrize("name", SMALL)
def test_a_case_measures_kern_beside_its_floor(name: str, tmp_path: Path) -> None:
    case = replace({case.name: case for case in CASES}[name], rounds=1, **SMALL[name])
    with model_server() as base_url:
        measured = run_case(case, base_url, with_peers=False, tell=lambda text: None)
    assert peer_notes({name: measured}) == []
    assert set(measured) == {"floor", "kern"}
    lines = lines_of(case, measured)
    assert [line.data["row"] for line in lines] == [row.title for row in case.rows]
    assert lines[0].data["ratio"] > 0

    page = tmp_path / "page.md"
    page.write_text(f"# Before\n{BEGIN}\nold\n{END}\nAfter\n", encoding="utf-8")
    for _ in range(2):
        write_docs(page, lines, ["a note"], {"cores": 2})
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Before\n")
    assert text.endswith("After\n")
    assert "old" not in text
    assert text.count(table(lines)) == 1


def test_a_contender_that_cannot_do_a_job_is_reported_as_such() -> None:
    case = {case.name: case for case in CASES}["team"]
    floor = replace(case.variants[0], label="floor", contender="floor")
    with model_server() as base_url:
        measured = run_case(
            replace(case, variants=(floor,)), base_url, with_peers=False, tell=lambda text: None
        )
    assert peer_notes({"team": measured}) == ["team, floor: floor has no team"]
    assert lines_of(case, measured)[0].ok is None
