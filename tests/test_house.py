"""The house rules that no linter knows: how long files and functions may be, and what an import may need."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {"kern": (400, 60), "examples": (400, 60), "benchmarks": (400, 60), "tests": (800, 100)}
"""Lines of a file and of a function; a test file answers for one module, and its tables of cases are long."""

LONGER_FILES: dict[str, str] = {}
LONGER_FUNCTIONS: dict[str, str] = {}
"""By "path::name". Each exception has its reason."""


def sources(folder: str) -> dict[str, str]:
    return {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "results" not in path.parts  # what benchmarks leave behind is not ours
    }


def test_no_file_is_too_long() -> None:
    too_long = {
        path: length
        for folder, (limit, _) in LIMITS.items()
        for path, text in sources(folder).items()
        if (length := len(text.splitlines())) > limit
    }
    assert {path: length for path, length in too_long.items() if path not in LONGER_FILES} == {}
    assert [path for path in LONGER_FILES if path not in too_long] == [], "needs no exception any more"


def test_no_function_is_too_long() -> None:
    too_long = {
        f"{path}::{node.name}": length
        for folder, (_, limit) in LIMITS.items()
        for path, text in sources(folder).items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > limit
    }
    assert {name: length for name, length in too_long.items() if name not in LONGER_FUNCTIONS} == {}
    assert [name for name in LONGER_FUNCTIONS if name not in too_long] == [], "needs no exception any more"


IMPORT_ALL = """
import sys

class Absent:
    '''Makes packages look as if they were not installed.'''

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())

import importlib, pkgutil
import kern

DRAWN_WITH_RICH = {f"kern.console.{name}" for name in ("_rich", "_panels", "_live", "_screen", "_bar")}
FOR_PYTEST = {"kern.testing.pytest_plugin"}
FOR_ENGINES = {"kern.engines.dbos", "kern.engines.temporal"}

for module in pkgutil.walk_packages(kern.__path__, "kern."):
    if module.name not in DRAWN_WITH_RICH | FOR_PYTEST | FOR_ENGINES:
        importlib.import_module(module.name)
"""

EXTRAS = [
    "rich",
    "fastapi",
    "starlette",
    "sse_starlette",
    "uvicorn",
    "ddgs",
    "asyncpg",
    "mcp",
    "httpx2",
    "click",
    "pytest",
    "openai",
    "dbos",
    "redis",
    "temporalio",
]


def test_kern_needs_no_extra_to_be_imported() -> None:
    """Only the modules that draw with rich need it; `open_view` imports them where it is there."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT_ALL, *EXTRAS],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_import_kern_loads_no_surface() -> None:
    """`import kern` loads neither the test tools, nor the command, nor what needs an extra."""
    program = "import sys, kern; print(*sorted(name for name in sys.modules if name.startswith('kern.')))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=25,
        check=True,
    )
    loaded = done.stdout.split()
    assert "kern.agent.agent" in loaded
    assert "kern.models.openai" not in loaded, "a provider is loaded when an agent may need it"
    unwanted = ("kern.testing", "kern.cli", "kern.console._rich", "kern.tools.duckduckgo", "kern.tools.mcp")
    assert [name for name in loaded if name.startswith(unwanted)] == []


def test_no_package_reaches_into_the_private_modules_of_another() -> None:
    """`kern.a._b` is for `kern.a` and what is below it; others import what `kern.a` hands out."""
    reached = [
        f"{path}: {module}"
        for path, text in sources("kern").items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kern.")
        for module in [*(f"{node.module}.{alias.name}" for alias in node.names), node.module]
        for at, part in enumerate(module.split("."))
        if part.startswith("_") and not part.startswith("__")
        if (ROOT / "kern" / Path(*module.split(".")[1 : at + 1])).with_suffix(".py").exists()
        if not path.startswith("/".join(module.split(".")[:at]) + "/")
    ]
    assert reached == []


def test_no_sqlite_connection_is_left_to_the_garbage_collector() -> None:
    """`with sqlite3.connect(...)` commits and closes nothing, of which Python 3.13 warns, in a later test."""
    left = [
        f"{path}:{item.context_expr.lineno}"
        for folder in LIMITS
        for path, text in sources(folder).items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.context_expr, ast.Call)
        and ast.unparse(item.context_expr.func) == "sqlite3.connect"
    ]
    assert left == [], "write `with closing(sqlite3.connect(...)) as raw, raw:`"


IMPORTS_IN_A_RUN = """
import asyncio, os, sys
from kern import Agent
from kern.testing import ModelServer, tool_call

class Watch:
    def find_spec(self, name, path=None, target=None):
        if asyncio._get_running_loop() is not None:
            print(name)

def add(a: int, b: int) -> int:
    return a + b

with ModelServer([tool_call("add", a=1, b=2), "3"]) as server:
    os.environ["OPENAI_BASE_URL"] = server.base_url
    agent = Agent(tools=[add])
    sys.meta_path.insert(0, Watch())
    print("content:", agent.run("1 + 2?").content)
"""


def test_what_a_run_needs_is_loaded_before_it() -> None:
    """`import kern` leaves out what takes long; the first agent loads it, and no event loop waits for it."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS_IN_A_RUN],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "any"},
        capture_output=True,
        text=True,
        timeout=25,
        check=True,
    )
    *imported, content = done.stdout.splitlines()
    assert content == "content: 3"
    heavy = {"kern", "pydantic", "httpx", "httpcore", "anyio", "tenacity"}
    assert [name for name in imported if name.partition(".")[0] in heavy] == []
