"""A stored session as programs see it: name, owner, state, and its runs on demand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic

from kern.db.base import SessionRow
from kern.run.context import StateT
from kern.run.output import AnyRunOutput
from kern.runtime.portal import portal

Output = AnyRunOutput


class Session(Generic[StateT]):
    """A snapshot of a session. Changing it does not change what is stored.

    Attributes:
        session_id: The session's id.
        user_id: The owner; None if there is none.
        name: The display name (`set_session_name`).
        summary: A summary of the conversation (`enable_session_summaries`).
        revision: The number of commits to the state, as in `session_state_history`.
        created_at, updated_at: When the session was first and last written, in seconds since the epoch.
    """

    __slots__ = (
        "_made",
        "_make",
        "_runs",
        "created_at",
        "name",
        "revision",
        "session_id",
        "summary",
        "updated_at",
        "user_id",
    )

    session_id: str
    user_id: str | None
    name: str | None
    summary: str | None
    revision: int
    created_at: float
    updated_at: float

    def __init__(
        self,
        row: SessionRow,
        state: Callable[[], StateT],
        runs: Callable[[int | None], Awaitable[list[Output]]],
    ) -> None:
        self.session_id = row.session_id
        self.user_id = row.user_id
        self.name = row.name
        self.summary = row.summary
        self.revision = row.revision
        self.created_at = row.created_at
        self.updated_at = row.updated_at
        self._make = state
        self._made: tuple[StateT] | None = None
        self._runs = runs

    @property
    def state(self) -> StateT:
        """The last committed state: a dict, or an instance of the declared model.

        Raises:
            StoreError: The stored state cannot be read.
            InvalidStateError: The stored state does not fit the declared type.
        """
        if self._made is None:
            self._made = (self._make(),)
        return self._made[0]

    async def aruns(self, limit: int | None = None) -> list[Output]:
        """Read the newest `limit` runs of the session (None: all) from the database, oldest first.

        Runs of team members are not included. Runs that cannot be read are logged and left out.
        """
        return await self._runs(limit)

    def runs(self, limit: int | None = None) -> list[Output]:
        """See `aruns`."""
        return portal.call(lambda: self._runs(limit))

    def __repr__(self) -> str:
        shown = {"session_id": self.session_id, "user_id": self.user_id, "name": self.name}
        fields = ", ".join(f"{name}={value!r}" for name, value in shown.items() if value is not None)
        return f"Session({fields})"
