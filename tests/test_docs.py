"""The pages in docs/ tell the truth: their programs run, and print what their comments say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
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
def test_a_program_prints_what_its_comments_say(
    program: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    env = dict(os.environ)
    if "DATABASE_URL" in program:
        env["DATABASE_URL"] = request.getfixturevalue("postgres").url
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    for said in re.findall(r"^print\(.*\)  # (.+)$", program, re.MULTILINE):
        assert said in done.stdout.splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_links_to_and_every_file_that_it_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = {link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in link}
    assert [link for link in links if not (page.parent / link).exists()] == []
    named = re.findall(r"`((?:kern|tests|benchmarks|examples|docs)/[\w./-]+\.\w+)`", text)
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_dependency_stands_with_its_licence_in_contributing() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    lists = [project["project"]["dependencies"], project["dependency-groups"]["dev"], *extras.values()]
    needed = {re.split(r"[<>=!;\[ ]", line)[0] for lines in lists for line in lines} - {"kern-agents"}
    rows = re.findall(
        r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE
    )
    listed = {name for row in rows for name in re.findall(r"[\w-]+", row)}
    assert needed - listed == set()
