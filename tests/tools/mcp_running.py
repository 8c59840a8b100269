"""MCP servers for the tests, in processes of their own, and what tests ask of them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kern.agent import Agent
from kern.messages import ToolCall
from kern.run.output import RunOutput
from kern.testing import ScriptedModel
from kern.tools.mcp import MCPTools

HERE = Path(__file__).parent
SERVER = str(HERE / "mcp_server.py")
"""Made with the package `mcp`, which takes a while to start."""
OLD_SERVER = str(HERE / "mcp_old_server.py")
"""Made by hand; speaks the protocol of 2025; starts at once."""


def over_stdio(script: str, **options: Any) -> MCPTools:
    return MCPTools([sys.executable, script, "stdio"], **options)


@contextmanager
def serving(script: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A server over HTTP: its address, and its process, which is ended."""
    process = subprocess.Popen(
        [sys.executable, script, "http"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        yield f"http://127.0.0.1:{port}/mcp", process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def run_with(tools: MCPTools, *answers: ToolCall, **options: Any) -> RunOutput:
    """A run of an agent whose model makes these calls, one in a turn."""
    model = ScriptedModel([*answers, "done"])
    return await Agent(model=model, tools=[tools], **options).arun("Go")


def results(output: RunOutput) -> list[str | None]:
    return [tool.result for tool in output.tools]


async def until(condition: Callable[[], bool]) -> None:
    """Wait; the time limit of the test is the limit."""
    while not condition():
        await asyncio.sleep(0.01)


def says(mark: Path, word: str) -> Callable[[], bool]:
    return lambda: mark.exists() and mark.read_text() == word


def gone(pid: int) -> Callable[[], bool]:
    """The process has ended. One that nobody waits for, as in a container without init, has so as well."""

    def check() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        status = Path(f"/proc/{pid}/stat")
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z"

    return check
