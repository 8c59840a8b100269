"""The deadline of a run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Final

from kern.errors import RunDeadlineExceeded

_ANY_TIME = nullcontext()


class Deadline:
    """The deadline of a run, including its wait for the session.

    Args:
        seconds: How many seconds the run may take from now on; None: no limit.
    """

    __slots__ = ("_at", "_seconds", "_timeout")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._at = None if seconds is None else asyncio.get_running_loop().time() + seconds
        self._timeout: asyncio.Timeout | None = None

    def count(self, seconds: float) -> None:
        """Subtract seconds that the run took before, in another process."""
        if self._at is not None:
            self._at -= seconds

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed, and has cancelled the code inside."""
        return self._timeout is not None and self._timeout.expired()

    def inside(self) -> AbstractAsyncContextManager[None]:
        """Return a context manager in which the deadline cancels the task.

        Raises:
            RunDeadlineExceeded: The deadline has passed.
        """
        return _ANY_TIME if self._seconds is None else self._limited()

    @asynccontextmanager
    async def _limited(self) -> AsyncIterator[None]:
        self._timeout = timeout = asyncio.timeout_at(self._at)
        try:
            async with timeout:
                yield
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise RunDeadlineExceeded(
                f"the run took longer than its timeout of {self._seconds:g} s"
            ) from error


NO_DEADLINE: Final = Deadline(None)
"""No limit."""
