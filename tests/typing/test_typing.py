"""What type checkers make of the public API: `api.py` holds the assertions, mypy and pyright judge them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

API = Path(__file__).with_name("api.py")
ROOT = API.parents[2]


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "command", [["mypy", "--strict"], ["basedpyright", "--level", "error"]], ids=["mypy", "pyright"]
)
def test_the_public_api_has_the_types_that_api_py_asserts(command: list[str]) -> None:
    checker, *options = command
    done = subprocess.run(
        [sys.executable, "-m", checker, *options, str(API)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(120)
def test_the_types_of_the_package_are_written_down_and_not_left_to_be_inferred() -> None:
    command = [sys.executable, "-m", "basedpyright", "--verifytypes", "kern", "--ignoreexternal"]
    done = subprocess.run(
        [*command, "--outputjson"], cwd=ROOT, capture_output=True, text=True, timeout=110, check=False
    )
    report = json.loads(done.stdout)["typeCompleteness"]
    unknown = [symbol["name"] for symbol in report["symbols"] if not symbol["isTypeKnown"]]
    assert report["completenessScore"] >= 0.98, unknown
