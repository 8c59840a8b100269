"""docs/errors.md has every error, and its program answers each with the status that the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import kern.run.requirement
from kern import errors
from kern.errors import KernError

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "errors.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| (\d{3}) \|$", PAGE, re.MULTILINE)
ERRORS: dict[str, type[KernError]] = {
    name: value
    for module in (errors, kern.run.requirement)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, KernError)
}


def test_the_page_has_every_error_once() -> None:
    assert sorted(row[0] for row in ROWS) == sorted(ERRORS)


@pytest.fixture(scope="module")
def status_of() -> Any:
    """The function of the page's program, which is run as a whole by tests/test_docs.py."""
    program = next(
        block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "STATUS" in block
    )
    names: dict[str, Any] = {}
    exec(program.partition("\napp = FastAPI()")[0], names)
    return names["status_of"]


@pytest.mark.parametrize(("name", "status"), [(row[0], int(row[3])) for row in ROWS])
def test_the_program_answers_with_the_status_that_the_table_says(
    name: str, status: int, status_of: Any
) -> None:
    kind = ERRORS[name]
    assert status_of(kind.__new__(kind)) == status


def _tables() -> list[Any]:
    root = Path(__file__).resolve().parents[1]
    return [
        pytest.param(found, id=f"{path.name}:{number}")
        for path in [*sorted((root / "docs").glob("*.md")), *sorted((root / "examples").glob("*.py"))]
        if path.name != "errors.md"
        for number, found in enumerate(
            re.findall(r"^STATUS.*? = (\{.*?\})", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        )
    ]


@pytest.mark.parametrize("table", _tables())
def test_every_other_page_and_example_answers_with_the_same_status(table: str) -> None:
    said = {row[0]: int(row[3]) for row in ROWS}
    for name, status in re.findall(r"(\w+): (\d{3})", table):
        assert said[name] == int(status), name
