"""Records runs to a file, and replays them without a network.

    with cassette("desk.json", "record"):
        await team.arun("Plan a trip")

    with cassette("desk.json"):  # strict: calls no model, no tool and no hook
        await team.arun("Plan a trip")

The file is readable JSON to keep with the tests: each request with what is new in it, each answer, each
    result
of a tool, and each commit to the session state, in order.
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
    """A file of recorded runs, used as a journal.

    Args:
        path: The file.
        runs: The runs in the file.
        playback: How to replay them; None to record.
    """

    def __init__(self, path: Path, runs: Sequence[RecordedRun], playback: Playback | None) -> None:
        self.path: Path = path
        self.runs: list[RecordedRun] = list(runs)
        self.db: Db | None = None if playback is None else InMemoryDb()
        """Holds the sessions of a replay, which does not use the database of the agents and teams."""
        self.replays: bool = playback is not None
        self._playback = playback
        self._left = list(runs)
        self._recording: list[tuple[RecordedRun, CassetteJournal]] = []
        self._open: dict[tuple[str, bool], RecordedRun] = {}

    @classmethod
    def read(cls, path: Path, playback: Playback) -> Cassette:
        """Read a cassette from a file.

        Raises:
            UsageError: The file does not exist, is damaged, or has another version.
        """
        return cls(path, read_runs(path), playback)

    def write(self) -> None:
        """Write the recorded runs to the file, without the values of API keys in the environment."""
        for run, journal in self._recording:
            if not journal.closed:  # the run is still in progress: its stream was neither read nor closed
                run.steps.append({"key": f"{run.run_id}/end", "kind": "broken_off"})
        write_runs(self.path, self.runs)

    def check_exhausted(self) -> None:
        """Check that every recorded run was replayed.

        Raises:
            ReplayMismatch: A run was not.
        """
        if self._playback is Playback.strict and self._left:
            left = ", ".join(f"{run.runner} ({run.input!r})" for run in self._left)
            raise ReplayMismatch(f"{self.path}: these recorded runs were not replayed: {left}")

    # As a journal.

    def run_id(self, asked: RunAsked) -> str:
        """The id of the recorded run that this run replays.

        Raises:
            ReplayMismatch: No recorded run matches.
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
                        f"{self.path}: the input of {run.runner} is {now!r}, "
                        f"but {run.input!r} in the recording"
                    )
                return run.run_id
        left = ", ".join(run.runner for run in self._left) or "nothing"
        raise ReplayMismatch(
            f"{self.path}: no run of {asked.runner_id!r} is left in the recording; runs left: {left}"
        )

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
    """The journal of one recorded or replayed run.

    Args:
        entries: The recorded steps.
        playback: How to replay them.
        steps: Receives the new steps.
    """

    detailed = True
    outbox: Outbox | None = None
    claim: RunClaim | None = None

    def __init__(self, entries: Sequence[Entry], playback: Playback, steps: list[dict[str, Any]]) -> None:
        self.entries: Sequence[Entry] = entries
        self.playback: Playback = playback
        self.closed: bool = False
        """Whether the run has ended."""
        self._steps = steps

    async def append(self, entries: Sequence[Entry]) -> None:
        """Add the entries to the recorded steps."""
        self._steps += [{"key": e.key, "kind": e.kind, **json.loads(e.data)} for e in entries]

    async def hold(self) -> None:
        """Do nothing: no other process has the run."""

    def when_lost(self, tell: Callable[[KernError], None]) -> None:
        """Do nothing: the run cannot be lost to another process."""

    async def why_lost(self) -> KernError:
        """Do nothing: the run is used by this process only."""
        raise AssertionError("a recorded run has no claim")

    async def end(self) -> None:
        """Do nothing: the end is not recorded as a step."""

    async def close(self) -> None:
        """Note the end; the `cassette` block writes the file."""
        self.closed = True


@contextmanager
def cassette(path: str | os.PathLike[str], mode: Mode = "replay") -> Iterator[Cassette]:
    """Record the top-level runs of this process inside the block, or replay them.

    A run that a tool starts is recorded as part of the tool's call. Recorded and replayed runs have their
    session exclusively. A replay calls no model, no tool and no hook; a request that differs from the
    recorded one ends the run with a `ReplayMismatch` that shows the difference. Sessions of a replay are in
    memory, whatever `db` the agents and teams have.

    Args:
        path: The file.
        mode: "replay"; "record", which replaces the file; or "auto": record if the file does not exist.

    Raises:
        UsageError: The file does not exist or is damaged, or another cassette is in use.
        ReplayMismatch: At the end of the block: a recorded run was not replayed.
    """
    file = Path(path)
    if mode not in ("replay", "record", "auto"):
        raise UsageError(f"mode must be 'replay', 'record' or 'auto', not {mode!r}")
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
    """Use the cassette for all top-level runs of this process inside the block."""
    if Installed.journal is not None:
        raise UsageError("another cassette is in use: cassettes cannot be nested")
    Installed.journal = tape
    try:
        yield
    finally:
        Installed.journal = None


def _entry(step: Mapping[str, Any]) -> Entry:
    data = {name: value for name, value in step.items() if name not in ("key", "kind")}
    return Entry(step["key"], step["kind"], json_bytes(data))


def _form(asked: RunAsked) -> InputForm | None:
    """The type of the input, if its JSON does not show it."""
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
