"""The end of the time that a run may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Final

from kern.errors import RunDeadlineExceeded

_ANY_TIME = nullcontext()


class Deadline:
    """The end of the time that a run may take, its wait for the session included.

    Args:
        seconds: From now on; None: any time.
    """

    __slots__ = ("_at", "_seconds", "_timeout")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._at = None if seconds is None else asyncio.get_running_loop().time() + seconds
        self._timeout: asyncio.Timeout | None = None

    def count(self, seconds: float) -> None:
        """Count time that the run took before, in another process."""
        if self._at is not None:
            self._at -= seconds

    @property
    def expired(self) -> bool:
        """It has passed, and has cancelled what was inside of it."""
        return self._timeout is not None and self._timeout.expired()

    def inside(self) -> AbstractAsyncContextManager[None]:
        """Inside the block, the deadline cancels the task.

        Raises:
            RunDeadlineExceeded: It has passed.
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
"""Any time."""
