"""The connections of one event loop to Redis: a sender in the background, and one reader for all runs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from kern._log import named
from kern.durable.deltas import Delta
from kern.errors import MissingExtraError, UsageError

log: Final = named("kern")

MOST_WAITING: Final = 10_000
MOST_BYTES: Final = 16_000_000
"""How many deltas, and how many bytes of them, may wait to be sent; further ones are dropped."""

AT_ONCE: Final = 200
"""How many deltas are sent, or read for one run, in one round trip."""

BLOCK_MS: Final = 50
"""How long a blocking read waits for new deltas. A run that is followed meanwhile is read after that."""

GATHER_SECONDS: Final = 0.02
"""How long the deltas of several runs are collected for one round trip, and the readers that ask for them."""

FIRST_RETRY, LONGEST_RETRY = 0.5, 5.0

CLUSTER_RETRY: Final = 60.0
"""How many seconds pass until a node of a cluster is asked again."""

Way = Literal["send", "read"]


def driver() -> Any:
    """Import the driver.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import redis.asyncio as driver
    except ImportError:
        raise MissingExtraError("redis", "redis") from None
    return driver


def check_url(url: str) -> str:
    """Check the URL, and return the server in it without user and password.

    Raises:
        UsageError: It is not the URL of a Redis server.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"the URL of the Redis server cannot be parsed: {error}") from error
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise UsageError(
            f'the URL of the Redis server must begin with "redis://", "rediss://" or "unix://", not with '
            f"{parts.scheme!r}"
        )
    try:
        driver().ConnectionPool.from_url(url)
    except (ValueError, TypeError) as error:
        raise UsageError(f"the URL of the Redis server has an invalid option: {error}") from error
    return f"{parts.scheme}://{parts.hostname or ''}{f':{port}' if port else ''}{parts.path}"


@dataclass(slots=True, frozen=True)
class Settings:
    """The parameters of `RedisDeltas`."""

    url: str
    prefix: str
    max_deltas: int
    keep_seconds: int
    timeout: float


class Health:
    """Tracks whether Redis can be reached, for all event loops of the process, and logs changes.

    Sending and reading are tracked apart: a server that is full, or a replica, can be read but not written.

    Args:
        place: The server, for the log.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._mutex = threading.Lock()
        self._lost: set[Way] = set()
        self._of_cluster = False
        self._pause = {"send": FIRST_RETRY, "read": FIRST_RETRY}
        self._retry_at = {"send": 0.0, "read": 0.0}

    def may_try(self, way: Way) -> bool:
        """Whether the last attempt succeeded, or it is time for another one."""
        return way not in self._lost or time.monotonic() >= self._retry_at[way]

    def failed(self, way: Way, error: Exception) -> None:
        """Note a failure."""
        with self._mutex:
            first = not self._lost and not self._of_cluster
            self._lost.add(way)
            self._retry_at[way] = time.monotonic() + self._pause[way]
            self._pause[way] = min(self._pause[way] * 2, LONGEST_RETRY)
        if first:
            log.warning(
                "Redis at %s fails: followers of runs get whole turns, not deltas, until it is back: %s: %s",
                self._place,
                type(error).__name__,
                error,
            )

    def refused(self, way: Way, error: Exception) -> None:
        """Note that a node of a cluster does not serve the streams of all runs. The log says so once."""
        with self._mutex:
            first, self._of_cluster = not self._of_cluster, True
            self._lost.add(way)
            self._retry_at[way] = time.monotonic() + CLUSTER_RETRY
        if first:
            log.error(
                "Redis at %s is a node of a cluster and does not serve the streams of all runs: followers of "
                "runs get whole turns, not deltas. RedisDeltas needs one server that is not in a cluster; a "
                'cluster of one shard works with prefix="{kern}:" (%s: %s)',
                self._place,
                type(error).__name__,
                error,
            )

    def succeeded(self, way: Way) -> None:
        """Note a success."""
        if way not in self._lost:
            return
        with self._mutex:
            self._lost.discard(way)
            self._pause[way] = FIRST_RETRY
            back = not self._lost and not self._of_cluster
        if back:
            log.warning("Redis at %s is back: followers of runs get deltas again", self._place)


@dataclass(slots=True, eq=False)
class _Read:
    """A reader that waits for deltas of a run."""

    key: str
    after: int
    found: asyncio.Future[Sequence[Delta]]


class Link:
    """The connections of one event loop.

    Args:
        settings: The server and the limits.
        health: Whether the server can be reached.
    """

    def __init__(self, settings: Settings, health: Health) -> None:
        self._settings = settings
        self._health = health
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import AskError, ClusterCrossSlotError, ClusterError, ResponseError

        redis = driver()
        self._failures: tuple[type[Exception], ...] = (redis.RedisError, OSError, TimeoutError)
        self._refused: type[Exception] = ResponseError
        # AskError includes MovedError: the key is at another node.
        self._of_cluster: tuple[type[Exception], ...] = (AskError, ClusterCrossSlotError, ClusterError)
        # No retries: the next delta is the next attempt.
        options = {
            "socket_timeout": settings.timeout + BLOCK_MS / 1000,
            "socket_connect_timeout": settings.timeout,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
        }
        self._client: Any = redis.Redis.from_url(settings.url, **options)
        self._waiting: deque[tuple[str, Delta]] = deque()
        self._bytes = 0
        self._reads: set[_Read] = set()
        self._set_aside: set[str] = set()
        """Keys whose values are not streams."""
        self._sender: asyncio.Task[None] | None = None
        self._reader: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Close the connections. Deltas that were not sent are dropped."""
        tasks = [task for task in (self._sender, self._reader) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.aclose()

    # Sending.

    def publish(self, name: str, delta: Delta) -> None:
        """Queue a delta for the sender."""
        if (
            not self._health.may_try("send")
            or len(self._waiting) >= MOST_WAITING
            or self._bytes >= MOST_BYTES
        ):
            return
        self._waiting.append((name, delta))
        self._bytes += len(delta.data)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send(), name="kern: deltas to Redis")

    async def _send(self) -> None:
        while self._waiting:
            await asyncio.sleep(GATHER_SECONDS)
            batch = [self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))]
            self._bytes -= sum(len(delta.data) for _, delta in batch)
            try:
                async with asyncio.timeout(2 * self._settings.timeout):
                    await self._send_batch(batch)
            except self._failures as error:
                self._waiting.clear()  # followers notice the gap, and read the database
                self._bytes = 0
                self._note_failure("send", error)
            else:
                self._health.succeeded("send")

    async def _send_batch(self, batch: Sequence[tuple[str, Delta]]) -> None:
        settings = self._settings
        async with self._client.pipeline(transaction=False) as pipe:
            for name, delta in batch:
                pipe.xadd(
                    settings.prefix + name,
                    {"after": delta.after, "events": delta.data},
                    id=f"{delta.last_seq}-0",
                    maxlen=settings.max_deltas,
                )
            for name in {name for name, _ in batch}:
                pipe.expire(settings.prefix + name, settings.keep_seconds)
            answers = await pipe.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, Exception) and not (self._is_old(answer) or self._is_no_stream(answer)):
                raise answer

    def _is_old(self, error: Exception) -> bool:
        """Whether the stream already has later deltas, so another process has taken the run over."""
        return isinstance(error, self._refused) and "equal or smaller" in str(error)

    def _is_no_stream(self, error: Exception) -> bool:
        """Whether the key has another type than a stream: a problem of that key, not of the server."""
        return isinstance(error, self._refused) and "WRONGTYPE" in str(error)

    # Reading.

    async def read(self, name: str, after: int, seconds: float) -> Sequence[Delta]:
        """The deltas of the run after that number, as soon as there are some."""
        if not self._health.may_try("read"):
            await asyncio.sleep(seconds)
            return ()
        read = _Read(self._settings.prefix + name, after, asyncio.get_running_loop().create_future())
        self._reads.add(read)
        try:
            if self._reader is None or self._reader.done():
                self._reader = asyncio.create_task(self._read(), name="kern: deltas from Redis")
            await asyncio.wait([read.found], timeout=seconds)
            return read.found.result() if read.found.done() else ()
        finally:
            self._reads.discard(read)

    async def _read(self) -> None:
        while self._reads:
            places: dict[str, int] = {}
            for read in self._reads:
                if read.key not in self._set_aside:
                    places[read.key] = min(read.after, places.get(read.key, read.after))
            if not places:  # the readers that remain wait until their timeouts
                return
            try:
                async with asyncio.timeout(2 * self._settings.timeout):
                    answer = await self._client.xread(
                        {key: f"{after}-0" for key, after in places.items()}, count=AT_ONCE, block=BLOCK_MS
                    )
            except self._failures as error:
                if self._is_no_stream(error) and await self._set_aside_one_of(places):
                    continue
                self._note_failure("read", error)
                return
            self._health.succeeded("read")
            self._deliver(answer)
            await asyncio.sleep(GATHER_SECONDS)

    def _note_failure(self, way: Way, error: Exception) -> None:
        if isinstance(error, self._of_cluster):
            self._health.refused(way, error)
        else:
            self._health.failed(way, error)

    async def _set_aside_one_of(self, keys: Iterable[str]) -> bool:
        """Find the keys that are not streams, and stop reading them. Return whether there is one."""
        try:
            async with asyncio.timeout(2 * self._settings.timeout):
                kinds = {key: _text(await self._client.type(key)) for key in keys}
        except self._failures:
            return False
        found = {key for key, kind in kinds.items() if kind not in ("stream", "none")}
        if found:
            log.warning(
                "these keys in Redis are not streams, so Kern does not read them: %s; choose another prefix",
                ", ".join(sorted(found)),
            )
        self._set_aside |= found
        return bool(found)

    def _deliver(self, answer: Any) -> None:
        streams = answer.items() if isinstance(answer, Mapping) else answer or ()
        found = {_text(key): [_delta(entry) for entry in entries] for key, entries in streams}
        for read in list(self._reads):
            deltas = [delta for delta in found.get(read.key, ()) if delta.last_seq > read.after]
            if deltas and not read.found.done():
                read.found.set_result(deltas)
                self._reads.discard(read)


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _delta(entry: Any) -> Delta:
    """The delta in an entry of a stream. For an entry that Kern did not write, it has no data, so that
    followers read the database.
    """
    number, values = entry
    last_seq = int(number.partition(b"-")[0])
    try:
        after, data = int(values[b"after"]), values[b"events"]
    except (ValueError, TypeError, LookupError):
        after, data = 0, b""
    return Delta(after=after, last_seq=last_seq, data=data)
