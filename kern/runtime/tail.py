"""The events of a run, read once for all its followers on one event loop.

The database has the events of each step, in order. If there is a stream of deltas, the events between two
steps are read from it, and the database is read for those that are missing there.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from kern._error_text import error_text
from kern._log import named
from kern.db.base import Db, RunRow
from kern.db.journals import EventRow, JournalDb
from kern.durable.deltas import Delta, DeltaStream, check_delta, stream_of
from kern.durable.pieces import Piece, pieces_in, pieces_of
from kern.errors import UsageError
from kern.run.events import (
    Event,
    EventSource,
    RunCancelledEvent,
    RunCompletedEvent,
    RunErrorEvent,
    RunPausedEvent,
)
from kern.run.output import AnyRunOutput, RunStatus, TeamRunOutput
from kern.runtime.followed import Followed, Identity, identity_of
from kern.runtime.stored_runs import load_output

log: Final = named("kern")

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25
"""Seconds between two reads of the database while no events come."""

QUIET_SECONDS: Final = 0.15
"""After this time without a delta the database is read; a run sends deltas every tenth of a second."""

ROWS: Final = 100
"""How many rows of events are read at a time."""

WINDOW_BYTES: Final = 4_000_000
"""How many bytes of events are kept for slow followers; these read older events from the database."""

NUMBER_OF_AN_OLD_END: Final = 2**53 - 1
"""The `seq` of the last event of a run whose events are not stored any more: above all earlier ones, and
exact in JavaScript."""

_tails: Final[WeakValueDictionary[Hashable, Tail]] = WeakValueDictionary()


@dataclass(slots=True, frozen=True)
class _Batch:
    """Consecutive events of the run, up to the one with `seq` `last_seq`."""

    last_seq: int
    pieces: Sequence[Piece]
    size: int


class Tail:
    """The newest events of one run, and those that follow, shared by its followers.

    The follower that waits first reads for all of them, under a lock: no background task is needed.

    Args:
        db: The database of the run.
        run_id: The id of the run.
        identity: Distinguishes the run from others with the same id.
        deltas: The stream of the events between steps; None: they are in the database.
        begin: Read the events after this `seq`.
    """

    def __init__(
        self,
        db: Db,
        journals: JournalDb,
        run_id: str,
        identity: Identity,
        deltas: DeltaStream | None,
        begin: int,
    ) -> None:
        self._db = db
        self._journals = journals
        self._run_id = run_id
        self._deltas = deltas
        self._lock = asyncio.Lock()
        self._run = Followed(journals, run_id, identity)
        self._window: deque[_Batch] = deque()
        self._floor = self._last = begin
        self._size = 0
        self._stream: str | None = None
        """The name of the stream of deltas, while the run is in progress."""
        self._warned = False
        self._missing = False
        """Whether the next deltas follow events that only the database has."""
        self._pause = FIRST_PAUSE
        self._poll_at = 0.0
        self._ends = False
        self._over = False
        self._terminal: Event | None = None

    @classmethod
    async def of(
        cls, db: Db, run_id: str, deltas: DeltaStream | None, after: int, user_id: str | None
    ) -> Tail:
        """Return the tail of the run on this event loop: the one that other followers use, or a new one.

        Args:
            user_id: The user who asks; None: no check.

        Raises:
            UsageError: There is no such run, or the database does not store events.
            SessionOwnershipError: The run belongs to another user.
        """
        if not isinstance(db, JournalDb):
            raise UsageError(f"{db!r} does not store events, so its runs cannot be followed")
        identity = await identity_of(db, db, run_id)
        identity.check_owner(user_id)
        key = (asyncio.get_running_loop(), db.identity, id(deltas), run_id, identity)
        tail = _tails.get(key)
        if tail is None or tail._over:
            tail = _tails[key] = cls(db, db, run_id, identity, deltas, after)
        return tail

    async def after(self, seen: int) -> tuple[list[Event], int]:
        """Wait for events after the `seq` `seen`.

        Returns:
            The events, and the `seq` up to which they go. If that is not above `seen`, the run has ended or
            is paused.

        Raises:
            SessionDeletedError: The session was deleted; another run may have the id now.
            UsageError: There is no such run any more.
            StoreError: The database cannot be read.
        """
        while True:
            if seen < self._floor:
                rows = await self._journals.load_events(self._run_id, after=seen, limit=ROWS)
                await self._run.running(self._db)
                if rows:
                    return _events([_batch_of(self._run_id, row) for row in rows], seen), rows[-1].last_seq
                await self._begin_at(seen)
                continue
            if seen < self._last:
                return _events(self._window, seen), self._last
            if self._over:
                last = self._terminal
                return ([last], last.seq) if last is not None and last.seq > seen else ([], seen)
            async with self._lock:
                if seen >= self._last and not self._over:
                    await self._poll()

    async def _begin_at(self, number: int) -> None:
        """Continue from a lower `seq`, if the database has no events after it: those were only sent live."""
        async with self._lock:
            if number < self._floor and not await self._journals.load_events(
                self._run_id, after=number, limit=1
            ):
                self._window.clear()
                self._floor = self._last = number
                self._size, self._missing, self._ends, self._over = 0, False, False, False

    def _add(self, batch: _Batch) -> None:
        self._window.append(batch)
        self._last = batch.last_seq
        self._size += batch.size
        while self._size > WINDOW_BYTES and len(self._window) > 1:
            oldest = self._window.popleft()
            self._floor, self._size = oldest.last_seq, self._size - oldest.size

    async def _poll(self) -> None:
        """Wait for deltas until the next read of the database is due, and then read it."""
        wait = self._poll_at - time.monotonic()
        if wait > 0 and await self._receive(wait):
            return
        rows = await self._journals.load_events(self._run_id, after=self._last, limit=ROWS)
        # Read this afterwards: it confirms that the events are of this run, not of a later one with its id.
        running, stored = await self._run.running(self._db)
        if running is None and not rows:  # the run may have stored events since
            rows = await self._journals.load_events(self._run_id, after=self._last, limit=ROWS)
            if rows:
                running, stored = await self._run.running(self._db)
        self._stream = stream_of(running) if running is not None and self._deltas is not None else None
        for row in rows:
            self._add(_batch_of(self._run_id, row))
        if rows:
            self._pause, self._missing, self._ends = FIRST_PAUSE, False, False
        elif running is None and await self._has_ended(stored):
            return
        self._poll_at = 0.0 if len(rows) == ROWS else time.monotonic() + self._pause
        self._pause = min(self._pause * 1.5, LONGEST_PAUSE)

    async def _receive(self, seconds: float) -> bool:
        """Wait for deltas. Return False if it is time to read the database."""
        if self._deltas is None or self._stream is None or self._missing:
            await asyncio.sleep(seconds)
            return False
        received = False
        for delta in await self._read(self._deltas, self._stream, seconds):
            if delta.last_seq <= self._last:
                continue
            if delta.after > self._last:
                self._missing = True
                break
            pieces = pieces_in(delta, self._run.session_id)
            if pieces is None:  # foreign, damaged, or of a newer version of Kern: the database has its events
                self._missing = True
                self._warn("an entry of its stream of deltas cannot be read", f"number {delta.last_seq}")
                break
            self._add(_Batch(delta.last_seq, pieces, len(delta.data)))
            received = True
        if received:  # everything up to there is known, so the database has nothing new
            self._poll_at, self._pause = time.monotonic() + QUIET_SECONDS, FIRST_PAUSE
        elif not self._missing:  # also if it has answered at once: the database is not asked all the time
            await asyncio.sleep(self._poll_at - time.monotonic())
        return received

    async def _read(self, deltas: DeltaStream, stream: str, seconds: float) -> list[Delta]:
        """The next deltas; none if the stream fails, which may be the application's own."""
        try:
            found = list(await deltas.read(stream, self._last, seconds))
            for delta in found:
                check_delta(delta)
        except Exception as error:  # noqa: BLE001 - the database has the events
            self._warn(f"{deltas!r} failed to read its events", error_text(error))
            return []
        return found

    def _warn(self, what: str, why: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "run %s: %s (%s); its followers get whole turns from the database, not deltas",
                self._run_id,
                what,
                why,
            )

    async def _has_ended(self, stored: RunRow | None) -> bool:
        if stored is None:
            if self._ends:
                raise await self._run.missing_error(self._db)
            self._ends = True  # it may have been read between its claim and its first step
            return False
        last = await last_event(self._db, stored)
        last.seq, last.created_at = await self._seq_of_end(stored)
        self._terminal, self._over = last, True
        return True

    async def _seq_of_end(self, stored: RunRow) -> tuple[int, float]:
        """The number and the time of the event that is made from the stored run.

        The end of a run has the second number after the last one that is stored, and its pause the first, so
        that a follower that got the pause gets the end as well.
        """
        ahead = 2 if stored.ended else 1
        rows = await self._journals.load_events(self._run_id, after=max(0, self._last - ahead - 1))
        before = [piece for row in rows for piece in pieces_of(self._run_id, row.data)]
        if before:
            return before[-1].event.seq + ahead, before[-1].event.created_at
        _, still = await self._run.running(self._db)
        if still is None:  # deleted since it was found, its events too
            raise await self._run.missing_error(self._db)
        if self._last > ahead and not await self._journals.load_events(self._run_id, limit=1):
            return NUMBER_OF_AN_OLD_END - 2 + ahead, stored.created_at
        return ahead, stored.created_at


def _batch_of(run_id: str, row: EventRow) -> _Batch:
    return _Batch(row.last_seq, pieces_of(run_id, row.data), len(row.data))


def _events(batches: Sequence[_Batch] | deque[_Batch], seen: int) -> list[Event]:
    """The events that a follower lacks that has everything up to the `seq` `seen`."""
    events: list[Event] = []
    for batch in batches:
        if batch.last_seq <= seen:
            continue
        events += [event for piece in batch.pieces if (event := piece.after(seen)) is not None]
        seen = batch.last_seq  # a row of the database also has the events that were sent live before it
    return events


async def last_event(db: Db, row: RunRow) -> Event:
    """Make the last event of a run that has ended or is paused, from its stored output."""
    output = await load_output(db, row)
    source = _source(output, row)
    if output.status is RunStatus.completed:
        return RunCompletedEvent(
            source,
            output.content,
            output.content_type,
            output.metrics.to_dict(),
            output.session_state,
            output.metadata or None,
        )
    if output.status is RunStatus.paused:
        return RunPausedEvent(source, output.requirements)
    if output.status is RunStatus.cancelled:
        return RunCancelledEvent(source)
    return RunErrorEvent(source, output.error or "", output.error_type or "KernError")


def _source(output: AnyRunOutput, row: RunRow) -> EventSource:
    if isinstance(output, TeamRunOutput):
        name = output.team_name or output.team_id or row.runner_id
        return EventSource(
            row.run_id,
            row.session_id,
            team_id=output.team_id,
            team_name=output.team_name,
            is_team=True,
            path=(name,),
        )
    name = output.agent_name or output.agent_id or row.runner_id
    return EventSource(
        row.run_id, row.session_id, agent_id=output.agent_id, agent_name=output.agent_name, path=(name,)
    )
