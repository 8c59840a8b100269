"""The fixture `cassette`, in a test run of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT

pytestmark = pytest.mark.timeout(120)  # starts pytest several times

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


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *options, str(folder)]
    env = {**os.environ, "PYTHONPATH": ROOT, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, check=False)


def test_a_test_records_once_and_is_replayed_from_then_on(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["kern.testing.pytest_plugin"]')
    (tmp_path / "test_it.py").write_text(TEST)
    lacking = run_pytest(tmp_path)
    assert lacking.returncode != 0
    assert "does not exist; record it" in lacking.stdout
    assert "asked 1 times" in run_pytest(tmp_path, "--kern-record=once").stdout
    assert (tmp_path / "cassettes" / "test_it" / "test_it_answers.json").exists()
    assert "asked 0 times" in run_pytest(tmp_path).stdout


ALIKE = """
import pytest
from kern import Agent
from kern.testing import FunctionModel

def said(word):
    return Agent(id="a", model=FunctionModel(lambda request: word)).run("hello").content

class TestEnglish:
    def test_hello(self, cassette):
        assert said("Hello") == "Hello"

class TestFrench:
    class TestHome:
        def test_hello(self, cassette):
            assert said("Salut") == "Salut"

    def test_hello(self, cassette):
        assert said("Bonjour") == "Bonjour"

@pytest.mark.parametrize("word", ["a b", "a/b", "a_b", "A_b", "[a::b]", "\u00e9", "b" * 300])
def test_word(cassette, word):
    assert said(word) == word
"""


def test_each_test_has_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["kern.testing.pytest_plugin"]')
    (tmp_path / "test_it.py").write_text(ALIKE)
    assert "10 passed" in run_pytest(tmp_path, "--kern-record=once").stdout
    files = {file.stem.casefold() for file in (tmp_path / "cassettes" / "test_it").iterdir()}
    assert len(files) == 10
    assert {"testenglish.test_hello", "testfrench.test_hello", "testfrench.testhome.test_hello"} < files
    assert "10 passed" in run_pytest(tmp_path).stdout
