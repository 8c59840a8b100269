"""What a run tells, read once for all who follow it on one event loop.

The database has the events of each step, in their order. Where a stream of deltas is given, what comes
between steps is read from that, and the database is asked for what is missing there.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from kern._log import named
from kern.db.base import Db, RunRow
from kern.db.journals import EventRow, JournalDb
from kern.durable.deltas import Delta, DeltaStream, stream_of
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
"""Seconds between two looks at the database, while nothing comes."""

QUIET_SECONDS: Final = 0.15
"""After so long without a piece the database is looked at; a run tells pieces each tenth of a second."""

ROWS: Final = 100
"""How many rows of events are read at once."""

WINDOW_BYTES: Final = 4_000_000
"""How much of what was told is kept for those who are behind; they read what is older by themselves."""

NUMBER_OF_AN_OLD_END: Final = 2**53 - 1
"""The number of the end of a run whose events are not kept any more: above all that anybody has heard of it,
and one that JavaScript can count to."""

_tails: Final[WeakValueDictionary[Hashable, Tail]] = WeakValueDictionary()


@dataclass(slots=True, frozen=True)
class _Told:
    """Some events of the run, one after another, up to a number."""

    last_seq: int
    pieces: Sequence[Piece]
    size: int


class Tail:
    """What one run tells: the newest of it, and all that comes.

    Whoever waits for more looks for all, under a lock: there is no task that would have to end.

    Args:
        db: Where the run is.
        run_id: The run.
        identity: Which run that is.
        deltas: Where what is told between steps is; None: in the database.
        begin: The number from which on it is read.
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
        self._window: deque[_Told] = deque()
        self._floor = self._last = begin
        self._size = 0
        self._stream: str | None = None
        """Where what is told between steps is read."""
        self._warned = False
        self._missing = False
        """The stream of deltas goes on after something that only the database has."""
        self._pause = FIRST_PAUSE
        self._look_at = 0.0
        self._ends = False
        self._over = False
        self._terminal: Event | None = None

    @classmethod
    async def of(
        cls, db: Db, run_id: str, deltas: DeltaStream | None, after: int, user_id: str | None
    ) -> Tail:
        """The tail of the run on this event loop: the one that others follow it by, or a new one.

        Args:
            user_id: Who asks; None is not checked.

        Raises:
            UsageError: There is no such run, or the database keeps no events.
            SessionOwnershipError: It is another user's.
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

    async def after(self, heard: int) -> tuple[list[Event], int]:
        """What was told after that number, once there is something, and the number up to which that goes.

        No events with a number that is not above `heard`: the run has ended, or waits for a person.

        Raises:
            SessionDeletedError: The session was deleted; another run may have the id now.
            UsageError: There is no such run any more.
            StoreError: The database cannot be read.
        """
        while True:
            if heard < self._floor:
                rows = await self._journals.load_events(self._run_id, after=heard, limit=ROWS)
                await self._run.running(self._db)
                if rows:
                    return _events([_told(self._run_id, row) for row in rows], heard), rows[-1].last_seq
                await self._begin_at(heard)
                continue
            if heard < self._last:
                return _events(self._window, heard), self._last
            if self._over:
                last = self._terminal
                return ([last], last.seq) if last is not None and last.seq > heard else ([], heard)
            async with self._lock:
                if heard >= self._last and not self._over:
                    await self._look()

    async def _begin_at(self, number: int) -> None:
        """Read on from there, if the database has nothing more: what is missing was told live alone."""
        async with self._lock:
            if number < self._floor and not await self._journals.load_events(
                self._run_id, after=number, limit=1
            ):
                self._window.clear()
                self._floor = self._last = number
                self._size, self._missing, self._ends, self._over = 0, False, False, False

    def _add(self, told: _Told) -> None:
        self._window.append(told)
        self._last = told.last_seq
        self._size += told.size
        while self._size > WINDOW_BYTES and len(self._window) > 1:
            oldest = self._window.popleft()
            self._floor, self._size = oldest.last_seq, self._size - oldest.size

    async def _look(self) -> None:
        """Wait for what comes next, for the time between two looks at the database, and look there."""
        wait = self._look_at - time.monotonic()
        if wait > 0 and await self._hear(wait):
            return
        rows = await self._journals.load_events(self._run_id, after=self._last, limit=ROWS)
        # Looked at afterwards: these events are of this run, and of no later one with its id.
        running, stored = await self._run.running(self._db)
        if running is None and not rows:  # what it has told before its end
            rows = await self._journals.load_events(self._run_id, after=self._last, limit=ROWS)
            if rows:
                running, stored = await self._run.running(self._db)
        self._stream = stream_of(running) if running is not None and self._deltas is not None else None
        for row in rows:
            self._add(_told(self._run_id, row))
        if rows:
            self._pause, self._missing, self._ends = FIRST_PAUSE, False, False
        elif running is None and await self._has_ended(stored):
            return
        self._look_at = 0.0 if len(rows) == ROWS else time.monotonic() + self._pause
        self._pause = min(self._pause * 1.5, LONGEST_PAUSE)

    async def _hear(self, seconds: float) -> bool:
        """Wait for what is told live; False if it is time to look at the database."""
        if self._deltas is None or self._stream is None or self._missing:
            await asyncio.sleep(seconds)
            return False
        heard = False
        for delta in await self._deltas.read(self._stream, self._last, seconds):
            if delta.last_seq <= self._last:
                continue
            if delta.after > self._last:
                self._missing = True
                break
            pieces = pieces_in(delta, self._run.session_id)
            if pieces is None:  # not Kern's, or damaged, or a newer Kern's: the database has what it tells
                self._missing = True
                self._warn_of(delta)
                break
            self._add(_Told(delta.last_seq, pieces, len(delta.data)))
            heard = True
        if heard:  # all up to there is known: the database has nothing that is not
            self._look_at, self._pause = time.monotonic() + QUIET_SECONDS, FIRST_PAUSE
        return heard

    def _warn_of(self, delta: Delta) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "run %s: an entry of its stream of deltas cannot be read (number %d), so that those who "
                "follow it hear whole turns from the database meanwhile",
                self._run_id,
                delta.last_seq,
            )

    async def _has_ended(self, stored: RunRow | None) -> bool:
        if stored is None:
            if self._ends:
                raise await self._run.gone()
            self._ends = True  # looked at between its claim and its first step
            return False
        last = await last_event(self._db, stored)
        last.seq, last.created_at = await self._number_of_the_end(stored)
        self._terminal, self._over = last, True
        return True

    async def _number_of_the_end(self, stored: RunRow) -> tuple[int, float]:
        """The number of the event that is made of the stored run, and when that was.

        The end of a run has the second number after the last one that is kept, and its pause the first: who
        has heard that it waits for a person hears its end as well.
        """
        ahead = 2 if stored.ended else 1
        rows = await self._journals.load_events(self._run_id, after=max(0, self._last - ahead - 1))
        before = [piece for row in rows for piece in pieces_of(self._run_id, row.data)]
        if before:
            return before[-1].event.seq + ahead, before[-1].event.created_at
        _, still = await self._run.running(self._db)
        if still is None:  # deleted since it was found, its events too
            raise await self._run.gone()
        if self._last > ahead and not await self._journals.load_events(self._run_id, limit=1):
            return NUMBER_OF_AN_OLD_END - 2 + ahead, stored.created_at
        return ahead, stored.created_at


def _told(run_id: str, row: EventRow) -> _Told:
    return _Told(row.last_seq, pieces_of(run_id, row.data), len(row.data))


def _events(told: Sequence[_Told] | deque[_Told], heard: int) -> list[Event]:
    """What they tell whoever has heard all up to that number."""
    events: list[Event] = []
    for some in told:
        if some.last_seq <= heard:
            continue
        events += [event for piece in some.pieces if (event := piece.after(heard)) is not None]
        heard = some.last_seq  # a row of the database holds what was told live before it, too
    return events


async def last_event(db: Db, row: RunRow) -> Event:
    """The last event of a run that has ended, or that waits for a person."""
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
