"""Who runs, as the events and the output of a run say it; how an output begins and ends."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from kern._error_text import message_of
from kern.models.base import Model
from kern.run.events import EventSource
from kern.run.output import AnyRunOutput, RunOutput, RunStatus, TeamRunOutput
from kern.runtime.request import RunInput, RunTerms


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


def source_of(terms: RunTerms, runner: Named, run_id: str, above: EventSource | None) -> EventSource:
    """What the events of a run say of it.

    Args:
        terms: What all runs of the request have in common.
        runner: Who runs.
        run_id: The run.
        above: The source of the run that delegated to it.
    """
    return EventSource(
        run_id=run_id,
        session_id=terms.session_id,
        parent_run_id=None if above is None else above.run_id,
        agent_id=None if runner.is_team else runner.id,
        agent_name=None if runner.is_team else runner.name,
        team_id=runner.id if runner.is_team else None,
        team_name=runner.name if runner.is_team else None,
        is_team=runner.is_team,
        nested_depth=0 if above is None else above.nested_depth + 1,
        path=(*(() if above is None else above.path), runner.label),
    )


def new_output(terms: RunTerms, source: EventSource, model: Model, input: RunInput) -> AnyRunOutput:
    """The output of a run that begins."""
    output: AnyRunOutput
    run_id, session_id = source.run_id, terms.session_id
    if source.is_team:
        output = TeamRunOutput(
            run_id=run_id, session_id=session_id, team_id=source.team_id, team_name=source.team_name
        )
    else:
        output = RunOutput(
            run_id=run_id, session_id=session_id, agent_id=source.agent_id, agent_name=source.agent_name
        )
    output.parent_run_id = source.parent_run_id
    output.user_id = terms.user_id
    output.input = input.value
    output.model, output.model_provider = model.id, model.provider
    output.metadata = terms.metadata
    output.status = RunStatus.running
    return output


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
