"""The only turn loop: ask the model, carry out what it calls, tell it the results, until it has answered.

The loop pushes events into the run's buffer and never yields to a caller, so that streaming or not, agent or
team, nested or not, is all the same code.
"""

from __future__ import annotations

import asyncio
import time

from kern.errors import KernError, ModelError
from kern.models.base import ModelRequest, ModelResponse
from kern.run.events import (
    ModelRequestCompletedEvent,
    ModelRequestStartedEvent,
    RunCancelledEvent,
    RunCompletedEvent,
    RunContentCompletedEvent,
    RunErrorEvent,
    RunStartedEvent,
)
from kern.run.output import RunOutput, RunStatus, TeamRunOutput
from kern.runtime.run import Run, RunSink
from kern.runtime.toolrun import run_calls, tool_message


async def drive(run: Run) -> RunOutput | TeamRunOutput:
    """Drive a run to its end. `run.output` is filled in however it ends; the terminal event is the caller's.

    Raises:
        KernError: The run has failed; the output has status ERROR.
        CancelledError: It was cancelled; the output has status CANCELLED.
    """
    output = run.output
    try:
        await _turns(run)
        output.status = RunStatus.completed
    except asyncio.CancelledError:
        output.status = RunStatus.cancelled
        raise
    except Exception as error:
        failure = error if isinstance(error, KernError) else KernError(f"{type(error).__name__}: {error}")
        output.status = RunStatus.error
        output.error = str(failure)
        output.error_type = type(failure).__name__
        if failure is error:
            raise
        raise failure from error
    finally:
        _finish(run)
    return output


def _finish(run: Run) -> None:
    output = run.output
    output.metrics.duration = run.elapsed
    output.messages = [message for message in run.messages if not message.from_history]
    for child in run.children:
        output.metrics.include(child.output.metrics)
    if isinstance(output, TeamRunOutput):
        output.member_responses = [child.output for child in run.children]


async def _turns(run: Run) -> None:
    run.messages = await run.spec.prompt(run)
    await run.breathe()
    for message in run.messages:
        if not message.from_history:
            run.debug("%s: %s", message.role, message.content)
    while True:
        response = await _ask(run)
        message = response.message
        run.messages.append(message)
        run.debug("assistant: %s %s", message.content or "", message.tool_calls or "")
        if not message.tool_calls:
            run.output.content = message.content or ""
            break
        outcomes = await run_calls(run, message.tool_calls)
        for call, outcome in zip(message.tool_calls, outcomes, strict=True):
            run.messages.append(tool_message(call, outcome))
        if any(outcome.stop for outcome in outcomes):
            run.output.content = "\n".join(outcome.content for outcome in outcomes if outcome.stop)
            break
    run.emit(RunContentCompletedEvent(run.source))


async def _ask(run: Run) -> ModelResponse:
    """One request to the model."""
    spec, output = run.spec, run.output
    request = ModelRequest(
        messages=run.messages,
        tools=[tool.definition for tool in spec.tools.values()],
        tool_choice=spec.tool_choice,
        stream=run.hears_content,
    )
    run.emit(ModelRequestStartedEvent(run.source, spec.model.id, spec.model.provider))
    sink = RunSink(run)
    try:
        response = await spec.model.respond(request, sink)
    except KernError:
        raise
    except Exception as error:
        raise ModelError(
            f"{type(error).__name__}: {error}", provider=spec.model.provider, model=spec.model.id
        ) from error
    message = response.message
    message.usage = response.usage
    message.created_at = int(time.time())
    output.metrics.count(f"{spec.model.provider}/{spec.model.id}", response.usage)
    if message.reasoning_content:
        output.reasoning_content = message.reasoning_content
    if output.metrics.time_to_first_token is None and sink.first_token_after is not None:
        output.metrics.time_to_first_token = sink.started - run.started + sink.first_token_after
    if run.hears_all:
        run.emit(
            ModelRequestCompletedEvent(
                run.source,
                spec.model.id,
                spec.model.provider,
                response.usage.to_dict(),
                sink.first_token_after,
            )
        )
    await run.breathe()
    return response


async def drive_child(run: Run) -> RunOutput | TeamRunOutput:
    """Drive a member's run, with its start and its terminal event."""
    announce(run)
    try:
        output = await drive(run)
    except BaseException as error:
        run.emit(terminal_event(run, error))
        raise
    run.emit(terminal_event(run, None))
    return output


def announce(run: Run, state: dict[str, object] | None = None, revision: int | None = None) -> None:
    """Tell that a run starts."""
    run.emit(RunStartedEvent(run.source, run.spec.model.id, run.spec.model.provider, state, revision))


def terminal_event(
    run: Run, error: BaseException | None
) -> RunCompletedEvent | RunCancelledEvent | RunErrorEvent:
    """The one event that ends a run's events; a top-level run is committed first."""
    output = run.output
    if output.status is RunStatus.completed and error is None:
        return RunCompletedEvent(run.source, output.content, output.content_type, output.metrics.to_dict())
    if output.status is RunStatus.cancelled:
        return RunCancelledEvent(run.source)
    return RunErrorEvent(run.source, output.error or str(error), output.error_type or type(error).__name__)
