"""`kern worker FILE:OBJECT`: what it takes, and what it says about the rest. Its work: tests/engines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kern.cli import main

APP = """
from kern import Agent
from kern.db import SqliteDb

db = SqliteDb({db!r})
one, two = Agent(id="one", db=db), Agent(id="two", db=db)
both = [one, two]
nameless = Agent(db=db)
number = 7
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    path = tmp_path / "shop_app.py"
    path.write_text(APP.format(db=str(tmp_path / "kern.db")))
    return path


@pytest.mark.parametrize(
    ("application", "said"),
    [
        ("shop_app.py", "FILE:OBJECT"),
        ("shop_app.py:three", "does not define 'three'"),
        ("shop_app.py:number", "must be an agent"),
        ("shop_app.py:nameless", "give it an id="),
        ("nowhere.py:one", "nowhere.py does not exist"),
        ("no_such_module:one", "no_such_module does not exist"),
    ],
)
def test_what_is_no_agent_is_refused_in_one_line(
    app: Path,
    application: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(app.parent)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "shop_app", raising=False)
    assert main(["worker", application]) == 1
    errors = capsys.readouterr().err
    assert said in errors
    assert len(errors.splitlines()) == 1


def test_an_unknown_option_is_refused_with_the_usage_of_the_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["worker", "--at-onec", "3", "app.py:desk"])
    errors = capsys.readouterr().err
    assert "kern worker: error: unknown arguments: --at-onec" in errors
    assert "[--at-once N]" in errors


def test_sigterm_ends_an_idle_worker(app: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "kern.cli", "worker", f"{app}:both"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    assert "'one'" in first
    assert "'two'" in first
    process.terminate()
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (0, "stopped\n", "")


def test_the_package_itself_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kern", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("kern ")
