"""The journal port: where a run notes each step that is done.

A step is named by what it is, and never by when it came: the members of a team work at the same time, and in
another life they come in another order. `kern.runtime.steps` says which steps there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from kern.db.journals import RunClaim
from kern.durable.outbox import Outbox
from kern.errors import KernError
from kern.messages import Message


@dataclass(slots=True, frozen=True)
class Entry:
    """One step that is done, or one commit to the session state.

    Args:
        key: What it is, unique in the journal of a run: "<run id>/model/0", "<run id>/tool/<call id>".
        kind: What sort of entry it is.
        data: What it came to: a JSON object (UTF-8).
    """

    key: str
    kind: str
    data: bytes


class Playback(StrEnum):
    """What a run does with the steps that are on record."""

    resume = "resume"
    """Take them as they are, even if prompts and code have changed, then go on."""
    strict = "strict"
    """Compare the requests; a step that is not on record is an error."""
    fork = "fork"
    """Take the answers, but make the prompts anew, then go on."""


@dataclass(slots=True, frozen=True, kw_only=True)
class RunAsked:
    """A run that is about to begin, as a journal is told of it.

    Args:
        run_id: Its id.
        runner_id: The agent or team.
        input: What it is asked, as JSON; None for a run that goes on after a pause.
        continued: It goes on after a pause.
        session_id, user_id: The session, and whose it is.
        is_team: A team runs.
        unnamed: The id of the agent or team is a random one, which is another one in another process.
        messages: What it is asked, as messages; none for a run that goes on after a pause.
        fingerprint: Identifies the input as the caller gave it; None if that is not compared.
    """

    run_id: str
    runner_id: str
    input: Any
    continued: bool
    session_id: str
    user_id: str | None
    is_team: bool
    unnamed: bool = False
    messages: Sequence[Message] = ()
    fingerprint: str | None = None


class RunJournal(Protocol):
    """The open journal of one run."""

    entries: Sequence[Entry]
    """What is on record, in the order of `append`."""
    playback: Playback
    """What the run does with that."""
    detailed: bool
    """The requests to models and the pieces of their answers are wanted as well, for people and replays."""
    claim: RunClaim | None
    """This process's claim, if other processes may go on with the run; the commit of the end checks it."""
    outbox: Outbox | None
    """Where the events of the run go that other processes can read; None if none can."""

    async def append(self, entries: Sequence[Entry]) -> None:
        """Keep all of them, or none; may be called again before it has returned.

        Raises:
            RunLostError: Another process has the run.
            StoreError: They could not be kept.
        """
        ...

    async def hold(self) -> None:
        """Make sure that the run is still this process's, before something is done that has effects.

        Raises:
            RunLostError: Another process has it.
        """
        ...

    def when_lost(self, tell: Callable[[KernError], None]) -> None:
        """Have `tell` called, on the event loop, as soon as it is known that another process has the run."""
        ...

    async def why_lost(self) -> KernError:
        """What has taken the run away, once its claim does not hold any more."""
        ...

    async def end(self) -> None:
        """The end of the run is committed next, which checks the claim by itself. Never raises."""
        ...

    async def close(self) -> None:
        """The run has ended and is committed, or this process lets go of it. Never raises."""
        ...


class Journal(Protocol):
    """Where the steps of runs are kept; one object serves any number of runs."""

    def run_id(self, asked: RunAsked) -> str:
        """The id that the run gets: `asked.run_id`, or in a replay the recorded one."""
        ...

    async def open(self, asked: RunAsked) -> RunJournal | None:
        """The run's journal; None if another process has the run right now.

        Raises:
            StoreError: It cannot be read.
            SessionOwnershipError: The run was begun by another user.
            RunMismatch: It was begun in another session, by another runner, or with another input.
        """
        ...
