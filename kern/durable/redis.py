"""What durable runs tell between steps, over Redis: live for whoever follows a run, in whatever process."""

from __future__ import annotations

from collections.abc import Sequence

from kern._sync.loops import LoopLocal
from kern.durable._redis_link import Health, Link, Settings, check_url, driver
from kern.durable.deltas import Delta
from kern.errors import UsageError


class RedisDeltas:
    """A stream in Redis for each run that goes on, read by those who follow the run.

        journal = DbJournal(db, deltas=RedisDeltas("redis://localhost:6379/0"))
        desk = Agent(id="desk", db=db, journal=journal)

    The processes that drive runs and those that follow them need the same settings. Redis is never waited
    for: what a run tells goes to it in the background, and what it does not take in time is dropped. While
    it cannot be reached, those who follow hear each turn as a whole, from the database; a warning in the log
    says so once, and it is tried again every few seconds.

    Args:
        url: "redis://user:password@host:6379/0", "rediss://..." for TLS, or "unix:///path/to/socket".
        prefix: Begins the keys of the streams.
        max_deltas: About how many deltas a stream keeps, the newest. A turn of a minute tells 600.
        keep_seconds: When a stream goes after the last delta.
        timeout: Seconds that Redis has for an answer.

    Raises:
        UsageError: A value is of no use; or the extra `redis` is not installed.
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
        driver()  # says at once what is missing
        if max_deltas < 1 or keep_seconds < 1 or timeout <= 0:
            raise UsageError(
                "max_deltas and keep_seconds are at least 1, and timeout is above 0; not "
                f"{max_deltas!r}, {keep_seconds!r} and {timeout!r}"
            )
        place = check_url(url)
        settings = Settings(url, prefix, max_deltas, int(keep_seconds), timeout)
        health = Health(place)
        self._place = place
        self._links: LoopLocal[Link] = LoopLocal(lambda: Link(settings, health), Link.close)

    def publish(self, name: str, delta: Delta) -> None:
        """Send it in the background; dropped where Redis cannot be reached, or is behind."""
        self._links.get().publish(name, delta)

    async def read(self, name: str, after: int, seconds: float) -> Sequence[Delta]:
        """What the stream has after that number; waits where Redis cannot be reached."""
        return await self._links.get().read(name, after, seconds)

    async def aclose(self) -> None:
        """Close the connections of this event loop now; the end of the loop does it, too."""
        await self._links.aclose()

    def __repr__(self) -> str:
        return f"RedisDeltas({self._place!r})"
