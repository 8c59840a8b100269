"""Sessions in use: one live state per session and process, shared by all runs and accessors of the session.
The first of them loads it, the last one releases it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final

from kern._sync.fork import after_fork_in_child
from kern._sync.lock import End, FairLock
from kern._sync.offload import LARGE, off_loop
from kern._sync.threads import own_threads
from kern.db.base import Db, RunRow, SessionRow
from kern.db.journals import JournalDb, RunAbout
from kern.errors import InvalidStateError, SessionOwnershipError, StoreBusyError, StoreError, UsageError
from kern.runtime.busy_watch import BusyDatabase
from kern.runtime.change_rows import change_of
from kern.runtime.known_runs import check_owner_again
from kern.runtime.run_ends import SessionRun, current_session_runs
from kern.runtime.saving import SavedSession
from kern.runtime.stream import EventBuffer
from kern.state.call_state import CallState
from kern.state.codec import decode, encode
from kern.state.shared_state import Author, Change, LiveState, Snapshot
from kern.state.state_spec import StateSpec
from kern.state.state_type import StateType
from kern.state.stepping import Ungated

ANY_USER: Any = object()
"""Passed as the user by trusted code: the owner is not checked."""

Key = Hashable


class LiveSession(SavedSession):
    """A session that is in use in this process.

    Args:
        db: The database.
        session_id: The id of the session.
        key: Identifies the session in this process.
        sessions: Those in use, of which it is one.
    """

    row: SessionRow
    stored: bool
    version: int

    def __init__(self, db: Db, session_id: str, key: Key, sessions: LiveSessions) -> None:
        super().__init__(db, session_id)
        self.key = key
        self._sessions = sessions
        self.users = 0
        """How many runs and accessors use the session, or wait for it."""
        self._migrated: set[tuple[StateType, int]] = set()
        self._mutex = threading.Lock()
        self._loaders = 0
        self._claims = 0
        """How many of the loaders create the session if there is none."""
        self._loaded = False
        self._begun: RunAbout | None = None
        """A durable run that has begun in the session, which is not stored yet."""
        self._load_lock = FairLock()
        self._busy_load: BusyDatabase | None = None
        self._runs: list[SessionRun] = []
        self.exclusive_lock: FairLock = FairLock()
        """Taken by the runs of this process that need exclusive use of the session."""

    @property
    def has_exclusive_use(self) -> bool:
        """Whether the running code belongs to a run with exclusive use of the session."""
        return any(
            session_run.exclusive for session_run in self._runs if session_run in current_session_runs.get()
        )

    @property
    def exclusive_runs(self) -> list[SessionRun]:
        """The run of this process with exclusive use of the session, if there is one."""
        return [run for run in self._runs if run.exclusive]

    @property
    def busy(self) -> bool:
        """Whether a run of the session is in progress in this process."""
        return bool(self._runs)

    @property
    def exists(self) -> bool:
        """It is stored, or a durable run has begun in it; to be asked while it is loaded."""
        return self.stored or self._begun is not None

    def forget(self) -> None:
        """Note that the session is deleted: its users keep this object, later ones get a new one."""
        self._sessions.forget(self)

    def owner_is(self, user_id: str) -> bool:
        """Whether the session is loaded and belongs to the user."""
        return self._loaded and self.row.user_id == user_id

    async def load(
        self,
        spec: StateSpec,
        user_id: str | None,
        owner: str | None = None,
        *,
        creates: bool = True,
        run_id: str | None = None,
    ) -> RunRow | None:
        """Keep the session loaded until `unload`. The first caller reads it from the database.

        Args:
            spec: The declaration of the state; a new session starts from its default.
            user_id: The user who asks: must be the owner, or `ANY_USER`.
            owner: The owner of a new session that `ANY_USER` creates.
            creates: Create the session, for this user, if there is none. False for callers that only read.
            run_id: A run to load in the same read.

        Returns:
            The row of that run, or None.

        Raises:
            SessionOwnershipError: The session belongs to another user.
        """
        found: RunRow | None = None
        claimed = False
        asked = time.monotonic()
        with self._mutex:
            self._loaders += 1
        try:
            if not self._load_lock.try_acquire():
                await self._load_lock.acquire()
            try:
                # If only readers loaded it and found no session, it may have been created since.
                first = not self._loaded or not (self.stored or self._claims)
                if first:
                    found = await self._load(spec, run_id, asked)
                    # A run without an id of the caller's asks no more: its commit checks the owner.
                    asks = run_id is not None or not creates
                    self._begun = await self._begun_by() if asks and not self.stored else None
                    if self._begun is not None:
                        self._belongs_to(self._begun.user_id)
                    elif creates and not self.stored:
                        self._belongs_to(owner if user_id is ANY_USER else user_id)
                exists = self.stored or self._claims or creates or self._begun is not None
                if exists and user_id is not ANY_USER and user_id != self.row.user_id:
                    raise SessionOwnershipError(self.session_id)
                with self._mutex:
                    self._claims += creates
                claimed = creates
                if self._spec is not spec:
                    self._spec = self._spec.joined(spec)
                if creates or not isinstance(self._state, StoreError):
                    self.state.spec = self._spec
            finally:
                self._load_lock.release()
            return found if first or run_id is None else await self.db.load_run(run_id)
        except BaseException:
            self.unload(claimed=claimed)
            raise

    def unload(self, *, claimed: bool = True) -> None:
        """Undo one `load`.

        Args:
            claimed: The `creates` of that `load`.
        """
        with self._mutex:
            self._claims -= claimed
            self._loaders -= 1
            if self._loaders == 0:
                self._loaded = False

    @asynccontextmanager
    async def loaded(
        self, spec: StateSpec, user_id: str | None, owner: str | None = None, *, creates: bool = True
    ) -> AsyncIterator[None]:
        """Keep the session loaded inside the block; see `load`."""
        await self.load(spec, user_id, owner, creates=creates)
        try:
            yield
        finally:
            self.unload(claimed=creates)

    async def _begun_by(self) -> RunAbout | None:
        """Whose the session is by the first of its durable runs that has not ended; None if none has begun.

        A session is stored at the end of its first run, and belongs to that run's user from the beginning.
        """
        if not isinstance(self.db, JournalDb):
            return None
        runs = await self.db.running_runs(session_id=self.session_id)
        return runs[-1].about if runs else None

    def _belongs_to(self, owner: str | None) -> None:
        if owner != self.row.user_id:  # spares a copy of the row
            self.row = replace(self.row, user_id=owner)

    async def _load(self, spec: StateSpec, run_id: str | None, asked: float) -> RunRow | None:
        if self._busy_load is not None:
            self._busy_load.check(asked)
        began = time.monotonic()
        run: RunRow | None = None
        try:
            if run_id is None:
                row = await self.db.load_session(self.session_id)
            else:
                row, run = await self.db.load_session_and_run(self.session_id, run_id)
        except StoreBusyError as error:
            self._busy_load = BusyDatabase(began, error)
            raise
        self._busy_load = None
        self.stored = row is not None
        if row is None:
            self._state = LiveState(encode(dict(spec.default()))[0], spec=spec)
            text, version = self._state.text, spec.version
            row = SessionRow(session_id=self.session_id, user_id=None, state=text, state_version=version)
        else:
            small = len(row.state) < LARGE
            made = partial(_live_state, row, spec)
            self._state = made() if small else await off_loop(LARGE, made)
        self.row, self.version, self._spec = row, row.state_version, spec
        self._migrated.clear()
        self._doubt = None
        self._loaded = True
        return run

    async def migrate(self, spec: StateSpec) -> None:
        """Apply the migrations of `spec` to the state, before a run uses it.

        Raises:
            InvalidStateError: A migration failed, or its result does not fit; nothing is changed.
        """
        key = (spec.state_type, spec.version)
        if spec.takes_anything or key in self._migrated:
            return
        call = CallState(self.state, Author(tool="state_migrations"), session=self.key)
        await call.wait_in_task()
        try:
            for step in spec.upgrades(decode(self.state.text), self.version):
                self.state.upgrade(step)
                self.version = step.version
            self._migrated.add(key)
        finally:
            self.state.lock.release()

    def check_migrated(self, spec: StateSpec) -> None:
        """Check that a run inside a call that holds the state needs no migration.

        Raises:
            UsageError: It needs one. The call may still be undone, and would undo the migration.
        """
        if not spec.takes_anything and spec.version != self.version:
            raise UsageError(
                f"the state of session {self.session_id!r} has version {self.version}, but this "
                f"run needs version {spec.version}, and a tool call that holds the state cannot "
                "migrate it: start the run before the tool touches session_state"
            )

    def register_run(self, run_id: str, done: End, buffer: EventBuffer | None) -> SessionRun:
        """Note that a run begins. `unregister_run` must follow, and then the end of `done`.

        Args:
            run_id: The id of the run.
            done: Ends when the run has ended.
            buffer: The queue of its events; None if nothing reads them.
        """
        session_run = SessionRun(run_id, done, buffer, bool(self._runs), asyncio.get_running_loop())
        self._runs.append(session_run)
        session_run.token = current_session_runs.set(current_session_runs.get() | {session_run})
        return session_run

    def unregister_run(self, session_run: SessionRun) -> None:
        """Note that the run has ended, committed or not. The caller ends its `done`."""
        if session_run.token is not None:
            current_session_runs.reset(session_run.token)
        self._runs.remove(session_run)

    async def wait_for_abandoned_runs(self, own: SessionRun | None = None) -> None:
        """Wait for runs whose consumer left their stream: they end, and are committed, in the background.

        Inside another run of the session, such as in a tool, this returns at once: the tool would wait for
        its own run.

        Args:
            own: The entry of the run that asks.
        """
        others = [session_run for session_run in self._runs if session_run is not own]
        if not current_session_runs.get().isdisjoint(others):
            return
        for session_run in others:
            if session_run.abandoned:
                await session_run.wait_until_over()

    async def log(self, after: int = 0) -> tuple[Snapshot, list[Change]]:
        """Return the live state, and the changes that led to it, above revision `after`, oldest first."""
        await self._commit_lock.acquire()
        try:
            row, snapshot = self.row, self.state.snapshot()
        finally:
            self._commit_lock.release()
        rows = await self.db.load_changes(self.session_id, after=after)
        # Skip stored changes above the known row: another process's, or ones that the live state has as well.
        stored = await own_threads.run(lambda: [change_of(r) for r in rows if r.revision <= row.revision])
        return snapshot, stored + [change for change in snapshot.changes if change.revision > after]


def _live_state(row: SessionRow, spec: StateSpec) -> LiveState | StoreError:
    try:
        return LiveState(row.state, revision=row.revision, spec=spec)
    except (ValueError, InvalidStateError, RecursionError) as error:
        return StoreError(f"the stored state of session {row.session_id!r} cannot be read: {error}")


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
        """Use the live session, or make one; `leave` must follow."""
        key = (db.identity, session_id)
        with self._mutex:
            session = self._sessions.get(key)
            if session is None:
                session = self._sessions[key] = LiveSession(db, session_id, key, self)
            session.users += 1
            return session

    def leave(self, session: LiveSession) -> None:
        """Undo one `enter`; the last user releases the live session."""
        with self._mutex:
            session.users -= 1
            # After a fork, or a deletion of the session, the entry is another object.
            if session.users == 0 and self._sessions.get(session.key) is session:
                del self._sessions[session.key]

    def forget(self, session: LiveSession) -> None:
        """See `LiveSession.forget`."""
        with self._mutex:
            if self._sessions.get(session.key) is session:
                del self._sessions[session.key]

    def of_user(self, db: Db, user_id: str) -> list[LiveSession]:
        """Return the loaded sessions in use that belong to the user."""
        with self._mutex:
            sessions = list(self._sessions.values())
        return [
            session
            for session in sessions
            if session.db.identity == db.identity and session.owner_is(user_id)
        ]

    @asynccontextmanager
    async def use(
        self,
        db: Db,
        session_id: str,
        *,
        spec: StateSpec,
        user_id: str | None,
        owner: str | None = None,
        creates: bool = False,
    ) -> AsyncIterator[LiveSession]:
        """Keep the session in use and loaded inside the block; first wait for runs whose streams were left.

        Args:
            spec, user_id, owner, creates: As for `LiveSession.load`.
        """
        session = self.enter(db, session_id)
        try:
            async with Ungated():
                await session.wait_for_abandoned_runs()
                async with session.loaded(spec, user_id, owner, creates=creates):
                    absent = not creates and not session.exists and user_id is not ANY_USER
                    yield session
                if absent:
                    await check_owner_again(db, session_id, user_id)
        finally:
            self.leave(session)


live_sessions: Final = LiveSessions()
