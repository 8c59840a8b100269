"""Who runs, as events and errors name it; how an output ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from kern._error_text import message_of
from kern.run.output import RunOutput, RunStatus, TeamRunOutput


@dataclass(slots=True, frozen=True, kw_only=True)
class Named:
    """An agent or a team, as events name it.

    Args:
        id: Its id.
        name: Its name, for people.
        is_team: Its events are a team's.
        unnamed: Its id is a random one, which tells a person nothing.
    """

    id: str
    name: str | None
    is_team: bool
    unnamed: bool = False

    @property
    def label(self) -> str:
        """How people and paths call it."""
        return self.name or self.id

    @property
    def title(self) -> str:
        """How errors call it."""
        if self.unnamed:
            return "the team" if self.is_team else "the agent"
        return self.label


def end_output(output: RunOutput | TeamRunOutput, error: BaseException) -> None:
    """Have an output say that its run has ended by `error`: was cancelled, or has failed."""
    if isinstance(error, asyncio.CancelledError):
        output.status, output.error, output.error_type = RunStatus.cancelled, None, None
    else:
        output.status, output.error, output.error_type = (
            RunStatus.error,
            message_of(error),
            type(error).__name__,
        )
