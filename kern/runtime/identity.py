"""The names of an agent or team in events and errors; the end of an output."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from kern._error_text import message_of
from kern.run.output import RunOutput, RunStatus, TeamRunOutput


@dataclass(slots=True, frozen=True, kw_only=True)
class Named:
    """An agent or a team, as events name it.

    Args:
        id: The id.
        name: The display name.
        is_team: Whether it is a team.
        unnamed: The id is random, so it is useless in an error.
    """

    id: str
    name: str | None
    is_team: bool
    unnamed: bool = False

    @property
    def label(self) -> str:
        """The name in paths and texts: the display name, or the id."""
        return self.name or self.id

    @property
    def title(self) -> str:
        """The name in errors: the label, or "the agent" or "the team" without a name."""
        if self.unnamed:
            return "the team" if self.is_team else "the agent"
        return self.label


def end_output(output: RunOutput | TeamRunOutput, error: BaseException) -> None:
    """Note in an output that its run was cancelled, or failed with `error`."""
    if isinstance(error, asyncio.CancelledError):
        output.status, output.error, output.error_type = RunStatus.cancelled, None, None
    else:
        output.status, output.error, output.error_type = (
            RunStatus.error,
            "\n".join([message_of(error), *getattr(error, "__notes__", ())]),
            type(error).__name__,
        )
