"""The pages in docs/ tell the truth: their programs run, and print what their comments say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[1] / "docs"
PROGRAMS = [
    pytest.param(program, id=f"{page.stem} {number}")
    for page in sorted(DOCS.glob("*.md"))
    for number, program in enumerate(
        re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL), 1
    )
]


def test_there_are_programs() -> None:
    assert PROGRAMS


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_prints_what_its_comments_say(program: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for said in re.findall(r"^print\(.*\)  # (.+)$", program, re.MULTILINE):
        assert said in done.stdout.splitlines()
