"""Sessions in use: one live state per session and process, joined by every run and accessor that comes while
it is in use, loaded by the first of them and let go by the last.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import AsyncIterator, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar, Token
from dataclasses import replace
from typing import Any

from pydantic_core import to_json

from kern.db.base import ChangeRow, Commit, Db, RunRow, SessionRow, StateWrite
from kern.errors import SessionOwnershipError
from kern.runtime.stream import EventBuffer
from kern.state.codec import decode, encode
from kern.state.lock import FairLock
from kern.state.merge import Conflict, Policies, merge
from kern.state.patch import apply, diff
from kern.state.scope import Change, LiveState
from kern.state.stepping import OffTurn

ANY_USER: Any = object()
"""For accessors that are trusted code: no user is checked."""

Key = Hashable

_inside: ContextVar[frozenset[Ending]] = ContextVar("kern_inside", default=frozenset())
"""The ends of the runs that the running code belongs to."""


class Ending:
    """The end of a run that is still to come."""

    def __init__(self, buffer: EventBuffer | None) -> None:
        self._buffer = buffer
        self.token: Token[frozenset[Ending]] | None = None
        self.done: concurrent.futures.Future[None] = concurrent.futures.Future()

    @property
    def abandoned(self) -> bool:
        """The consumer of the run's events has walked away."""
        return self._buffer is not None and self._buffer.abandoned


class LiveSession:
    """A session that is in use in this process.

    Args:
        db: Where it is kept.
        key: What identifies it in this process.
    """

    def __init__(self, db: Db, session_id: str, key: Key) -> None:
        self.db = db
        self.session_id = session_id
        self.key = key
        self.users = 0
        """How many runs and accessors have it in use."""
        self.row: SessionRow | None = None
        """The session as this process last saw it stored."""
        self.user_id: str | None = None
        self.state: LiveState
        self._loaded = False
        self._load_lock = FairLock()
        self._commit_lock = FairLock()
        self._endings: list[Ending] = []

    @property
    def busy(self) -> bool:
        """A run of the session is going on in this process."""
        return bool(self._endings)

    async def load(self, default: Mapping[str, Any], user_id: str | None, owner: str | None = None) -> None:
        """Read the session from the database, unless that has been done.

        Args:
            default: What a new session starts from.
            user_id: Who asks; must be the owner, or `ANY_USER`.
            owner: Who owns a new session that `ANY_USER` asks for.
        """
        if not self._loaded:
            await self._load_lock.acquire()
            try:
                if not self._loaded:
                    self.row = await self.db.load_session(self.session_id)
                    if self.row is None:
                        self.user_id = owner if user_id is ANY_USER else user_id
                        self.state = LiveState(dict(default))
                    else:
                        self.user_id = self.row.user_id
                        self.state = LiveState(decode(self.row.state), revision=self.row.revision)
                    self._loaded = True
            finally:
                self._load_lock.release()
        if user_id is not ANY_USER and user_id != self.user_id:
            raise SessionOwnershipError(self.session_id)

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

    async def settled(self) -> None:
        """Wait for the runs that were walked away from: they end, and are committed, in the background.

        Not inside a run of the session, such as in a tool that cleans up: that would be a wait for itself.
        """
        if not _inside.get().isdisjoint(self._endings):
            return
        for ending in list(self._endings):
            if ending.abandoned:
                await asyncio.wait([asyncio.wrap_future(ending.done)])

    async def commit(self, runs: Sequence[RunRow]) -> list[Conflict]:
        """Write the live state as it is now, and `runs`, in one transaction.

        Returns where another process had changed the same values; this one's were kept.
        """
        await self._commit_lock.acquire()
        try:
            text, revision, changes = self.state.taken()
            reconciler = Reconciler(self.session_id, self.row, text, revision, changes, self.state.policies)
            committed = await self.db.commit(
                Commit(
                    session_id=self.session_id,
                    user_id=self.user_id,
                    resolve=reconciler,
                    runs=runs,
                    now=time.time(),
                )
            )
            self.row = committed.row
            if not committed.repeated:
                self.state.stored(len(changes), reconciler.offset)
                if reconciler.merged is not None:
                    self.state.rebase(text, reconciler.merged, committed.row.revision)
            return reconciler.conflicts
        finally:
            self._commit_lock.release()


class Reconciler:
    """Decides, inside the database's transaction, what a commit makes of the state that is stored right then.

    Where that is not the state that this process started from, another process has committed in between: the
    two are merged, three ways. The log keeps one row for each change of this process's, counted on from the
    stored revision; their patches are made anew, so that they lead from what was stored to what is.
    """

    def __init__(
        self,
        session_id: str,
        base: SessionRow | None,
        text: bytes,
        revision: int,
        changes: list[Change],
        policies: Policies | None,
    ) -> None:
        self._session_id = session_id
        self._base = base
        self._text = text
        self._revision = revision
        self._changes = changes
        self._policies = policies
        self.offset = 0
        self.merged: bytes | None = None
        self.conflicts: list[Conflict] = []

    def __call__(self, stored: SessionRow | None) -> StateWrite:
        """The resolver of the commit."""
        self.offset, self.merged, self.conflicts = 0, None, []
        base, changes = self._base, self._changes
        text: bytes | None = self._text
        if stored is not None:
            self.offset = stored.revision - (base.revision if base is not None else 0)
            if base is None or stored.version != base.version:
                text, changes = self._merge(stored)
            if stored.state == text:
                text = None
        rows = [self._row(change) for change in changes]
        return StateWrite(text, self._revision + self.offset, changes=rows)

    def _merge(self, stored: SessionRow) -> tuple[bytes | None, list[Change]]:
        start = decode(self._base.state) if self._base is not None else {}
        theirs, ours = decode(stored.state), decode(self._text)
        result = merge(start, theirs, ours, self._policies)
        self.merged, tree = encode(result.value)
        self.conflicts = result.conflicts
        return self.merged, _replayed(self._changes, start, theirs, tree, self._policies)

    def _row(self, change: Change) -> ChangeRow:
        writer = change.writer
        return ChangeRow(
            session_id=self._session_id,
            revision=change.revision + self.offset,
            patch=to_json(change.patch),
            agent_path=to_json(writer.agent_path),
            run_id=writer.run_id,
            tool=writer.tool,
            tool_call_id=writer.tool_call_id,
            created_at=change.created_at,
        )


def _replayed(
    changes: list[Change], base: Any, theirs: Any, merged: Any, policies: Policies | None
) -> list[Change]:
    """The same changes with patches that lead, one after the other, from `theirs` to `merged`."""
    ours, current, rows = base, theirs, []
    for index, change in enumerate(changes):
        before, ours = ours, apply(ours, change.patch)
        last = index == len(changes) - 1
        after = merged if last else merge(before, current, ours, policies).value
        rows.append(replace(change, patch=diff(current, after)))
        current = after
    return rows


class LiveSessions:
    """The sessions in use in this process."""

    def __init__(self) -> None:
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
            if session.users == 0:
                del self._sessions[session.key]

    @asynccontextmanager
    async def use(
        self,
        db: Db,
        session_id: str,
        *,
        default: Mapping[str, Any],
        user_id: str | None,
        owner: str | None = None,
    ) -> AsyncIterator[LiveSession]:
        """Have the session in use, loaded, after all ends of runs that are still being written."""
        session = self.enter(db, session_id)
        try:
            async with OffTurn():
                await session.settled()
                await session.load(default, user_id, owner)
                yield session
        finally:
            self.leave(session)


live_sessions = LiveSessions()
