"""The journal port: records each step of a run that is done.

The key of a step says what the step is, never when it came: the members of a team work at the same time, and
when the run is resumed they may come in another order. `kern.runtime.steps` lists the kinds of steps.
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
    """A step that is done, or a commit to the session state.

    Args:
        key: Identifies it within the journal of a run: "<run id>/model/0", "<run id>/tool/<call id>".
        kind: The kind of entry.
        data: The outcome: a JSON object (UTF-8).
    """

    key: str
    kind: str
    data: bytes


class Playback(StrEnum):
    """How a run uses the steps that are on record."""

    resume = "resume"
    """Take the outcomes, even if prompts and code have changed, then go on."""
    strict = "strict"
    """Compare the requests with the recorded ones; a step that is not on record is an error."""
    fork = "fork"
    """Take the answers, but build the prompts again, then go on."""


@dataclass(slots=True, frozen=True, kw_only=True)
class RunAsked:
    """A run that is about to begin, as a journal sees it.

    Args:
        run_id: Its id.
        runner_id: The id of the agent or team.
        input: The input, as JSON; None for a run that continues after a pause.
        continued: Whether it continues after a pause.
        session_id: The session.
        user_id: The owner of the session; None if it has none.
        is_team: Whether a team runs.
        unnamed: The id of the agent or team is random, and differs in other processes.
        messages: The input as messages; none for a run that continues after a pause.
        fingerprint: Identifies the input as the caller gave it; None: it is not compared.
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
    """The entries on record, in the order of `append`."""
    playback: Playback
    """How the run uses the entries."""
    detailed: bool
    """Whether requests to models and the pieces of their answers are recorded as well, for replays."""
    claim: RunClaim | None
    """This process's claim, if other processes may take the run over. The commit of the end checks it."""
    outbox: Outbox | None
    """Collects the events of the run for other processes; None if they cannot read them."""

    async def append(self, entries: Sequence[Entry]) -> None:
        """Store all of the entries, or none. May be called again before it has returned.

        Raises:
            RunLostError: Another process has taken the run over.
            StoreError: They could not be stored.
        """
        ...

    async def hold(self) -> None:
        """Check that this process still has the run, before something with effects is done.

        Raises:
            RunLostError: Another process has taken it over.
        """
        ...

    def when_lost(self, tell: Callable[[KernError], None]) -> None:
        """Call `tell`, on the event loop, as soon as it is known that another process has the run."""
        ...

    async def why_lost(self) -> KernError:
        """The error that says why the claim does not hold any more."""
        ...

    async def end(self) -> None:
        """Call before the end of the run is committed; the commit checks the claim. Never raises."""
        ...

    async def close(self) -> None:
        """Call after the commit of the end, or when this process gives the run up. Never raises."""
        ...


class Journal(Protocol):
    """Stores the steps of runs. One object serves any number of runs."""

    def run_id(self, asked: RunAsked) -> str:
        """The id that the run gets: `asked.run_id`, or in a replay the recorded one."""
        ...

    async def open(self, asked: RunAsked) -> RunJournal | None:
        """Open the run's journal; None if another process has the run right now.

        Raises:
            StoreError: It cannot be read.
            SessionOwnershipError: Another user began the run.
            RunMismatch: It was begun in another session, by another agent or team, or with another input.
        """
        ...
