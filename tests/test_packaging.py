"""What Kern needs of other packages and of the platform: declared, bounded, and still there."""

from __future__ import annotations

import argparse
import ast
import asyncio
import http
import os
import re
import subprocess
import sys
import tomllib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kern.db._sqlite_thread import SqliteThread
from kern.errors import MissingExtraError

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted((ROOT / "kern").rglob("*.py"))
}


def requirements(lines: list[str]) -> dict[str, str]:
    """The version bounds of each named package."""
    found = {}
    for line in lines:
        match = re.fullmatch(r"([A-Za-z0-9-]+)(?:\[[^]]*\])?([^;]*)(?:;.*)?", line)
        assert match is not None, line
        found[match[1]] = match[2].strip()
    return found


CORE = requirements(PROJECT["dependencies"])
EXTRAS = {
    name: requirements(lines) for name, lines in PROJECT["optional-dependencies"].items() if name != "all"
}


# The private parts of others.


async def _aiosqlite() -> None:
    import aiosqlite.core

    assert aiosqlite.core._STOP_RUNNING_SENTINEL is not None
    thread = SqliteThread()
    connection = thread._aiosqlite
    assert connection._tx.put_nowait
    worker = getattr(connection, "_thread", connection)
    assert worker.daemon
    assert worker.is_alive()
    assert await thread.submit(lambda: 7) == 7
    thread.end()
    await asyncio.to_thread(worker.join, 5)
    assert not worker.is_alive()


async def _httpx() -> None:
    import httpcore

    async with httpx.AsyncClient(proxy="http://127.0.0.1:1") as client:
        transports = [client._transport, *client._mounts.values()]
    for transport in transports:
        pool = transport._pool
        assert isinstance(pool, httpcore.AsyncConnectionPool)
        assert pool.create_connection


async def _aiohttp() -> None:
    aiohttp = pytest.importorskip("aiohttp")
    connector = aiohttp.TCPConnector()
    assert len(connector._acquired) == 0
    assert list(connector._conns.values()) == []
    assert aiohttp.client_proto.ResponseHandler(asyncio.get_running_loop())._payload is None
    await connector.close()


async def _standard_library() -> None:
    assert asyncio._get_running_loop() is asyncio.get_running_loop()
    assert vars(http.HTTPStatus._value2member_map_[404])["phrase"] == "Not Found"
    assert argparse._SubParsersAction
    assert type(zlib.decompressobj()).__name__ == "Decompress"  # `zlib._Decompress` is typeshed's name for it
    task = asyncio.create_task(asyncio.sleep(0))
    task.add_done_callback(print)
    assert [callback for callback, _ in task._callbacks] == [print]
    await asyncio.wait([task])


PRIVATE_PARTS: dict[str, tuple[set[str], Callable[[], Any]]] = {
    "aiosqlite": ({"_STOP_RUNNING_SENTINEL", "_tx", "_thread"}, _aiosqlite),
    "httpx": ({"_transport", "_mounts", "_pool"}, _httpx),
    "aiohttp": ({"_acquired", "_conns", "_payload"}, _aiohttp),
    "the standard library": (
        {"_get_running_loop", "_value2member_map_", "_SubParsersAction", "_callbacks", "_Decompress"},
        _standard_library,
    ),
}
"""All private parts of other packages that Kern uses, each with a check that it still does what Kern needs.

A package that stands here has an upper bound in pyproject.toml: raise it after these tests have passed with
the new version.
"""


@pytest.mark.parametrize("package", PRIVATE_PARTS)
async def test_the_private_parts_of_others_are_where_they_are_looked_for(package: str) -> None:
    await PRIVATE_PARTS[package][1]()


@pytest.mark.parametrize("package", [*PRIVATE_PARTS, "httpcore", "anyio", "pydantic", "pydantic-core"])
def test_a_package_whose_inside_matters_has_an_upper_bound(package: str) -> None:
    if package != "the standard library":
        bounds = [found[package] for found in (CORE, *EXTRAS.values()) if package in found]
        assert bounds
        assert all("<" in bound and ">=" in bound for bound in bounds), bounds


DOCUMENTED = {"_current_frames", "_getframe", "_exit", "_asdict", "_replace", "_fields", "_make"}
"""Public in spite of their names."""


def _is_private(name: str) -> bool:
    return (
        name not in DOCUMENTED
        and name.startswith("_")
        and not name.startswith("__")
        and name.strip("_") != ""
    )


def _own(tree: ast.Module) -> Iterator[str]:
    """The private names that this module defines."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.Attribute(attr=name, ctx=ast.Store(), value=ast.Name(id="self" | "cls")):
                yield name
            case ast.Call(func=ast.Name(id="setattr"), args=[_, ast.Constant(value=str(name)), *_]):
                yield name


def test_no_other_private_part_of_others_is_used() -> None:
    own = {name for tree in SOURCES.values() for name in _own(tree)} | {"_kern_shown"}
    used: dict[str, set[str]] = {}
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and _is_private(node.attr) and node.attr not in own:
                used.setdefault(node.attr, set()).add(path)
            if (
                isinstance(node, ast.ImportFrom)
                and not (node.module or "").startswith("kern")
                and not node.level
            ):
                for name in [*(node.module or "").split("."), *(alias.name for alias in node.names)]:
                    if _is_private(name):
                        used.setdefault(name, set()).add(path)
    listed = {name for names, _ in PRIVATE_PARTS.values() for name in names}
    assert {name: paths for name, paths in used.items() if name not in listed} == {}, (
        "use a public part, or list it in PRIVATE_PARTS with a check, and bound the package"
    )


# What is imported is declared.

DISTRIBUTIONS = {
    "genai_prices": "genai-prices",
    "markdown_it": "markdown-it-py",
    "pydantic_core": "pydantic-core",
    "typing_extensions": "typing-extensions",
}
EXTRA_OF = {
    "kern/console/": "console",
    "kern/engines/dbos.py": "dbos",
    "kern/engines/temporal.py": "temporal",
    "kern/db/_postgres_": "postgres",
    "kern/durable/_redis_link.py": "redis",
    "kern/tools/duckduckgo.py": "duckduckgo",
    "kern/tools/mcp/": "mcp",
    "kern/models/_aiohttp.py": "fast",
    "kern/models/bedrock/": "bedrock",
    "kern/models/prices.py": "prices",
    "kern/models/_exact_price.py": "prices",
    "kern/testing/pytest_plugin.py": "pytest",
}


def test_every_package_that_is_imported_is_declared() -> None:
    undeclared = set()
    for path, tree in SOURCES.items():
        extra = next((name for prefix, name in EXTRA_OF.items() if path.startswith(prefix)), None)
        declared = {*CORE, *(EXTRAS[extra] if extra else ())}
        for node in ast.walk(tree):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in {name.partition(".")[0] for name in names} - {"kern", *sys.stdlib_module_names}:
                if DISTRIBUTIONS.get(name, name) not in declared:
                    undeclared.add((path, name))
    assert undeclared == set()


# The name of the distribution.


def test_the_distribution_is_named_kern_agents_wherever_it_is_installed() -> None:
    """`kern` is somebody else's package."""
    assert PROJECT["name"] == "kern-agents"
    assert PROJECT["scripts"] == {"kern": "kern.cli:main"}
    assert "pip install 'kern-agents[mcp]'" in str(MissingExtraError("mcp", "mcp"))
    strangers = re.compile(r"pip install (?:-\S+ )*['\"]?kern(?!-agents)\b|\bkern\[[a-z]")
    pages = [ROOT / "README.md", ROOT / "pyproject.toml", *(ROOT / "docs").glob("*.md")]
    pages += [path for folder in ("kern", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    texts = {path: path.read_text(encoding="utf-8") for path in pages if "results" not in path.parts}
    warning = "`pip install kern` installs another project's package"
    found = {path: strangers.findall(text.replace(warning, "")) for path, text in texts.items()}
    assert {str(path): names for path, names in found.items() if names} == {}


# Platforms.


def test_only_one_place_knows_about_forks() -> None:
    users = [path for path in SOURCES if "register_at_fork" in (ROOT / path).read_text(encoding="utf-8")]
    assert users == ["kern/_sync/fork.py"]


def test_importing_kern_loads_only_what_every_program_needs() -> None:
    """These take a tenth of the time of the import, and are loaded by what uses them."""
    names = (
        "pydantic.fields",
        "pydantic.types",
        "pydantic.main",
        "zoneinfo",
        "importlib.metadata",
        "urllib.request",
    )
    program = f"import sys, kern; print([name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


WINDOWS = """
import asyncio, os, signal, sys
import httpx, pydantic, aiosqlite, anyio, tenacity, logging.handlers, subprocess, tempfile, zoneinfo

for name in ("fcntl", "termios", "tty", "pty", "pwd", "grp", "resource", "readline", "posix", "syslog"):
    sys.modules[name] = None  # an import of it raises ImportError
for name in (
    "register_at_fork", "fork", "forkpty", "getuid", "geteuid", "getgid", "getpgid", "setsid", "killpg",
    "uname", "O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK", "chown", "fchown", "lchown", "mkfifo",
    "openpty", "sysconf", "posix_fadvise", "pread", "pwrite", "getloadavg", "statvfs",
):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGURG", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGQUIT", "SIGALRM", "SIGPIPE", "SIGWINCH",
             "SIGCHLD", "pthread_kill", "pthread_sigmask", "setitimer", "alarm", "siginterrupt"):
    if hasattr(signal, name):
        delattr(signal, name)

import importlib, pkgutil
import kern

for module in pkgutil.walk_packages(kern.__path__, "kern."):
    importlib.import_module(module.name)

from kern import Agent, RunContext, Team
from kern.testing import ModelServer, ScriptedModel, tool_call

def add(run_context: RunContext) -> str:
    run_context.session_state["n"] = run_context.session_state.get("n", 0) + 1
    return "added"

def agent():
    return Agent(name="adder", model=ScriptedModel([tool_call("add"), "Done."]), tools=[add])

async def main():
    output = await agent().arun("go")
    assert output.content == "Done." and output.session_state == {"n": 1}, output
    assert "".join([e.content async for e in agent().arun("go", stream=True)]) == "Done."
    team = Team([agent()], model=ScriptedModel(
        [tool_call("delegate_task_to_member", member_id="adder", task="go"), "All done."]))
    assert (await team.arun("go")).content == "All done."
    await agent().aprint_response("go")

asyncio.run(main())
assert agent().run("go").content == "Done."
assert "".join(e.content for e in agent().run("go", stream=True)) == "Done."
"""


def test_kern_imports_and_runs_in_memory_without_what_windows_lacks() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WINDOWS],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert done.returncode == 0, done.stderr
