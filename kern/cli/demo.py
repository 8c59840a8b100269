"""`kern demo`: shows a team at work in the terminal, and a second process that finds its session."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kern._version import __version__
from kern.cli._report import fact, heading, state_fact, title
from kern.cli._shopping import EDITED, shopping_team
from kern.cli._standin import StandIn
from kern.db.sqlite import SqliteDb
from kern.models import Model, default_model, resolve
from kern.models.openai import OpenAIResponses
from kern.run import TeamRunOutput
from kern.team import Team
from kern.testing import ModelServer

if TYPE_CHECKING:
    Parsers = argparse._SubParsersAction[argparse.ArgumentParser]

_STAND_IN = "stand-in"
_PACE = 0.03  # seconds between two words of the stand-in, where a person is watching
_QUESTIONS = (
    "Add flour, milk, eggs, dish soap, sponges and bin bags to my list.",
    "I bought the eggs and the sponges.",
)
_LAST_QUESTION = "What is still on my list?"
_INTERRUPT_SECONDS = 15.0


def add_demo_parser(commands: Parsers) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "demo",
        help="watch a team share one shopping list",
        description="A leader and two members keep one shopping list in an SQLite file. It needs no key "
        "and no network: a few rules stand in for the model. With --model or --base-url the team asks a "
        "real model.",
    )
    parser.add_argument(
        "--model",
        metavar="PROVIDER:ID",
        help=f'such as openai:gpt-5.2 or openai-chat:llama3.2; default: "{_STAND_IN}", which needs no key',
    )
    parser.add_argument("--base-url", metavar="URL", help="such as http://localhost:11434/v1")
    parser.add_argument(
        "--db", metavar="FILE", help="keep the list in this file; the next demo continues with it"
    )
    parser.add_argument(
        "--ask", metavar="TEXT", help="ask the team this, instead of the demo's own questions"
    )
    parser.set_defaults(run=run)


@dataclass(slots=True, frozen=True)
class _Played:
    """The model of the demo, and its description for the terminal."""

    model: Model
    label: str


def run(options: argparse.Namespace) -> int:
    """The command; returns its exit code."""
    if options.base_url:
        os.environ["OPENAI_BASE_URL"] = options.base_url  # the second process inherits it
    with _playing(options) as played, _file(options.db) as (path, kept):
        team = shopping_team(played.model, SqliteDb(path))
        if options.ask is not None:
            fact("Process", f"{os.getpid()}, which has opened {path.name} and knows nothing else")
            state_fact("Found", team.get_session_state())
            print()
            team.print_response(options.ask, stream=True)
            return 0
        title(f"Kern {__version__}: a team shares one shopping list")
        fact("Model", played.label)
        fact("Team", "a leader, and two members that it sends to work at the same time")
        fact("Database", f"{path}{'' if kept else ', deleted at the end; --db FILE keeps one'}")
        for number, question in enumerate(_QUESTIONS, 1):
            heading(f"{number}. {'Two members fill one list' if number == 1 else 'And take things off it'}")
            _ask(team, question, first=number == 1)
        heading("3. A second process")
        return _second_process(options, path)


def _ask(team: Team, question: str, *, first: bool) -> None:
    before = team.get_session_state()
    state_fact("Before", before)
    if first:  # later runs begin with an empty line anyway
        print()
    team.print_response(question, stream=True)
    after = team.get_session_state()
    print()
    state_fact("After", after)
    calls, members = _edits(team)
    counted = after["edits"] - before["edits"]
    if calls:
        fact("", f"{calls} edits by {members} members at the same time; the state has counted {counted}.")


def _edits(team: Team) -> tuple[int, int]:
    """The number of calls in the last run that changed the list, and of the members that made them."""
    output = team.get_last_run_output()
    delegations = output.tools if isinstance(output, TeamRunOutput) else []
    made: list[int] = []
    for delegation in delegations:
        member = team.get_run_output(delegation.child_run_id) if delegation.child_run_id else None
        if member is not None:
            made.append(sum((call.result or "").startswith(EDITED) for call in member.tools))
    return sum(made), len(made)


def _second_process(options: argparse.Namespace, path: Path) -> int:
    """Run the command in a second process, which has nothing but the file."""
    arguments = ["demo", "--db", str(path), "--ask", _LAST_QUESTION]
    if options.model:
        arguments += ["--model", options.model]
    process = subprocess.Popen([sys.executable, "-m", "kern.cli", *arguments])  # noqa: S603 - our own module
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait(_INTERRUPT_SECONDS)  # it was interrupted, too: let it commit
        raise


@contextmanager
def _playing(options: argparse.Namespace) -> Iterator[_Played]:
    """The real model if the options name one, else the stand-in behind its server."""
    if (options.model or options.base_url) and options.model != _STAND_IN:
        model = resolve(options.model) if options.model else default_model()
        where = f" at {options.base_url}" if options.base_url else ""
        yield _Played(model, f"a real one, {model.provider}/{model.id}{where}: its requests may cost money")
        return
    with ModelServer(StandIn(_PACE if sys.stdout.isatty() else 0.0)) as server:
        yield _Played(
            OpenAIResponses(_STAND_IN, base_url=server.base_url, api_key="none"),
            "none that is real: a few rules behind an HTTP server on this machine stand in for it. With "
            "--model the same team asks a real one",
        )


@contextmanager
def _file(chosen: str | None) -> Iterator[tuple[Path, bool]]:
    """The database file, and whether it is kept."""
    if chosen is not None:
        yield Path(chosen), True
        return
    with tempfile.TemporaryDirectory(prefix="kern-demo-", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / "kern.db", False
