"""The steps of a run with a journal: each step is recorded, and a recorded step is not made again.

Each step has a key that identifies it: "<run id>/model/<n>" for the n-th request of a run,
"<run id>/tool/<call id>", "<run id>/hook/<side>/<name>/<n>", "<run id>/prompt". A step is made, its events
are emitted, and then its result is recorded; the run goes on when the record is safe. When the run is
resumed, or replayed, the same step takes its result from the record.

An error of the journal itself ends the run, and never reaches the model: it travels as a `JournalSignal`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeVar

from kern._error_text import leaf_errors
from kern._json import json_bytes
from kern.db.journals import RunClaim
from kern.durable.journal import Entry, Playback, RunJournal
from kern.durable.outbox import Outbox
from kern.errors import KernError, ReplayMismatch, RunLostError, SessionDeletedError, UsageError
from kern.run.events import EventSource
from kern.runtime.recorded_steps import RecordedSteps
from kern.runtime.session import LiveSession
from kern.runtime.state_line import StateLine
from kern.runtime.step_data import Data, loads, moment, reading, written
from kern.runtime.step_writer import Owner, StepWriter
from kern.runtime.unclear_calls import tool_key, unclear_calls
from kern.state.shared_state import Change

T = TypeVar("T")


class StepRun(Protocol):
    """What this module needs to know of a run."""

    @property
    def run_id(self) -> str:
        """The id of the run."""
        ...

    @property
    def parent(self) -> StepRun | None:
        """The run that delegated to this one, or None."""

    @property
    def source(self) -> EventSource:
        """The agent or team of the run, as its events name it."""
        ...


class GivenValues(Protocol):
    """See `kern.runtime.prompt_step.Given`."""

    async def value(
        self,
        name: str,
        make: Callable[[], Awaitable[T]],
        dump: Callable[[T], Any] = ...,
        load: Callable[[Any], T] | None = ...,
    ) -> T:
        """Return the recorded value of that name, or make it now."""
        ...

    def state(self) -> dict[str, Any]:
        """Return the session state that the prompt shows."""
        ...


class JournalSignal(BaseException):
    """Carries an error of the journal through a run, past the code that sends errors to the model.

    Args:
        error: The error to raise at the end.
    """

    def __init__(self, error: KernError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def signalled() -> Iterator[None]:
    """Turn an error of the journal inside the block into a `JournalSignal`, which ends the run."""
    try:
        yield
    except KernError as error:
        raise JournalSignal(error) from error


class CutShort(BaseException):
    """Ends the replay of a run that was cut short at this point; its team's record says what followed."""


def first_signal(error: BaseException) -> BaseException | None:
    """Return the signal that ends the whole tree of runs, from an error or group of errors; or None."""
    signals = [leaf for leaf in leaf_errors(error) if isinstance(leaf, JournalSignal | CutShort)]
    return next(iter(signals), None)


class Steps:
    """The steps of one top-level run and of all runs below it.

    Args:
        journal: The journal in which they are recorded.
    """

    def __init__(self, journal: RunJournal) -> None:
        self._journal = journal
        run_id = "a recording" if journal.claim is None else journal.claim.run_id
        self.line: StateLine = StateLine(journal.entries, journal.playback, self._changed, run_id)
        self._writer = StepWriter(journal.append, self.line.entry_of)
        self._clocks: dict[str, float] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._cut: set[str] = set()
        self._broken_off: list[Entry] = []
        self.asked: dict[str, Data] = {}
        """The last request of each run to its model, for journals that record requests."""
        self.lost: KernError | None = None
        """The error to raise if another process has taken the run over."""
        self.broken: dict[str, Data] = {
            entry.key: loads(entry) for entry in journal.entries if entry.kind == "broken_off"
        }
        """The steps that were in progress when the recorded run was cut short, and how far each had got."""
        self._begun = {entry.key for entry in journal.entries if entry.kind == "begun"}
        self._unclear = {} if journal.claim is None else unclear_calls(journal.entries, run_id)
        strict = journal.playback is Playback.strict
        self._record = RecordedSteps(journal.entries, self.line.replay, strict=strict)

    @property
    def playback(self) -> Playback:
        """How recorded steps are used."""
        return self._journal.playback

    @property
    def entries(self) -> Sequence[Entry]:
        """The entries that were recorded before."""
        return self._journal.entries

    @property
    def detailed(self) -> bool:
        """Whether requests and the deltas of answers are recorded, too."""
        return self._journal.detailed

    @property
    def claim(self) -> RunClaim | None:
        """This process's claim to the run, if other processes may resume the run."""
        return self._journal.claim

    @property
    def outbox(self) -> Outbox | None:
        """Stores the events of the run, for followers in other processes; None if they are not stored."""
        return self._journal.outbox

    @property
    def resumes(self) -> bool:
        """Whether the run was begun before, in another process or attempt."""
        return bool(self._journal.entries)

    @property
    def age(self) -> float:
        """Seconds since the run began, if it began in another process; else 0."""
        known = self.playback is Playback.resume and self.resumes
        return max(0.0, time.time() - self.line.since) if known else 0.0

    # The clock.

    def now(self, run: StepRun) -> float:
        """Return the time of the run's latest step, in seconds since the epoch: a replay has the same."""
        at: StepRun | None = run
        while at is not None:
            if (clock := self._clocks.get(at.run_id)) is not None:
                return clock
            at = at.parent
        return self.line.since

    def tick(self, run: StepRun) -> None:
        """Note that a step of the run has just been made."""
        self._clocks[run.run_id] = time.time()

    # Beginning.

    async def begin(self, session: LiveSession, about: Data, lost: Callable[[KernError], None]) -> None:
        """Restore the session as it was when the run began, or record that it begins now.

        Args:
            session: The loaded session, of which the run has exclusive use.
            about: Facts about the run, recorded with its beginning.
            lost: Called when another process has taken the run over.

        Raises:
            KernError: The journal cannot be written, or the session has another state.
        """
        entry = await self.line.open(session, about)
        if entry is not None:
            await self._journal.append([entry])
        self._journal.when_lost(lost)  # before that, the error itself says so

    async def end(self) -> None:
        """Note that the result of the run is committed next. Never raises."""
        await self._writer.settled()
        await self._journal.end()

    async def close(self) -> None:
        """Close the journal: the run is committed, or this process releases it. Never raises."""
        try:
            self.line.close()
            await self._writer.settled()
            if self._broken_off:
                await self._journal.append(self._broken_off)  # only in recordings, where `append` cannot fail
        finally:
            await self._journal.close()

    # Reading the record.

    def number(self, run: StepRun, kind: str) -> str:
        """Return the key of the run's next step, for a kind of which steps are made one after another."""
        count = self._counts[run.run_id, kind]
        self._counts[run.run_id, kind] += 1
        return f"{run.run_id}/{kind}/{count}"

    def __contains__(self, key: str) -> bool:
        """Whether the step is recorded, and was not taken yet."""
        return key in self._record

    def peek(self, key: str) -> Data | None:
        """Return the result of a step before its turn; None if it is not recorded.

        For a step that consists of other steps, such as a delegation: these are taken first.

        Raises:
            JournalSignal: The record cannot be read.
        """
        entry = self._record.peek(key)
        try:
            return None if entry is None else loads(entry)
        except KernError as error:
            raise JournalSignal(error) from error

    async def recorded(self, run: StepRun, key: str, *, waits: bool = True) -> Data | None:
        """Return the recorded result of a step, after all earlier ones were taken; None: make the step now.

        Args:
            run: The run of the step.
            key: The key of the step.
            waits: Before a new step, wait until all recorded steps were taken. Pass False for a step that
                consists of other steps, which may be recorded.

        Raises:
            JournalSignal: A strict replay has no such step, or this process has lost the run.
            CutShort: The run was cut short at this point.
        """
        try:
            entry = await self._record.take(key)
            if entry is None:
                await self._live(run, key, waits=waits)
                return None
            data = loads(entry)
            with reading(key):
                self._clocks[run.run_id] = max(moment(data.get("at", 0.0)), self._clocks.get(run.run_id, 0.0))
        except KernError as error:
            raise JournalSignal(error) from error
        return data

    async def _live(self, run: StepRun, key: str, *, waits: bool) -> None:
        at: StepRun | None = run
        while at is not None:
            if at.run_id in self._cut:
                self._unclear.pop(key, None)  # the record of the delegation says what followed
                raise CutShort
            at = at.parent
        if self.playback is Playback.strict:
            if key in self.broken or (self.broken and self._record.played_out):
                raise ReplayMismatch(
                    f"{key} ({' > '.join(run.source.path)}) was in progress when the recorded run was cut "
                    "short, by a timeout, a cancellation or the end of its stream: the recording ends there"
                )
            left = ", ".join(self._record) or "nothing"
            raise ReplayMismatch(
                f"{key} ({' > '.join(run.source.path)}) is not in the recording; unused steps: {left}"
            )
        if self._unclear and run.parent is None and key.startswith(f"{run.run_id}/model/"):
            self.check_unclear()
        if waits:
            await self._record.all_taken()
        await self._journal.hold()

    async def is_lost(self) -> bool:
        """Whether another process has taken the run over. Asked before a failure is committed as its end."""
        if self.claim is not None and self.lost is None:
            try:
                await self._journal.append([])
            except (RunLostError, SessionDeletedError) as error:
                self.lost = error
            except KernError:
                return False  # the commit will say the same
        return self.lost is not None

    async def why_lost(self) -> KernError:
        """Return why the run was lost, after the commit of its result was refused because of the claim."""
        return await self._journal.why_lost()

    async def caught_up(self) -> None:
        """Wait until all recorded steps have been taken."""
        try:
            await self._record.all_taken()
        except KernError as error:
            raise JournalSignal(error) from error

    def in_doubt(self, key: str) -> bool:
        """Whether the step was begun before, so that it is unknown whether it was carried out."""
        self._unclear.pop(tool_key(key), None)
        return key in self._begun

    @property
    def unclear(self) -> bool:
        """Whether there are calls that may have been carried out before the crash, not asked about yet."""
        return bool(self._unclear)

    def check_unclear(self) -> None:
        """Check that every call that may have been carried out before the crash has been asked about.

        Called when the top-level run has all results of a turn: no run below it is in progress.

        Raises:
            JournalSignal: The program does not make such a call any more, so that nobody can be asked.
        """
        for key, tool in self._unclear.items():
            whole = "" if self.claim is None else self.claim.run_id
            error = UsageError(
                f"run {whole!r} cannot be resumed: its process died during the call {key} of the tool "
                f"{tool!r}, which may have been carried out and must not be repeated, and the program does "
                "not make this call any more, since a team member or a tool is missing. Resume the run with "
                "the program that began it, which asks a person about the call; or give the run up with "
                f"DbJournal(db).forget({whole!r})"
            )
            raise JournalSignal(error)

    def cut(self, run_id: str) -> None:
        """Note that the run, and the runs below it, were cut short where their record ends."""
        self._cut.add(run_id)

    def ended(self, run: StepRun) -> None:
        """Note that the run has ended: its remaining recorded steps are skipped.

        Raises:
            JournalSignal: There are such steps, in a strict replay.
        """
        left = self._record.skip(f"{run.run_id}/")
        if left and self.playback is Playback.strict:
            error = ReplayMismatch(
                f"{' > '.join(run.source.path)} has ended before these recorded steps: {', '.join(left)}"
            )
            raise JournalSignal(error)

    # Recording.

    def in_progress(self, owner: Owner) -> AbstractContextManager[None]:
        """Wrap a step, from before it is made until it is recorded; see `StepWriter`."""
        return self._writer.in_progress(owner)

    def watch(self, owner: Owner, over: Callable[[], bool]) -> None:
        """Watch a transaction of a step; see `StepWriter`."""
        self._writer.watch(owner, over)

    async def keep(self, run: StepRun, kind: str, key: str, data: Data, owner: Owner | None = None) -> None:
        """Record a step and the commits of its owner. Return when they are safe.

        Raises:
            JournalSignal: The journal cannot be written.
        """
        entry = Entry(key, kind, written({"at": self.now(run), **data}, f"the result of {key}"))
        try:
            await self._writer.keep(entry, owner)
        except KernError as error:
            raise JournalSignal(error) from error

    def broke_off(self, key: str, data: Data) -> None:
        """Note in a recording that a step was cancelled, and how far it had got."""
        self._broken_off.append(Entry(key, "broken_off", json_bytes(data)))

    async def flush(self) -> None:
        """Replay the recorded commits after the last step, and record the commits that belong to no step.

        Raises:
            JournalSignal: The journal cannot be written.
        """
        self._record.advance()
        if self.detailed:
            try:
                await self._writer.flush()
            except KernError as error:
                raise JournalSignal(error) from error

    def _changed(self, change: Change) -> None:
        self._writer.changed(change)
