"""The steps of a run with a journal: what is done is kept, and what is on record is not done again.

Each step has a key that says what it is: "<run id>/model/<n>" for the n-th request of a run,
"<run id>/tool/<call id>", "<run id>/hook/<n>", "<run id>/prompt". A step is made, what it came to is told to
those who listen, and then it is kept: the run goes on once it is safe. In another life, or in a replay, the
same step finds itself on record.

What the journal itself raises ends the run, and is told to no model: it travels as a `JournalSignal`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from kern._error_text import leaf_errors
from kern._json import json_bytes
from kern.db.journals import RunClaim
from kern.durable.journal import Entry, Playback, RunJournal
from kern.durable.outbox import Outbox
from kern.errors import KernError, ReplayMismatch, RunLostError, SessionDeletedError
from kern.run.events import EventSource
from kern.runtime.recorded_steps import RecordedSteps
from kern.runtime.session import LiveSession
from kern.runtime.state_line import StateLine
from kern.runtime.step_data import Data, loads, moment, reading, written
from kern.runtime.step_writer import Owner, StepWriter
from kern.state.shared_state import Change


class StepRun(Protocol):
    """What is to be known of a run that does a step."""

    @property
    def run_id(self) -> str:
        """The run's id."""
        ...

    @property
    def parent(self) -> StepRun | None:
        """The run that delegated to it."""

    @property
    def source(self) -> EventSource:
        """Who runs."""
        ...


class JournalSignal(BaseException):
    """Takes an error of the journal through a run, past all that would tell a model of it.

    Args:
        error: What is raised at the end.
    """

    def __init__(self, error: KernError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def signalled() -> Iterator[None]:
    """An error of the journal that is raised inside of the block ends the run, and is told to no model."""
    try:
        yield
    except KernError as error:
        raise JournalSignal(error) from error


class CutShort(BaseException):
    """The record of a run ends here: it was cut short, and what became of that is on record elsewhere."""


def first_signal(error: BaseException) -> BaseException | None:
    """What ends the whole tree of runs, in a group of errors of tasks that ran at the same time."""
    signals = [leaf for leaf in leaf_errors(error) if isinstance(leaf, JournalSignal | CutShort)]
    return next(iter(signals), None)


class Steps:
    """The steps of one top-level run and of all runs below it.

    Args:
        journal: Where they are kept.
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
        """What each run has asked its model last, for those who want requests."""
        self.lost: KernError | None = None
        """Another process has the run."""
        self.broken: dict[str, Data] = {
            entry.key: loads(entry) for entry in journal.entries if entry.kind == "broken_off"
        }
        """The steps that were under way where the recording was broken off, and how far each had come."""
        self._begun = {entry.key for entry in journal.entries if entry.kind == "begun"}
        strict = journal.playback is Playback.strict
        self._record = RecordedSteps(journal.entries, self.line.replay, strict=strict)

    @property
    def playback(self) -> Playback:
        """What is done with the steps on record."""
        return self._journal.playback

    @property
    def entries(self) -> Sequence[Entry]:
        """What was on record when the run began."""
        return self._journal.entries

    @property
    def detailed(self) -> bool:
        """Requests, and pieces of answers, are kept as well."""
        return self._journal.detailed

    @property
    def claim(self) -> RunClaim | None:
        """This process's claim to the run, if others may go on with it."""
        return self._journal.claim

    @property
    def outbox(self) -> Outbox | None:
        """Where what the run tells goes that other processes can read."""
        return self._journal.outbox

    @property
    def goes_on(self) -> bool:
        """The run was begun before, in another process or attempt."""
        return bool(self._journal.entries)

    @property
    def age(self) -> float:
        """Seconds since the run began, if that was in another process."""
        known = self.playback is Playback.resume and self.goes_on
        return max(0.0, time.time() - self.line.since) if known else 0.0

    # The clock.

    def now(self, run: StepRun) -> float:
        """The time of the run: that of its latest step, so that a replay has the same."""
        at: StepRun | None = run
        while at is not None:
            if (clock := self._clocks.get(at.run_id)) is not None:
                return clock
            at = at.parent
        return self.line.since

    def tick(self, run: StepRun) -> None:
        """A step of the run has just been done."""
        self._clocks[run.run_id] = time.time()

    # Beginning.

    async def begin(self, session: LiveSession, about: Data, lost: Callable[[KernError], None]) -> None:
        """Make the session what it was when the run began.

        Args:
            session: The session, loaded, which the run has to itself.
            about: What is to be known of the run, for people.
            lost: Called when another process has taken the run over.

        Raises:
            KernError: The journal cannot be written, or the state is another one.
        """
        entry = await self.line.open(session, about)
        if entry is not None:
            await self._journal.append([entry])
        self._journal.when_lost(lost)  # before that, the error itself says so

    async def end(self) -> None:
        """The end of the run is committed next. Never raises."""
        await self._writer.settled()
        await self._journal.end()

    async def close(self) -> None:
        """The run has ended and is committed, or this process lets go of it. Never raises."""
        try:
            self.line.close()
            await self._writer.settled()
            if self._broken_off:
                await self._journal.append(self._broken_off)  # only recordings have these: those cannot fail
        finally:
            await self._journal.close()

    # Taking from the record.

    def number(self, run: StepRun, kind: str) -> str:
        """The key of the run's next step of a kind whose steps come one after another."""
        count = self._counts[run.run_id, kind]
        self._counts[run.run_id, kind] += 1
        return f"{run.run_id}/{kind}/{count}"

    def __contains__(self, key: str) -> bool:
        """The step is on record, and was not taken yet."""
        return key in self._record

    def look_at(self, key: str) -> Data | None:
        """What a step came to that is made of other steps, which come first; None if it is not on record.

        Raises:
            JournalSignal: It cannot be read.
        """
        entry = self._record.look_at(key)
        try:
            return None if entry is None else loads(entry)
        except KernError as error:
            raise JournalSignal(error) from error

    async def recorded(self, run: StepRun, key: str, *, waits: bool = True) -> Data | None:
        """What a step came to, once all that was done before it has been taken; None: it is to be done now.

        Args:
            run: Whose step it is.
            key: Which.
            waits: It is to be done only once all that is on record has been taken. One that is made of other
                steps, which may be on record, does not.

        Raises:
            JournalSignal: It should be on record and is not, or this process has lost the run.
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
        if waits:
            await self._record.all_taken()
        await self._journal.hold()

    async def is_lost(self) -> bool:
        """Another process has the run by now; asked before a failure of this one is committed as its end."""
        if self.claim is not None and self.lost is None:
            try:
                await self._journal.append([])
            except (RunLostError, SessionDeletedError) as error:
                self.lost = error
            except KernError:
                return False  # the commit will say the same
        return self.lost is not None

    async def why_lost(self) -> KernError:
        """What has taken the run away, once the commit of its end was refused for the claim."""
        return await self._journal.why_lost()

    async def caught_up(self) -> None:
        """Wait until all that is on record has been taken."""
        try:
            await self._record.all_taken()
        except KernError as error:
            raise JournalSignal(error) from error

    def in_doubt(self, key: str) -> bool:
        """The step was begun before, and whether it was done is not known."""
        return key in self._begun

    def cut(self, run_id: str) -> None:
        """Where the record of that run, and of those below it, ends, it was cut short."""
        self._cut.add(run_id)

    def ended(self, run: StepRun) -> None:
        """The run has ended: nobody will ask for what is left of it on record.

        Raises:
            JournalSignal: Something is, in a strict replay.
        """
        left = self._record.skip(run.run_id)
        if left and self.playback is Playback.strict:
            error = ReplayMismatch(
                f"{' > '.join(run.source.path)} has ended, but the recording goes on: {', '.join(left)}"
            )
            raise JournalSignal(error)

    # Keeping.

    def under_way(self, owner: Owner) -> AbstractContextManager[None]:
        """Round a step, from before it is done until it is kept; see `StepWriter`."""
        return self._writer.under_way(owner)

    def watch(self, owner: Owner, over: Callable[[], bool]) -> None:
        """A transaction of a step; see `StepWriter`."""
        self._writer.watch(owner, over)

    async def keep(self, run: StepRun, kind: str, key: str, data: Data, owner: Owner | None = None) -> None:
        """Keep a step that is done, with what its owner has committed; back when it is safe.

        Raises:
            JournalSignal: It could not be kept.
        """
        entry = Entry(key, kind, written({"at": self.now(run), **data}, f"the result of {key}"))
        try:
            await self._writer.keep(entry, owner)
        except KernError as error:
            raise JournalSignal(error) from error

    def broke_off(self, key: str, data: Data) -> None:
        """A step was cancelled: a recording says so, and how far it came."""
        self._broken_off.append(Entry(key, "broken_off", json_bytes(data)))

    async def flush(self) -> None:
        """Make the commits that no step on record is left for, and keep those that no step has brought.

        Raises:
            JournalSignal: They could not be kept.
        """
        self._record.go_on()
        if self.detailed:
            try:
                await self._writer.flush()
            except KernError as error:
                raise JournalSignal(error) from error

    def _changed(self, change: Change) -> None:
        self._writer.changed(change)
