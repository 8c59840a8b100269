"""The environments of the peers, made by the benchmarks where they are missing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

PACKAGES = {
    "agno": ["agno", "openai", "sqlalchemy[asyncio]", "aiosqlite"],
    "pydantic_ai": ["pydantic-ai-slim[openai]"],
    "openai_agents": ["openai-agents"],
    "langgraph": ["langgraph", "langchain", "langchain-openai", "langgraph-checkpoint-sqlite"],
}


def python_of(env: str) -> str:
    """The interpreter of an environment; "" is this one."""
    return str(RESULTS / f"venv-{env}" / "bin" / "python") if env else sys.executable


def install(env: str) -> str:
    """Make the environment if it is not there; returns why not, or nothing."""
    python = Path(python_of(env))
    marker = python.parent.parent / "complete"
    if marker.exists():
        return ""
    print(f"installing {' '.join(PACKAGES[env])} ...", file=sys.stderr)
    uv = shutil.which("uv")
    folder = str(python.parent.parent)
    if uv:
        steps = [
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder],
            [uv, "pip", "install", "--quiet", "--python", str(python), *PACKAGES[env]],
        ]
    else:
        steps = [
            [sys.executable, "-m", "venv", "--clear", folder],
            [str(python), "-m", "pip", "install", "--quiet", *PACKAGES[env]],
        ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"not installed: {done.stderr.strip().splitlines()[-1:] or done.returncode}"
    marker.touch()
    return ""


def versions(env: str) -> dict[str, str]:
    """What is installed in an environment, as far as the table names it."""
    code = (
        "import importlib.metadata as m, json\n"
        "print(json.dumps({d.name: d.version for d in m.distributions()}))"
    )
    done = subprocess.run([python_of(env), "-c", code], capture_output=True, text=True, check=False)
    found: dict[str, str] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found
