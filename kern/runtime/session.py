"""Sessions in use: one live state per session and process, joined by every run and accessor that comes while
it is in use, loaded by the first of them and let go by the last.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar, Token
from typing import Any

from pydantic_core import from_json

from kern._sync.fork import after_fork_in_child
from kern.db.base import Commit, Committed, Db, RunRow, SessionRow
from kern.errors import InvalidStateError, SessionOwnershipError, StoreError, UsageError
from kern.runtime.debug import log
from kern.runtime.reconcile import Reconciler, RowsWithConflicts, change_of
from kern.runtime.stream import EventBuffer
from kern.state.call import CallState
from kern.state.codec import decode, encode
from kern.state.large import off_loop
from kern.state.lock import FairLock
from kern.state.merge import Conflict
from kern.state.scope import Change, LiveState, Taken, Writer
from kern.state.shape import Shape
from kern.state.spec import StateSpec
from kern.state.stepping import OffTurn
from kern.state.threads import threads

ANY_USER: Any = object()
"""For accessors that are trusted code: no user is checked."""

_LOOP_SECONDS = 0.2
"""How often one who waits for another loop's run looks whether that loop runs."""

Key = Hashable

_inside: ContextVar[frozenset[Ending]] = ContextVar("kern_inside", default=frozenset())
"""The ends of the runs that the running code belongs to."""


class Ending:
    """The end of a run that is still to come."""

    def __init__(self, buffer: EventBuffer | None) -> None:
        self._buffer = buffer
        self.token: Token[frozenset[Ending]] | None = None
        self.exclusive = False
        """The run has the session to itself."""
        self.done: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._loop = asyncio.get_running_loop()

    @property
    def abandoned(self) -> bool:
        """The consumer of the run's events has walked away."""
        return self._buffer is not None and self._buffer.abandoned

    async def passed(self) -> None:
        """Wait until the run is committed, or its event loop stands still, on which it would end."""
        done = asyncio.wrap_future(self.done)
        while not self.done.done() and self._loop.is_running():
            await asyncio.wait([done], timeout=_LOOP_SECONDS)


class LiveSession:
    """A session that is in use in this process.

    Args:
        db: Where it is kept.
        key: What identifies it in this process.
    """

    row: SessionRow
    """The session as this process last saw it stored; with version 0, what it would be stored as."""
    state: LiveState

    def __init__(self, db: Db, session_id: str, key: Key) -> None:
        self.db = db
        self.session_id = session_id
        self.key = key
        self.users = 0
        """How many runs and accessors have it in use, or wait for it."""
        self.version = 0
        """The version of the live state, in the count of the application's migrations."""
        self.summary: str | None = None
        """A new summary, to be written with the next commit."""
        self._spec = StateSpec()
        self._settled: set[tuple[Shape, int]] = set()
        self._mutex = threading.Lock()
        self._loaders = 0
        self._loaded = False
        self._load_lock = FairLock()
        self._commit_lock = FairLock()
        self._doubtful: Taken | None = None
        self._endings: list[Ending] = []
        self.turn = FairLock()
        """For the runs of this process that want the session to themselves."""

    @property
    def has_turn(self) -> bool:
        """The running code belongs to a run that has the session to itself."""
        return any(ending.exclusive for ending in self._endings if ending in _inside.get())

    @property
    def busy(self) -> bool:
        """A run of the session is going on in this process."""
        return bool(self._endings)

    @asynccontextmanager
    async def loaded(
        self, spec: StateSpec, user_id: str | None, owner: str | None = None
    ) -> AsyncIterator[None]:
        """Inside the block, what the session holds is here: the first one reads it from the database.

        Args:
            spec: What is declared of the state; a new session starts from its default.
            user_id: Who asks; must be the owner, or `ANY_USER`.
            owner: Who owns a new session that `ANY_USER` asks for.
        """
        with self._mutex:
            self._loaders += 1
        try:
            await self._load_lock.acquire()
            try:
                if not self._loaded:
                    await self._load(spec, owner if user_id is ANY_USER else user_id)
                self.state.spec = self._spec = self._spec.joined(spec)
            finally:
                self._load_lock.release()
            if user_id is not ANY_USER and user_id != self.row.user_id:
                raise SessionOwnershipError(self.session_id)
            yield
        finally:
            with self._mutex:
                self._loaders -= 1
                if self._loaders == 0:
                    self._loaded = False

    async def _load(self, spec: StateSpec, owner: str | None) -> None:
        row = await self.db.load_session(self.session_id)
        if row is None:
            state = LiveState(encode(dict(spec.default()))[0])
            row = SessionRow(
                session_id=self.session_id, user_id=owner, state=state.text, state_version=spec.version
            )
        else:
            text, revision = row.state, row.revision
            state = await off_loop(len(text), lambda: LiveState(text, revision=revision))
        self.row, self.state, self.version, self._spec = row, state, row.state_version, spec
        self._settled.clear()
        self._doubtful = None
        self._loaded = True

    async def settle(self, spec: StateSpec) -> None:
        """Bring the state up to date with `spec`, for a run that is about to use it.

        Raises:
            InvalidStateError: It cannot be; nothing is changed.
        """
        key = (spec.shape, spec.version)
        if spec.takes_anything or key in self._settled:
            return
        call = CallState(self.state, Writer(tool="state_migrations"), session=self.key)
        await call.wait_in_task()
        try:
            for step in spec.upgrades(decode(self.state.text), self.version):
                self.state.upgrade(step)
                self.version = step.version
            self._settled.add(key)
        finally:
            self.state.lock.release()

    def check_settled(self, spec: StateSpec) -> None:
        """See that a run inside of a call that has the state need not bring it up to date.

        Raises:
            UsageError: It would have to; the call may still be undone, and the migration with it.
        """
        if not spec.takes_anything and spec.version != self.version:
            raise UsageError(
                f"the state of session {self.session_id!r} has version {self.version}, and this run wants "
                f"{spec.version}: run it before the call that it is in touches session_state"
            )

    def expect(self, buffer: EventBuffer | None) -> Ending:
        """A run begins, whose consumer may walk away; `ended` has to follow."""
        ending = Ending(buffer)
        self._endings.append(ending)
        ending.token = _inside.set(_inside.get() | {ending})
        return ending

    def ended(self, ending: Ending) -> None:
        """The run has ended and is committed, or never will be."""
        if ending.token is not None:
            _inside.reset(ending.token)
        self._endings.remove(ending)
        ending.done.set_result(None)

    async def settled(self, own: Ending | None = None) -> None:
        """Wait for the runs that were walked away from: they end, and are committed, in the background.

        Not inside a run of the session, such as in a tool that cleans up: that would be a wait for itself.

        Args:
            own: The end of the run that asks.
        """
        others = [ending for ending in self._endings if ending is not own]
        if not _inside.get().isdisjoint(others):
            return
        for ending in others:
            if ending.abandoned:
                await ending.passed()

    async def commit(self, rows: RowsWithConflicts) -> Sequence[Conflict]:
        """Write the live state as it is now, and the runs' rows, in one transaction.

        Returns where another process had changed the same values; this one's were kept.

        Raises:
            StoreError: It is not known to be written.
            InvalidStateError: It cannot be merged with what another process has written; nothing is.
        """
        await self._commit_lock.acquire()
        try:
            if self._doubtful is not None:
                await self._clear_doubt(self._doubtful)
            taken, known = self.state.taken(), list(self.state.conflicts)
            reconciler = Reconciler(self.row, taken, self.version, self._spec, known, rows)
            runs = rows(known)
            committed = await self._write(taken, reconciler, runs)
            if committed.repeated:
                await self._check_repeated(runs)
                return []
            self.row, self.version = committed.row, committed.row.state_version
            if self.summary == committed.row.summary:
                self.summary = None
            await self._note_stored(taken, reconciler.text)
            del self.state.conflicts[: len(known)]
        finally:
            self._commit_lock.release()
        for conflict in reconciler.conflicts:
            log.warning("session %s: conflict at %s, ours kept", self.session_id, conflict.path or "the root")
        return reconciler.conflicts

    async def log(self, after: int = 0) -> tuple[Taken, list[Change]]:
        """The live state, and what led to it: the changes above revision `after`, oldest first."""
        await self._commit_lock.acquire()
        try:
            row, taken = self.row, self.state.taken()
        finally:
            self._commit_lock.release()
        rows = await self.db.load_changes(self.session_id, after=after)
        # What lies above the row is another process's, or ours by now: the live state counts on from the row.
        stored = await threads.run(lambda: [change_of(r) for r in rows if r.revision <= row.revision])
        return taken, stored + [change for change in taken.changes if change.revision > after]

    async def _write(self, taken: Taken, reconciler: Reconciler, runs: Sequence[RunRow]) -> Committed:
        commit = Commit(
            session_id=self.session_id,
            user_id=self.row.user_id,
            resolve=reconciler,
            runs=runs,
            summary=self.summary,
            now=time.time(),
        )
        try:
            return await self.db.commit(commit)
        except (SessionOwnershipError, InvalidStateError):
            raise
        except BaseException:  # an answer that got lost may have been a yes
            self._doubtful = taken
            raise

    async def _clear_doubt(self, taken: Taken) -> None:
        """Whether a commit that has failed was written all the same: its changes stand in the log if so."""
        row = await self.db.load_session(self.session_id)
        own = {_mark(change) for change in taken.changes if not change.automatic}
        if row is not None and own:
            log_rows = await self.db.load_changes(self.session_id, after=self.row.revision)
            if any((r.created_at, r.run_id, r.tool, r.tool_call_id) in own for r in log_rows):
                self.row, self.version = row, row.state_version
                await self._note_stored(taken, row.state)
        self._doubtful = None

    async def _note_stored(self, taken: Taken, text: bytes) -> None:
        size = 0 if text == taken.text else len(text)
        await off_loop(size, lambda: self.state.stored(taken, text, self.row.revision))

    async def _check_repeated(self, runs: Sequence[RunRow]) -> None:
        """The database had the run already: was it this very end of it?"""
        stored = await self.db.load_run(runs[0].run_id)
        if stored is None or _without_conflicts(stored) != _without_conflicts(runs[0]):
            raise StoreError(
                f"run id {runs[0].run_id!r} is stored already, with another end; this run is not saved"
            )


def _mark(change: Change) -> tuple[float, str | None, str | None, str | None]:
    writer = change.writer
    return change.created_at, writer.run_id, writer.tool, writer.tool_call_id


def _without_conflicts(row: RunRow) -> Any:
    data = from_json(row.data)
    data.pop("state_conflicts", None)
    return data


class LiveSessions:
    """The sessions in use in this process."""

    def __init__(self) -> None:
        self._reset()
        after_fork_in_child(self._reset)

    def _reset(self) -> None:
        self._mutex = threading.Lock()
        self._sessions: dict[Key, LiveSession] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def enter(self, db: Db, session_id: str) -> LiveSession:
        """Join the live session, or make one; `leave` has to follow."""
        key = (db.identity, session_id)
        with self._mutex:
            session = self._sessions.get(key)
            if session is None:
                session = self._sessions[key] = LiveSession(db, session_id, key)
            session.users += 1
            return session

    def leave(self, session: LiveSession) -> None:
        """The reverse of `enter`; the last one out lets the live session go."""
        with self._mutex:
            session.users -= 1
            if session.users == 0 and self._sessions.get(session.key) is session:  # it is not after a fork
                del self._sessions[session.key]

    @asynccontextmanager
    async def use(
        self,
        db: Db,
        session_id: str,
        *,
        spec: StateSpec,
        user_id: str | None,
        owner: str | None = None,
    ) -> AsyncIterator[LiveSession]:
        """Have the session in use, loaded, after all ends of runs that are still being written."""
        session = self.enter(db, session_id)
        try:
            async with OffTurn():
                await session.settled()
                async with session.loaded(spec, user_id, owner):
                    yield session
        finally:
            self.leave(session)


live_sessions = LiveSessions()
