"""Deltas over Redis: live events of durable runs for followers in any process."""

from __future__ import annotations

from collections.abc import Sequence

from kern._keywords import ChecksArguments
from kern._numbers import MOST, check_seconds, check_whole
from kern._sync.loops import LoopLocal
from kern.durable._redis_link import Health, Link, Settings, check_url, driver
from kern.durable.deltas import Delta
from kern.errors import UsageError

_LONGEST = 10**10
"""The most seconds that a stream is kept: Redis takes them in milliseconds, as 64 bits."""


class RedisDeltas(ChecksArguments):
    """Sends the live events of each run through a stream in Redis, which its followers read.

        journal = DbJournal(db, deltas=RedisDeltas("redis://localhost:6379/0"))
        desk = Agent(id="desk", db=db, journal=journal)

    Processes that drive runs and processes that follow them need the same settings. Runs never wait for
    Redis: events are sent in the background, and dropped if Redis does not take them in time. While Redis
    cannot be reached, followers get each turn as a whole from the database. The log has one warning about
    this, and Kern tries again every few seconds. A Redis Cluster is not supported; see docs/following.md.

    Args:
        url: "redis://user:password@host:6379/0", "rediss://..." for TLS, or "unix:///path/to/socket".
        prefix: The beginning of the keys of the streams.
        max_deltas: The approximate number of deltas that a stream keeps, the newest ones. A turn of a minute
            makes 600.
        keep_seconds: The seconds after the last delta for which a stream is kept.
        timeout: How long to wait for an answer of Redis, in seconds.

    Raises:
        UsageError: A value is not valid.
        MissingExtraError: The extra `redis` is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "kern:",
        max_deltas: int = 1000,
        keep_seconds: float = 300.0,
        timeout: float = 1.0,
    ) -> None:
        driver()  # if the extra is missing, fail now, not at the first run
        check_whole("max_deltas", max_deltas, 1, MOST)
        check_seconds("keep_seconds", keep_seconds, endless=False)
        check_seconds("timeout", timeout, endless=False)
        if not 1 <= keep_seconds <= _LONGEST:
            raise UsageError(f"keep_seconds must be from 1 to {_LONGEST}, not {keep_seconds!r}")
        place = check_url(url)
        settings = Settings(url, prefix, max_deltas, int(keep_seconds), timeout)
        health = Health(place)
        self._place = place
        self._links: LoopLocal[Link] = LoopLocal(lambda: Link(settings, health), Link.close)

    def publish(self, name: str, delta: Delta) -> None:
        """Send the delta in the background. It is dropped if Redis cannot be reached or is behind."""
        self._links.get().publish(name, delta)

    async def read(self, name: str, after: int, seconds: float) -> Sequence[Delta]:
        """The deltas of the stream after that number. Waits if Redis cannot be reached."""
        return await self._links.get().read(name, after, seconds)

    async def aclose(self) -> None:
        """Close the connections of this event loop now; otherwise they are closed when the loop ends."""
        await self._links.aclose()

    def __repr__(self) -> str:
        return f"RedisDeltas({self._place!r})"
