"""The table of providers in docs/models.md says what tests show, and nothing else."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.models.feature_table import FEATURES, PAGE, ROWS, Cell, written
from tests.models.test_recorded_traffic import FOLDER

CELLS = [
    pytest.param(cell, id=f"{title}: {feature}")
    for title, row in ROWS.items()
    for feature, cell in row.items()
]


@cache
def names_of_tests(file: str) -> set[str]:
    tree = ast.parse((Path(__file__).parent / file).read_text(encoding="utf-8"))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds) and node.name.startswith("test_")}


def test_the_rows_have_known_columns() -> None:
    assert {feature for row in ROWS.values() for feature in row} <= set(FEATURES)


@pytest.mark.parametrize("cell", CELLS)
def test_a_mark_names_a_test_that_is_there_and_what_feeds_it(cell: Cell) -> None:
    file, _, name = cell.test.partition("::")
    assert name in names_of_tests(file)
    kind, _, rest = cell.source.partition(":")
    if kind == "recorded":
        assert FOLDER is None or (FOLDER / f"{rest}.json").is_file()
    else:
        assert cell.source.startswith("https://")


def test_the_page_shows_the_table_as_it_is() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == written(page), "run `python -m tests.models.feature_table`"
