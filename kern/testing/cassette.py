"""Runs that are recorded to a file, and replayed from it without a network.

    with cassette("desk.json", "record"):
        await team.arun("Plan a trip")

    with cassette("desk.json"):  # strict: no model is asked, no tool is called, no hook
        await team.arun("Plan a trip")

The file is JSON to be read, compared and kept with the tests: each request with what is new in it, each
answer, each outcome of a tool, each commit to the session state, in the order in which they were done.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from kern._json import json_bytes
from kern.db.base import Db
from kern.db.in_memory import InMemoryDb
from kern.db.journals import RunClaim
from kern.durable.journal import Entry, Playback, RunAsked
from kern.durable.keys import EnvironmentKeys, same
from kern.durable.outbox import Outbox
from kern.errors import KernError, ReplayMismatch, UsageError
from kern.messages import Message
from kern.runtime.journaled import Installed
from kern.testing._cassette_file import InputForm, RecordedRun, read_runs, write_runs

Mode = Literal["replay", "record", "auto"]


class Cassette:
    """A file of recorded runs, as a journal.

    Args:
        path: The file.
        runs: What is on it.
        playback: What is done with that; None to record.
    """

    def __init__(self, path: Path, runs: Sequence[RecordedRun], playback: Playback | None) -> None:
        self.path: Path = path
        self.runs: list[RecordedRun] = list(runs)
        self.db: Db | None = None if playback is None else InMemoryDb()
        """Where sessions are in a replay, which leaves the database of the agents and teams alone."""
        self._playback = playback
        self._left = list(runs)
        self._recording: list[tuple[RecordedRun, CassetteJournal]] = []
        self._open: dict[tuple[str, bool], RecordedRun] = {}

    @classmethod
    def read(cls, path: Path, playback: Playback) -> Cassette:
        """The cassette that is stored in a file.

        Raises:
            UsageError: There is no such file, or it is damaged, or of another version.
        """
        return cls(path, read_runs(path), playback)

    def write(self) -> None:
        """Store what was recorded; keys of the environment are not written."""
        for run, journal in self._recording:
            if not journal.closed:  # the run goes on, since its stream was left and not closed
                run.steps.append({"key": f"{run.run_id}/end", "kind": "broken_off"})
        write_runs(self.path, self.runs)

    def check_exhausted(self) -> None:
        """See that every recorded run was replayed.

        Raises:
            ReplayMismatch: One was not.
        """
        if self._playback is Playback.strict and self._left:
            left = ", ".join(f"{run.runner} ({run.input!r})" for run in self._left)
            raise ReplayMismatch(f"{self.path}: recorded and not replayed: {left}")

    # As a journal.

    def run_id(self, asked: RunAsked) -> str:
        """The id of the recorded run that the run is a replay of.

        Raises:
            ReplayMismatch: There is none.
        """
        if self._playback is None:
            return asked.run_id
        for run in self._left:
            meant = run.run_id == asked.run_id if asked.continued else run.runner == asked.runner_id
            if meant and run.continued == asked.continued:
                self._left.remove(run)
                self._open[run.run_id, run.continued] = run
                strict = self._playback is Playback.strict
                if strict and not asked.continued and not same(run.input, asked.input):
                    now = EnvironmentKeys().masked(asked.input)
                    raise ReplayMismatch(
                        f"{self.path}: {run.runner} is asked {now!r}; recorded is {run.input!r}"
                    )
                return run.run_id
        left = ", ".join(run.runner for run in self._left) or "nothing"
        raise ReplayMismatch(f"{self.path}: no run of {asked.runner_id!r} is on record; what is left: {left}")

    async def open(self, asked: RunAsked) -> CassetteJournal:
        """The journal of one run."""
        if self._playback is None:
            run = RecordedRun(asked.run_id, asked.runner_id, asked.input, asked.continued, form=_form(asked))
            self.runs.append(run)
            journal = CassetteJournal((), Playback.fork, run.steps)
            self._recording.append((run, journal))
            return journal
        run = self._open[asked.run_id, asked.continued]
        entries = [_entry(step) for step in run.steps]
        return CassetteJournal(entries, self._playback, [])


class CassetteJournal:
    """The journal of one run that is recorded or replayed.

    Args:
        entries: What is on record.
        playback: What is done with it.
        steps: Where new steps go.
    """

    detailed = True
    outbox: Outbox | None = None
    claim: RunClaim | None = None

    def __init__(self, entries: Sequence[Entry], playback: Playback, steps: list[dict[str, Any]]) -> None:
        self.entries: Sequence[Entry] = entries
        self.playback: Playback = playback
        self.closed: bool = False
        """The run has ended."""
        self._steps = steps

    async def append(self, entries: Sequence[Entry]) -> None:
        """Note the entries."""
        self._steps += [{"key": e.key, "kind": e.kind, **json.loads(e.data)} for e in entries]

    async def hold(self) -> None:
        """Nobody else has the run."""

    def when_lost(self, tell: Callable[[KernError], None]) -> None:
        """Nobody else gets the run."""

    async def why_lost(self) -> KernError:
        """Nobody else gets the run."""
        raise AssertionError("a recorded run has no claim")

    async def end(self) -> None:
        """The end is no step."""

    async def close(self) -> None:
        """The file is written by the block round the runs."""
        self.closed = True


@contextmanager
def cassette(path: str | os.PathLike[str], mode: Mode = "replay") -> Iterator[Cassette]:
    """Record the top-level runs of this process inside the block, or replay them.

    Runs that a tool starts are a part of that tool's call. A recorded run, and a replayed one, has its
    session to itself. Tools and hooks are not called in a replay, and no model is asked: a request that is
    another one than the recorded one ends the run with a `ReplayMismatch` that shows the difference. Sessions
    are in the memory of the replay meanwhile, whatever `db` the agents and teams have.

    Args:
        path: The file.
        mode: "replay"; "record", which replaces the file; or "auto": record if there is no such file.

    Raises:
        UsageError: There is no such file, or a cassette is in use already.
        ReplayMismatch: At the end: not all that is on record was replayed.
    """
    file = Path(path)
    if mode not in ("replay", "record", "auto"):
        raise UsageError(f"mode is 'replay', 'record' or 'auto', not {mode!r}")
    records = mode == "record" or (mode == "auto" and not file.exists())
    tape = Cassette(file, [], None) if records else Cassette.read(file, Playback.strict)
    with in_use(tape):
        yield tape
        if not records:
            tape.check_exhausted()
    if records:
        tape.write()


@contextmanager
def in_use(tape: Cassette) -> Iterator[None]:
    """Inside the block, all top-level runs of this process use the cassette."""
    if Installed.journal is not None:
        raise UsageError("a cassette is in use already: cassettes do not nest")
    Installed.journal = tape
    try:
        yield
    finally:
        Installed.journal = None


def _entry(step: Mapping[str, Any]) -> Entry:
    data = {name: value for name, value in step.items() if name not in ("key", "kind")}
    return Entry(step["key"], step["kind"], json_bytes(data))


def _form(asked: RunAsked) -> InputForm | None:
    """What the input was, where its JSON alone does not say it."""
    value, messages = asked.input, asked.messages
    if isinstance(value, list):
        alike = len(value) == len(messages) and all(map(_is_json_of, value, messages))
        return "messages" if alike else None
    if not isinstance(value, dict) or len(messages) != 1:
        return None
    if _is_json_of(value, messages[0]):
        return "message"
    text = messages[0].content or ""
    return "model" if text != json.dumps(value, ensure_ascii=False) and text.startswith("{") else None


def _is_json_of(value: Any, message: Message) -> bool:
    if not isinstance(value, dict) or value.get("role") != message.role:
        return False
    return (value.get("content") or "") == (message.content or "")
