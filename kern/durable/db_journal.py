"""The journal in the database of the session: if a process dies, another one resumes its runs."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

from kern._error_text import error_text
from kern._ids import check_given_id
from kern._keywords import ChecksArguments
from kern._log import named
from kern._numbers import MOST, check_seconds, check_whole
from kern._sync.shield import uninterrupted
from kern.db.base import Db
from kern.db.journals import ClaimedRun, EventRow, JournalDb, RunClaim, TakenRun
from kern.durable.deltas import DeltaStream, Publisher, stream_of
from kern.durable.fingerprint import check_same_input
from kern.durable.journal import Entry, Journal, Playback, RunAsked
from kern.durable.numbered import check_numbers, numbered
from kern.durable.outbox import Outbox
from kern.durable.pieces import pieces_of
from kern.durable.same_run import about_of, check_about, check_same_run, known_fingerprint
from kern.durable.submission import Submission
from kern.errors import KernError, RunLostError, SessionDeletedError, SessionError, UsageError
from kern.run.events import Event

log: Final = named("kern")

CLAIM_SECONDS = 15.0
FLUSH_SECONDS = 0.1
"""How many seconds an event waits for a step with which it can be written."""
RELEASE_SECONDS = 5.0
"""How many seconds the end of a run waits for the release of the claim, which expires by itself as well."""


class DbJournal(ChecksArguments):
    """Makes runs durable: the database stores each step that is done, and a claim of this process to the run.

        agent = Agent(db=db, journal=DbJournal(db))
        output = await agent.arun("Book it", run_id="booking-7")

    The same call starts the run, goes on with it after the process has died, and returns the stored output
    after it has ended.

    Args:
        db: The database of the agent or team.
        claim_seconds: The seconds after which other processes may take over the runs of a process that has
            died. A process renews its claims all the time; if it is frozen for longer, it loses them.
        deltas: Carries events between steps to followers of the run in other processes, such as
            `RedisDeltas`. The database is then written only at steps and renewals. None: the database
            carries them.

    Raises:
        UsageError: The database cannot store steps.
    """

    def __init__(
        self, db: Db, *, claim_seconds: float = CLAIM_SECONDS, deltas: DeltaStream | None = None
    ) -> None:
        if not isinstance(db, JournalDb):
            raise UsageError(f"db must be a database that stores steps, such as SqliteDb, not {db!r}")
        check_seconds("claim_seconds", claim_seconds, endless=False)
        self.db: Db = db
        self.deltas: DeltaStream | None = deltas
        self._steps: JournalDb = db
        self._seconds = claim_seconds

    def run_id(self, asked: RunAsked) -> str:
        """The id that the caller has given."""
        return asked.run_id

    async def open(self, asked: RunAsked) -> DbRunJournal | None:
        """Claim the run; None if another process has it.

        Raises:
            SessionOwnershipError: Another user began the run.
            RunMismatch: It was begun in another session, by another agent or team, or with another input.
            StoreError: The database failed.
        """
        owner = self._owner()
        found, since = await self._claimed(asked, owner)
        if found is None:
            running = await self._steps.running_runs(run_id=asked.run_id)
            for known in running:
                check_about(asked.run_id, known.about, about_of(asked, known.about))
                await self._check_input(asked.run_id, None if asked.continued else asked.fingerprint)
            if running:
                return None
            found, since = await self._claimed(asked, owner)  # again: it may have ended between the two
        if found is None:
            return None
        try:
            check_same_run(asked, found)
            check_numbers(asked.run_id, found.steps)
            if not found.steps:
                await self._check_input(asked.run_id, asked.fingerprint)
        except KernError:
            await self._steps.release_claim(found.claim)
            raise
        return DbRunJournal(self._steps, found, self._seconds, since, self.deltas)

    async def _claimed(self, asked: RunAsked, owner: str) -> tuple[ClaimedRun | None, float]:
        """Claim the run. Return what is on record of it, or None, and when it was asked for."""
        since = time.monotonic()
        return await self._steps.claim_run(asked.run_id, owner, self._seconds, about_of(asked)), since

    async def submit(self, run: Submission) -> bool:
        """Store a run, for any process to begin it.

        Returns:
            False if it was submitted or begun before, or has ended.

        Raises:
            SessionOwnershipError: The session, or the run of that id, belongs to another user.
            RunMismatch: The id belongs to a run with other values.
            StoreError: It could not be stored.
        """
        if await self._steps.submit_run(run.row()):
            return True
        await self.check_known(run)
        return False

    async def check_known(self, run: Submission) -> None:
        """Check that a run with that id that was submitted or begun, and has not ended, is this one.

        Raises:
            SessionOwnershipError: The id belongs to a run of another user.
            RunMismatch: The id belongs to a run with other values.
            StoreError: The database failed.
        """
        row = run.row()
        for known in await self._steps.running_runs(run_id=run.run_id):
            check_about(run.run_id, known.about, row.about)
        await self._check_input(run.run_id, run.fingerprint)

    async def take(self, runner_ids: Sequence[str]) -> Taken | None:
        """Take the oldest submitted run of these agents and teams that no process has.

        Raises:
            StoreError: The database cannot be asked.
        """
        found = await self._steps.take_run(new_owner(), self._seconds, runner_ids)
        return None if found is None else Taken(self, found)

    async def forget(self, run_id: str) -> bool:
        """Delete the request and the steps of a run that cannot end. A process that has the run loses it.

        Returns:
            False if there was nothing to delete.

        Raises:
            StoreError: The database failed.
        """
        check_given_id("run_id", run_id)
        return await self._steps.forget_run(run_id)

    async def unfinished(self, *, limit: int = 100) -> list[str]:
        """The ids of runs that were begun or submitted, that have not ended, and that no process has now."""
        check_whole("limit", limit, 1, MOST)
        return await self._steps.unfinished_runs(limit=limit)

    async def _check_input(self, run_id: str, asked: str | None) -> None:
        """Check that the run was not submitted or begun with another input than that of this fingerprint."""
        request = await self._steps.load_request(run_id)
        if request is not None:
            check_same_input(run_id, known_fingerprint(run_id, request), asked)

    def _owner(self) -> str:
        return new_owner()

    def __repr__(self) -> str:
        return f"DbJournal({self.db!r})"


def deltas_of(journal: Journal | None) -> DeltaStream | None:
    """Where what the runs with that journal tell between steps is; None: in their database."""
    return journal.deltas if isinstance(journal, DbJournal) else None


class Taken(DbJournal):
    """The journal of one submitted run that this process has claimed. The process begins the run at once.

    Args:
        journal: The journal that it was taken from.
        run: The run.
    """

    def __init__(self, journal: DbJournal, run: TakenRun) -> None:
        super().__init__(journal.db, claim_seconds=journal._seconds, deltas=journal.deltas)
        self.claim: RunClaim = run.claim
        self.request: bytes = run.request

    def _owner(self) -> str:
        return self.claim.owner

    async def put_off(self, seconds: float) -> None:
        """Keep the claim for that many seconds, so that no worker takes the run before.

        Raises:
            StoreError: The database failed.
        """
        await self._steps.append_steps(self.claim, seconds, [])

    async def done_with(self) -> None:
        """Delete the request of a run that was submitted again after its end.

        Raises:
            StoreError: The database failed.
        """
        await self._steps.forget_run(self.claim.run_id, self.claim.owner)


def new_owner() -> str:
    """A name that is unique per process and attempt."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex}"


class DbRunJournal:
    """The journal of one run that this process has claimed.

    Args:
        db: The database.
        found: The claim, and what is on record.
        seconds: How long the claim is valid.
        since: The monotonic time at which it was asked for.
        deltas: Carries events between steps; None: the database does.
    """

    playback = Playback.resume
    detailed = False

    def __init__(
        self,
        db: JournalDb,
        found: ClaimedRun,
        seconds: float,
        since: float,
        deltas: DeltaStream | None = None,
    ) -> None:
        self.entries: Sequence[Entry] = [Entry(step.key, step.kind, step.data) for step in found.steps]
        self.claim: RunClaim | None = found.claim
        self._outbox = Outbox(found.last_seq, self._stored_events)
        self.outbox: Outbox | None = self._outbox
        self._unwritten: list[EventRow] = []
        self._number: int | None = len(found.steps)
        self._is_told = found.last_seq > 0
        self._session_id = None if found.about is None else found.about.session_id
        self._writing = asyncio.Lock()
        self._claim = found.claim
        self._db = db
        self._deltas = None if deltas is None else Publisher(deltas)
        self._stream: str | None = None
        self._seconds = seconds
        self._held_until = since + seconds
        self._lost: KernError | None = None
        self._ended = False
        self._on_lost: Callable[[KernError], None] = lambda error: None
        self._renewal = asyncio.create_task(self._renew())

    async def append(self, entries: Sequence[Entry]) -> None:
        """Store the entries and the events until now, and renew the claim, in one transaction.

        Raises:
            RunLostError: Another process has taken the run over.
            StoreError: They could not be stored.
        """
        await self._write(entries, self._outbox.take())

    async def _write(self, entries: Sequence[Entry], events: Sequence[EventRow]) -> None:
        """Write, one call at a time, in the order in which the events were taken from the outbox."""
        async with self._writing:
            if self._lost is not None:
                raise self._lost
            since = time.monotonic()
            self._unwritten += events
            rows, following = numbered(entries, self._number)
            self._number = None  # if this fails, nobody knows whether the rows are stored
            if not await self._db.append_steps(self._claim, self._seconds, rows, self._unwritten):
                raise await self._lose()
            self._number = following
            if self._unwritten:
                self._is_told = True
                self._outbox.written_up_to(self._unwritten[-1].last_seq)
            self._unwritten = []
            self._held_until = since + self._seconds

    async def _stored_events(self, after: int) -> list[Event]:
        """The stored events of the run after that number."""
        events: list[Event] = []
        while rows := await self._db.load_events(self._claim.run_id, after=after):
            for row in rows:
                events += [piece.event for piece in pieces_of(self._claim.run_id, row.data)]
            after = rows[-1].last_seq
        return events

    async def hold(self) -> None:
        """Renew the claim if it may have expired.

        Raises:
            RunLostError: Another process has taken the run over.
        """
        if self._lost is not None or time.monotonic() >= self._held_until:  # this process was frozen
            await self._write([], self._outbox.take(between=True))

    def when_lost(self, tell: Callable[[KernError], None]) -> None:
        """Call `tell` once another process has taken the run over."""
        self._on_lost = tell
        if self._lost is not None:
            tell(self._lost)

    async def end(self) -> None:
        """Stop renewing and write the last events. The commit of the end checks and deletes the claim."""
        self._ended = True
        await self._stop(self._outbox.take)

    async def _stop(self, take: Callable[[], list[EventRow]]) -> None:
        self._on_lost = lambda error: None
        self._renewal.cancel()
        await asyncio.wait([self._renewal])
        events = take()
        if self._lost is None and (events or self._unwritten):
            try:
                await self._write([], events)
            except KernError as error:
                log.warning("run %s: its last events could not be written: %s", self._claim.run_id, error)

    async def close(self) -> None:
        """Stop renewing and release the claim. For a run that has ended, nothing is left to release."""
        if not self._ended:
            await self._stop(lambda: self._outbox.take(between=True))
        if self._lost is None:
            with suppress(TimeoutError):
                await uninterrupted(self._release, RELEASE_SECONDS)

    async def _release(self) -> None:
        try:
            await self._db.release_claim(self._claim)
        except Exception as error:  # noqa: BLE001 - of a database of the application's; the claim expires
            log.warning("run %s: the claim could not be released: %s", self._claim.run_id, error)

    async def _renew(self) -> None:
        """Renew the claim until it is lost. No other error ends this: another process would take the run."""
        task = asyncio.current_task()
        pause = min(FLUSH_SECONDS, self._seconds / 3)
        while self._lost is None:
            await asyncio.sleep(pause)
            left = self._held_until - time.monotonic()
            try:
                if not await self._must_write() and left > self._seconds * 2 / 3:
                    continue
                await self._write([], self._outbox.take(between=True))
            except SessionError:
                return
            except (Exception, asyncio.CancelledError) as error:
                if task is None or task.cancelling():
                    raise
                log.warning("run %s: the claim was not renewed: %s", self._claim.run_id, error_text(error))

    async def _must_write(self) -> bool:
        """Write events although no step is done.

        Raises:
            StoreError: The database failed.
        """
        if self._deltas is None or not self._outbox.waiting:
            return self._outbox.waiting
        if self._stream is None:
            running = await self._db.running_runs(run_id=self._claim.run_id)
            if not running:  # its first step is not written yet
                return False
            self._stream = stream_of(running[0])
        delta = self._outbox.live()
        if delta is not None:
            self._deltas.publish(self._stream, delta)
        return self._outbox.stuck

    async def _lose(self) -> KernError:
        if self._lost is None:
            self._lost = await self.why_lost()
            self._on_lost(self._lost)
        return self._lost

    async def why_lost(self) -> KernError:
        """The error that says why the claim is lost: another process has it, or the session was deleted."""
        if self._is_told and self._session_id is not None:
            try:  # only a deletion also deletes the events
                if not await self._db.load_events(self._claim.run_id, limit=1):
                    return SessionDeletedError(self._session_id)
            except Exception as error:  # noqa: BLE001 - it is lost in any case
                log.warning("run %s was lost, and the reason is unknown: %s", self._claim.run_id, error)
        return RunLostError(self._claim.run_id)
