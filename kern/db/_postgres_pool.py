"""The connections of this process to a Postgres database: a pool per event loop, and retries."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from kern._log import named
from kern._sync.fork import after_fork_in_child
from kern._sync.loops import LoopLocal
from kern.db._postgres_connect import Hosts, connection_class, patience
from kern.db._postgres_errors import READ_ONLY, MayPassError, asyncpg, kinds, store_error
from kern.db._postgres_server import Server
from kern.errors import StoreBusyError, StoreError

log = named("kern")

T = TypeVar("T")
Row = Sequence[Any]
"""The columns of a row, in order."""

_SHORTEST_PAUSE = 0.01
_LONGEST_PAUSE = 0.5
_SHORTEST_PART, _LONGEST_PART, _PARTS = 1.0, 5.0, 6
"""How long the first attempt may wait for the server: a part of the whole time, in seconds. A later attempt
after one without an answer may wait for twice as long, so that slow statements succeed, too."""

_CLOSE_SECONDS = 2.0
"""How long the end of a loop waits for its connections to be closed in order."""

_RELEASE_SECONDS = 2.0
"""How long a connection may take to cancel a statement, or to roll back."""

_WARN_SECONDS = 1.0
"""The time after which a warning says that the server cannot be reached and is tried again."""

_BEGIN = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '5s'"
"""The timeout bounds how long a process that is frozen within a transaction holds its locks."""


class Link:
    """One connection, for one job.

    Args:
        raw: The driver's connection.
        server: For the texts of errors.
        deadline: The monotonic time by which the job must be done.
        part: How many seconds a statement may wait for its answer.
    """

    def __init__(self, raw: Any, server: Server, deadline: float, part: float) -> None:
        self._raw = raw
        self._server = server
        self._deadline = deadline
        self._part = part

    async def fetch(self, sql: str, *values: object) -> list[Row]:
        """Execute one statement and return its rows.

        Raises:
            MayPassError: It failed, but may succeed at another time.
            StoreError: It failed for good.
        """
        return await self._converted(self._raw.fetch(sql, *values), self._left())

    async def execute(self, sql: str) -> None:
        """Execute statements without parameters, in one round trip.

        Raises:
            StoreError: As `fetch` does.
        """
        await self._converted(self._raw.execute(sql), self._left())

    async def roll_back(self) -> None:
        """Roll the transaction back, even after the deadline.

        Raises:
            StoreError: As `fetch` does.
        """
        await self._converted(self._raw.execute("ROLLBACK"), _RELEASE_SECONDS)

    def terminate(self) -> None:
        """Close the connection at once, so that it is not used again."""
        with suppress(*kinds()):  # the driver has already taken back a connection that is closed
            self._raw.terminate()

    def _left(self) -> float:
        return max(min(self._part, self._deadline - time.monotonic()), 0.001)

    async def _converted(self, answer: Awaitable[T], seconds: float) -> T:
        try:
            async with asyncio.timeout(seconds):  # the driver's own timeout does not cover all of its waits
                return await answer
        except kinds() as error:
            converted = store_error(error, self._server)
            if isinstance(converted, MayPassError) and not converted.reusable:
                self.terminate()  # the pool would hand a broken connection out again
            raise converted from error


class _LoopPool:
    """The driver's pool for one event loop, created on first use."""

    def __init__(self, make: Callable[[], Awaitable[Any]]) -> None:
        self._make = make
        self._pool: Any = None
        self._silent_since = 0.0
        self._lock = (
            asyncio.Lock()
        )  # asyncpg does not allow two tasks to wait for a pool that is being created

    async def acquire(self, deadline: float) -> tuple[Any, Any]:
        """The driver's pool, and a connection on which the server was heard since it was last silent.

        The others may be as silent: the host has failed, or a router has forgotten them.
        """
        pool = await self._get()
        while True:
            raw = await pool.acquire(timeout=max(deadline - time.monotonic(), 0.001))
            if raw.seen.at >= self._silent_since:
                return pool, raw
            raw.terminate()

    def silent(self, since: float) -> None:
        """Note that a statement, sent after that time, had no answer."""
        self._silent_since = max(self._silent_since, since)

    async def _get(self) -> Any:
        if self._pool is None:
            async with self._lock:
                if self._pool is None:
                    self._pool = await self._make()
        return self._pool

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            await asyncio.wait_for(pool.close(), _CLOSE_SECONDS)
        except kinds():
            pool.terminate()


class Pool:
    """The connections to one database. `Pool.at` returns the same object for the same settings.

    Args:
        server: The database.
        size: The maximum number of connections per event loop.
        cache: How many prepared statements a connection keeps.
    """

    def __init__(self, server: Server, size: int, cache: int) -> None:
        self._server = server
        self._size = size
        self._cache = cache
        self._hosts = Hosts(server, self._password)
        self._start_afresh()

    @classmethod
    def at(cls, server: Server, size: int, cache: int) -> Pool:
        """The pool for these settings."""
        key = (server.url, server.password, size, cache)
        with _pools_mutex:
            pool = _pools.get(key)
            if pool is None:
                pool = _pools[key] = cls(server, size, cache)
            return pool

    async def fetch(self, sql: str, *values: object, wait: float) -> list[Row]:
        """Execute one statement and return its rows. It is sent again after a failure that may be temporary.

        Args:
            sql: A statement that may be executed twice: the answer to the first attempt may be lost.
            values: Its parameters.
            wait: Seconds until the last attempt.

        Raises:
            StoreError: The server refuses it, or could not be reached for all of `wait`.
            StoreBusyError: The server, or every connection to it, was busy for all of `wait`.
        """
        return await self.run(lambda link: link.fetch(sql, *values), wait=wait)

    async def transaction(self, job: Callable[[Link], Awaitable[T]], *, wait: float) -> T:
        """Run `job` in a transaction. It is run again from its beginning after a failure that may be
        temporary.

        Prefer a single statement where one is enough: a process that is frozen within a transaction holds its
        locks until the server ends the transaction, some seconds later.

        Raises:
            StoreError: As for `fetch`.
        """

        async def in_transaction(link: Link) -> T:
            await link.execute(_BEGIN)
            try:
                result = await job(link)
                await link.execute("COMMIT")
                return result
            except Exception as error:
                if not isinstance(error, MayPassError) or error.reusable:
                    await link.roll_back()
                raise
            except BaseException:
                link.terminate()  # the server rolls back; unlike `roll_back`, this does not wait
                raise

        return await self.run(in_transaction, wait=wait)

    async def run(self, job: Callable[[Link], Awaitable[T]], *, wait: float) -> T:
        """Run `job` on a connection, and again on another one after a failure that may be temporary.

        Raises:
            StoreError: As for `fetch`.
        """
        began = time.monotonic()
        deadline, pause, warned = began + wait, _SHORTEST_PAUSE, False
        part = min(max(wait / _PARTS, _SHORTEST_PART), _LONGEST_PART)
        while True:
            left = deadline - time.monotonic()
            try:
                return await self._once(job, deadline, part if left >= 2 * part else left)
            except MayPassError as error:
                now = time.monotonic()
                if now + pause >= deadline:
                    kind = StoreBusyError if error.silent else StoreError
                    raise kind(
                        f"{error}; gave up after {now - began:.1f} s (busy_timeout)"
                    ) from error.__cause__
                if now - began > _WARN_SECONDS and not warned:
                    warned = True
                    log.warning("%s; retrying for up to %g s", error, deadline - now)
                if error.silent:
                    part *= 2
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def aclose(self) -> None:
        """Close the connections of the running loop; the next job opens new ones."""
        await self._pools.aclose()

    async def _once(self, job: Callable[[Link], Awaitable[T]], deadline: float, part: float) -> T:
        held = self._pools.get()
        patience.set(part)
        try:
            pool, raw = await held.acquire(deadline)
        except kinds() as error:
            # Drop the driver's frames: their variables hold the password, and error reporters show them.
            raise store_error(error, self._server) from error.with_traceback(None)
        began, seen, is_silent = time.monotonic(), raw.seen, False
        try:
            return await job(Link(raw, self._server, deadline, part))
        except MayPassError as error:
            is_silent = error.silent
            if getattr(error.__cause__, "sqlstate", None) == READ_ONLY:
                self._hosts.skip(seen.first)
            raise
        finally:
            if is_silent:
                held.silent(began)
            else:
                seen.at = time.monotonic()
            await self._release(pool, raw)  # after the driver has cancelled the statement

    async def _release(self, pool: Any, raw: Any) -> None:
        try:
            await pool.release(raw, timeout=_RELEASE_SECONDS)
        except kinds() as error:  # the driver has closed the connection
            log.debug("%s: a connection could not be kept: %s", self._server.shown, type(error).__name__)

    async def _make(self) -> Any:
        return await asyncpg().create_pool(
            self._server.url,
            connect=self._hosts.connect,
            connection_class=connection_class(),
            min_size=0,
            max_size=self._size,
            statement_cache_size=self._cache,
            reset=_leave_as_it_is,
        )

    def _password(self) -> str | None:
        """The password in plain text; the driver calls this when it connects."""
        return None if self._server.password is None else str(self._server.password)

    def _start_afresh(self) -> None:
        self._pools = LoopLocal(lambda: _LoopPool(self._make), _LoopPool.close)

    def _after_fork_in_child(self) -> None:
        # Kept, since dropping it would end the parent's connections, whose sockets the child shares.
        _of_parent.append(self._pools)
        self._start_afresh()


async def _leave_as_it_is(raw: Any) -> None:
    """Replaces the driver's reset of a connection after each job, which would be one more round trip."""


_pools: WeakValueDictionary[Hashable, Pool] = WeakValueDictionary()
_pools_mutex = threading.Lock()
_of_parent: list[LoopLocal[_LoopPool]] = []


def _after_fork_in_child() -> None:
    global _pools_mutex
    _pools_mutex = threading.Lock()
    for pool in list(_pools.values()):
        pool._after_fork_in_child()


after_fork_in_child(_after_fork_in_child)
