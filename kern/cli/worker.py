"""`kern worker`: executes submitted runs of an application's agents and teams until it is stopped."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from kern._log import named
from kern.agent import Agent
from kern.cli._report import report
from kern.durable.db_journal import CLAIM_SECONDS
from kern.engines.driving import Runner
from kern.engines.worker import Worker
from kern.errors import UsageError
from kern.team import Team

if TYPE_CHECKING:
    Parsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_worker_parser(commands: Parsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "worker",
        help="execute the runs that were submitted to a database",
        description="Executes runs that were submitted to the database of an agent or team, and continues "
        "those whose worker has died. On SIGTERM it releases its runs to other workers.",
    )
    parser.add_argument(
        "application",
        metavar="FILE:OBJECT",
        help="an agent, a team, or a list of them, such as app.py:desk or package.module:desk",
    )
    parser.add_argument(
        "--at-once", metavar="N", type=int, default=10, help="how many runs to execute at a time (10)"
    )
    parser.add_argument(
        "--poll", metavar="SECONDS", type=float, default=1.0, help="how often to look for new runs (1)"
    )
    parser.add_argument(
        "--claim",
        metavar="SECONDS",
        type=float,
        default=CLAIM_SECONDS,
        help=f"how long after its death a worker still holds its runs ({CLAIM_SECONDS:g})",
    )
    parser.set_defaults(run=work)


def work(options: argparse.Namespace) -> int:
    """`kern worker`; returns its exit code."""
    runners = load(options.application)
    shown = logging.StreamHandler()
    shown.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = named("kern")
    log.addHandler(shown)
    log.setLevel(logging.INFO)
    try:
        asyncio.run(_work(runners, options))
    finally:
        log.removeHandler(shown)
    return 0


async def _work(runners: Sequence[Runner], options: argparse.Namespace) -> None:
    worker = Worker(*runners, at_once=options.at_once, poll_seconds=options.poll, claim_seconds=options.claim)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, worker.stop)
        except NotImplementedError:  # Windows has no such handlers
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(worker.stop))
    report(f"a worker for {', '.join(map(repr, runners))} on {worker.db!r}")
    try:
        await worker.work()
    finally:
        await worker.db.aclose()
    report("stopped")


def load(application: str) -> Sequence[Runner]:
    """Import the agents and teams that FILE:OBJECT names.

    Raises:
        UsageError: The file or object does not exist, or is not an agent or a team.
    """
    place, colon, name = application.rpartition(":")
    if not colon or not place or not name:
        raise UsageError(f"the application must be FILE:OBJECT, such as app.py:desk, not {application!r}")
    found: Any = _module(place)
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(f"{place} does not define {name!r}")
        found = getattr(found, part)
    runners = list(found) if isinstance(found, list | tuple) else [found]
    for runner in runners:
        if not isinstance(runner, Agent | Team):
            raise UsageError(f"{application} must be an agent, a team or a list of them, not {runner!r}")
    return runners


def _module(place: str) -> ModuleType:
    """Import a module by its path or name; it may import modules from its own folder."""
    path = Path(place)
    if path.suffix == ".py":
        if not path.is_file():
            raise UsageError(f"the file {place} does not exist")
        sys.path.insert(0, str(path.resolve().parent))
        return importlib.import_module(path.stem)
    sys.path.insert(0, str(Path.cwd()))
    if importlib.util.find_spec(place.partition(".")[0]) is None:
        raise UsageError(f"the module {place} does not exist; the name of a file must end in .py")
    return importlib.import_module(place)
