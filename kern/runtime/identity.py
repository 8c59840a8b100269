"""Who runs, as the events and the output of a run say it."""

from __future__ import annotations

from kern.run.events import EventSource
from kern.run.output import RunOutput, RunStatus, TeamRunOutput
from kern.runtime.request import RunInput
from kern.runtime.spec import RunnerSpec, RunRequest


def source_of(request: RunRequest, spec: RunnerSpec, run_id: str, above: EventSource | None) -> EventSource:
    """What the events of a run say of it.

    Args:
        above: The source of the run that delegated to it.
    """
    return EventSource(
        run_id=run_id,
        session_id=request.session_id,
        parent_run_id=None if above is None else above.run_id,
        agent_id=None if spec.is_team else spec.id,
        agent_name=None if spec.is_team else spec.name,
        team_id=spec.id if spec.is_team else None,
        team_name=spec.name if spec.is_team else None,
        is_team=spec.is_team,
        nested_depth=0 if above is None else above.nested_depth + 1,
        path=(*(() if above is None else above.path), spec.label),
    )


def new_output(
    request: RunRequest, spec: RunnerSpec, source: EventSource, input: RunInput
) -> RunOutput | TeamRunOutput:
    """The output of a run that begins."""
    output: RunOutput | TeamRunOutput
    if spec.is_team:
        output = TeamRunOutput(
            run_id=source.run_id, session_id=request.session_id, team_id=spec.id, team_name=spec.name
        )
    else:
        output = RunOutput(
            run_id=source.run_id, session_id=request.session_id, agent_id=spec.id, agent_name=spec.name
        )
    output.parent_run_id = source.parent_run_id
    output.user_id = request.user_id
    output.input = input.value
    output.model, output.model_provider = spec.model.id, spec.model.provider
    output.metadata = request.metadata
    output.status = RunStatus.running
    return output
