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

from kern.db.base import Db, RunRow
from kern.db.journals import EventRow, JournalDb
from kern.durable.deltas import DeltaStream, stream_of
from kern.durable.pieces import Piece, pieces_of
from kern.errors import SessionOwnershipError, UsageError
from kern.run.events import (
    Event,
    EventSource,
    RunCancelledEvent,
    RunCompletedEvent,
    RunErrorEvent,
    RunPausedEvent,
)
from kern.run.output import AnyRunOutput, RunStatus, TeamRunOutput
from kern.runtime.stored_runs import load_output

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25
"""Seconds between two looks at the database, while nothing comes."""

QUIET_SECONDS: Final = 0.15
"""After so long without a piece the database is looked at; a run tells pieces each tenth of a second."""

ROWS: Final = 100
"""How many rows of events are read at once."""

WINDOW_BYTES: Final = 4_000_000
"""How much of what was told is kept for those who are behind; they read what is older by themselves."""

Key = tuple[asyncio.AbstractEventLoop, Hashable, int, str]
_tails: Final[WeakValueDictionary[Key, Tail]] = WeakValueDictionary()


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
        deltas: Where what is told between steps is; None: in the database.
        begin: The number from which on it is read.
    """

    def __init__(
        self, db: Db, journals: JournalDb, run_id: str, deltas: DeltaStream | None, begin: int
    ) -> None:
        self._db = db
        self._journals = journals
        self._run_id = run_id
        self._deltas = deltas
        self._lock = asyncio.Lock()
        self._owner: tuple[str, str | None] | None = None
        self._window: deque[_Told] = deque()
        self._floor = self._last = begin
        self._size = 0
        self._stream: str | None = None
        """Where what is told between steps is read."""
        self._missing = False
        """The stream of deltas goes on after something that only the database has."""
        self._pause = FIRST_PAUSE
        self._look_at = 0.0
        self._ends = False
        self._over = False
        self._terminal: Event | None = None

    @classmethod
    def of(cls, db: Db, run_id: str, deltas: DeltaStream | None, after: int) -> Tail:
        """The tail of the run on this event loop: the one that others follow it by, or a new one.

        Raises:
            UsageError: The database keeps no events.
        """
        key = (asyncio.get_running_loop(), db.identity, id(deltas), run_id)
        tail = _tails.get(key)
        if tail is None or tail._over:
            if not isinstance(db, JournalDb):
                raise UsageError(f"{db!r} does not store events, so its runs cannot be followed")
            tail = _tails[key] = cls(db, db, run_id, deltas, after)
        return tail

    async def check_owner(self, user_id: str | None) -> None:
        """See whose run it is, which stays so as long as it is followed.

        Raises:
            UsageError: There is no such run.
            SessionOwnershipError: It is another user's.
        """
        async with self._lock:
            if self._owner is None:
                self._owner = await self._asked_owner()
        session_id, owner = self._owner
        if user_id is not None and owner != user_id:
            raise SessionOwnershipError(session_id)

    async def _asked_owner(self) -> tuple[str, str | None]:
        running = await self._journals.running_runs(run_id=self._run_id)
        if running:
            return running[0].about.session_id, running[0].about.user_id
        row = await self._db.load_run(self._run_id)
        if row is None:
            raise self._unknown()
        session = await self._db.load_session(row.session_id)
        return row.session_id, None if session is None else session.user_id

    async def after(self, heard: int) -> tuple[list[Event], int]:
        """What was told after that number, once there is something, and the number up to which that goes.

        No events with a number that is not above `heard`: the run has ended, or waits for a person.

        Raises:
            UsageError: There is no such run any more.
            StoreError: The database cannot be read.
        """
        while True:
            if heard < self._floor:
                rows = await self._journals.load_events(self._run_id, after=heard, limit=ROWS)
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
        # Looked at first: what a run has told is there before its end is.
        running = await self._journals.running_runs(run_id=self._run_id)
        self._stream = stream_of(running[0]) if running and self._deltas is not None else None
        rows = await self._journals.load_events(self._run_id, after=self._last, limit=ROWS)
        for row in rows:
            self._add(_told(self._run_id, row))
        if rows:
            self._pause, self._missing, self._ends = FIRST_PAUSE, False, False
        elif not running and await self._has_ended():
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
            self._add(_Told(delta.last_seq, pieces_of(self._run_id, delta.data), len(delta.data)))
            heard = True
        if heard:  # all up to there is known: the database has nothing that is not
            self._look_at, self._pause = time.monotonic() + QUIET_SECONDS, FIRST_PAUSE
        return heard

    async def _has_ended(self) -> bool:
        stored = await self._db.load_run(self._run_id)
        if stored is None:
            if self._ends:
                raise self._unknown()
            self._ends = True  # looked at between its claim and its first step
            return False
        last = await last_event(self._db, stored)
        last.seq, last.created_at = await self._number_of_the_end(stored)
        self._terminal, self._over = last, True
        return True

    async def _number_of_the_end(self, stored: RunRow) -> tuple[int, float]:
        """The number after the last one that is kept."""
        rows = await self._journals.load_events(self._run_id, after=max(0, self._last - 2))
        before = [piece for row in rows for piece in pieces_of(self._run_id, row.data)]
        if not before:
            return 1, stored.created_at
        return before[-1].event.seq + 1, before[-1].event.created_at

    def _unknown(self) -> UsageError:
        return UsageError(
            f"there is no run {self._run_id!r} to follow: it is neither stored nor running with a journal in "
            "this database"
        )


def _told(run_id: str, row: EventRow) -> _Told:
    return _Told(row.last_seq, pieces_of(run_id, row.data), len(row.data))


def _events(told: Sequence[_Told] | deque[_Told], heard: int) -> list[Event]:
    """What they tell whoever has heard all up to that number."""
    return [
        event
        for some in told
        if some.last_seq > heard
        for piece in some.pieces
        if (event := piece.after(heard)) is not None
    ]


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
