"""Programs of their own, for tests of what only another process can show."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])


def environment() -> dict[str, str]:
    """This process's, in which programs can import the tests."""
    path = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path}


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    """Start `program`, Python source that may import `tests.played`; its output is a pipe, its input too."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def finish(process: subprocess.Popen[str], seconds: float = 25.0) -> str:
    """What it prints until its end, which must be a good one, and come in time."""
    try:
        output, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        raise AssertionError(f"it does not end; it printed {output!r} and {errors!r}") from None
    assert process.returncode == 0, errors
    assert not errors, errors
    return output


def run(program: str, *arguments: object) -> str:
    """What `program` prints."""
    return finish(start(program, *arguments))
