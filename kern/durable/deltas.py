"""The port for deltas: pieces of text that go to the followers of a run live, not through the database.

The database has the events of each step; a stream of deltas has the events in between. It may lose any of
them at any time: followers then get each turn as a whole, once its step is stored.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from kern._error_text import error_text
from kern._keywords import ChecksArguments
from kern._log import named
from kern._numbers import MOST, check_seconds, check_whole
from kern.db.journals import RunningRow

log: Final = named("kern")


@dataclass(slots=True, frozen=True)
class Delta:
    """Several consecutive events of a run.

    Args:
        after: The `seq` of the event before the first one. A follower that does not have all events up to it
            reads the database first.
        last_seq: The `seq` of the last event.
        data: The events, as a JSON array (UTF-8).
    """

    after: int
    last_seq: int
    data: bytes


def check_delta(delta: object) -> None:
    """Check what a stream of the application's own returned.

    Raises:
        TypeError: It is not a delta, or its numbers are none.
    """
    if not isinstance(delta, Delta) or type(delta.after) is not int or type(delta.last_seq) is not int:
        raise TypeError(f"read returned {delta!r}, which is not a Delta with two whole numbers")


class DeltaStream(Protocol):
    """Carries the events of runs to their followers in any process. Its failures never fail a run."""

    def publish(self, name: str, delta: Delta) -> None:
        """Send events of a run. Never waits: what cannot be sent is dropped. An error is logged once for
        each run, and the events count as dropped.

        Args:
            name: The name of the stream; see `stream_of`.
            delta: The events.
        """
        ...

    async def read(self, name: str, after: int, seconds: float) -> Sequence[Delta]:
        """The deltas of the run after that number, as soon as there are some; none after `seconds`.

        If nothing can be read, it waits. An error is logged once, and followers read the database instead.
        """
        ...


class Publisher:
    """Sends the events of one run to a stream, which may be the application's own: no error of it is raised.

    Args:
        deltas: The stream.
    """

    def __init__(self, deltas: DeltaStream) -> None:
        self._deltas = deltas
        self._warned = False

    def publish(self, name: str, delta: Delta) -> None:
        """Send events. If that fails, they are dropped: the database gets them."""
        try:
            self._deltas.publish(name, delta)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it would end the renewal of a claim
            if not self._warned:
                self._warned = True
                log.warning(
                    "%s: %r failed to publish events (%s); followers get whole turns from the database",
                    name,
                    self._deltas,
                    error_text(error),
                )


def stream_of(run: RunningRow) -> str:
    """The name of a run's stream. It contains the time at which the run began, so that a later run with the
    same id, or one in another database, has another stream.
    """
    return f"{run.run_id}@{run.begun_at:.6f}"


class InMemoryDeltas(ChecksArguments):
    """Deltas in memory, for runs that are followed in the process that drives them.

    The database is written only at steps.

    Args:
        max_deltas: How many deltas are kept for each run.
        keep_seconds: For how long they are kept after the last one.
    """

    def __init__(self, *, max_deltas: int = 1000, keep_seconds: float = 300.0) -> None:
        check_whole("max_deltas", max_deltas, 1, MOST)
        check_seconds("keep_seconds", keep_seconds)
        self._max = max_deltas
        self._keep = keep_seconds
        self._mutex = threading.Lock()
        self._runs: dict[str, tuple[float, deque[Delta]]] = {}

    def publish(self, name: str, delta: Delta) -> None:
        """Keep the delta for readers."""
        now = time.monotonic()
        with self._mutex:
            _, kept = self._runs.pop(name, (now, deque(maxlen=self._max)))
            kept.append(delta)
            self._runs[name] = (now, kept)  # at the end, so that the streams that are idle longest come first
            while (oldest := next(iter(self._runs))) and self._runs[oldest][0] < now - self._keep:
                del self._runs[oldest]

    async def read(self, name: str, after: int, seconds: float) -> Sequence[Delta]:
        """Poll for kept deltas, at short intervals."""
        deadline = time.monotonic() + seconds
        while True:
            with self._mutex:
                _, kept = self._runs.get(name, (0.0, ()))
                found = [delta for delta in kept if delta.last_seq > after]
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            await asyncio.sleep(min(left, _LOOK_SECONDS))


_LOOK_SECONDS = 0.02
