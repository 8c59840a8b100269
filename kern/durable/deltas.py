"""What a run tells live, beside the database: the pieces of texts, on their way to those who follow the run.

The database has the events of each step; a stream of deltas has what comes between. It may lose all of it at
any time: then those who follow hear each turn as a whole, once its step is kept.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kern.db.journals import RunningRow


@dataclass(slots=True, frozen=True)
class Delta:
    """Some events of a run, one after another.

    Args:
        after: The number of the event before the first one: whoever has not heard all up to there reads the
            database first.
        last_seq: The number of the last event.
        data: The events, as a JSON array (UTF-8).
    """

    after: int
    last_seq: int
    data: bytes


class DeltaStream(Protocol):
    """Takes what runs tell to those who follow them, in whatever process. It never fails a run."""

    def publish(self, name: str, delta: Delta) -> None:
        """Hand on what a run has told. Never waits and never raises: what cannot be handed on is dropped.

        Args:
            name: See `stream_of`.
            delta: What was told.
        """
        ...

    async def read(self, name: str, after: int, seconds: float) -> Sequence[Delta]:
        """What the run has told after that number, as soon as there is something; none after `seconds`.

        Never raises: where nothing can be read, it waits.
        """
        ...


def stream_of(run: RunningRow) -> str:
    """The name under which a run tells. Another run that gets the same id, once this one has ended or in
    another database, has another name: it begins at another time.
    """
    return f"{run.run_id}@{run.begun_at:.6f}"


class InMemoryDeltas:
    """For runs that are followed in the process that drives them: the database is written at steps alone.

    Args:
        max_deltas: How many are kept of each run.
        keep_seconds: For how long a run is kept that tells nothing more.
    """

    def __init__(self, *, max_deltas: int = 1000, keep_seconds: float = 300.0) -> None:
        self._max = max_deltas
        self._keep = keep_seconds
        self._mutex = threading.Lock()
        self._runs: dict[str, tuple[float, deque[Delta]]] = {}

    def publish(self, name: str, delta: Delta) -> None:
        """Keep it for those who read."""
        now = time.monotonic()
        with self._mutex:
            _, kept = self._runs.pop(name, (now, deque(maxlen=self._max)))
            kept.append(delta)
            self._runs[name] = (now, kept)  # the last one: those that say nothing come first
            while (oldest := next(iter(self._runs))) and self._runs[oldest][0] < now - self._keep:
                del self._runs[oldest]

    async def read(self, name: str, after: int, seconds: float) -> Sequence[Delta]:
        """What is kept, looked for often."""
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
