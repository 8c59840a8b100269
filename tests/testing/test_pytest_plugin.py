"""The fixture `cassette`, in a test run of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.processes import ROOT

TEST = """
import asyncio
from kern import Agent
from kern.testing import FunctionModel

def test_it_answers(cassette):
    asked = []
    agent = Agent(id="a", model=FunctionModel(lambda request: asked.append(1) or "hi"))
    assert agent.run("hello").content == "hi"
    print("asked", len(asked), "times")
"""


def pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *options, str(folder)]
    env = {**os.environ, "PYTHONPATH": ROOT, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, check=False)


def test_a_test_records_once_and_is_replayed_from_then_on(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["kern.testing.pytest_plugin"]')
    (tmp_path / "test_it.py").write_text(TEST)
    lacking = pytest(tmp_path)
    assert lacking.returncode != 0
    assert "does not exist; record it" in lacking.stdout
    assert "asked 1 times" in pytest(tmp_path, "--kern-record=once").stdout
    assert (tmp_path / "cassettes" / "test_it" / "test_it_answers.json").exists()
    assert "asked 0 times" in pytest(tmp_path).stdout
