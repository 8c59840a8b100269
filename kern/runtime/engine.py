"""The only turn loop: ask the model, carry out what it calls, tell it the results, until it has answered.

The loop pushes events into the run's buffer and never yields to a caller, so that streaming or not, agent or
team, nested or not, is all the same code.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from kern._error_text import error_text, message_of
from kern._json import jsonable
from kern._log import named
from kern.errors import (
    KernError,
    ModelBehaviorError,
    ModelError,
    ModelIncompleteError,
    ModelRateLimitError,
    ModelServerError,
    ModelStatusError,
    UsageLimitExceeded,
)
from kern.messages import Message
from kern.models.base import Model, ModelRequest, ResponseFormat
from kern.run.events import (
    ModelRequestCompletedEvent,
    ModelRequestStartedEvent,
    ModelRetryEvent,
    RunCancelledEvent,
    RunCompletedEvent,
    RunContentCompletedEvent,
    RunContinuedEvent,
    RunErrorEvent,
    RunPausedEvent,
    RunStartedEvent,
)
from kern.run.output import AnyRunOutput, RunStatus, TeamRunOutput
from kern.runtime.files import loaded
from kern.runtime.interrupted import closing_messages
from kern.runtime.outcome import Answer, RetryAnswer, ToolOutcome
from kern.runtime.run_end import check_may_go_on, drop_unfit_content, end_run, failure_of, yield_to_loop
from kern.runtime.run_tree import Run, RunnableTool, SinkFactory
from kern.runtime.sink import AnswerSink, RunSink
from kern.runtime.started_runs import StartedRuns, current_started_runs
from kern.runtime.tool_calls import run_calls, tool_message
from kern.usage import Usage

log: Final = named("kern")


async def drive(run: Run) -> AnyRunOutput:
    """Drive a run to its end, or to where it waits for a person.

    `run.output` is filled in however it ends; the terminal event is the caller's. A run whose messages are
    there already, because it was paused, goes on with the tool calls that its last turn left open. One that
    is stopped returns its output, with status CANCELLED.

    Raises:
        KernError: The run has failed; the output has status ERROR.
        CancelledError: It was cancelled; the output has status CANCELLED.
    """
    run.started_runs = StartedRuns(current_started_runs())
    run.cancel_token.enter()
    failure: BaseException | None = None
    try:
        with run.started_runs:
            await _answered(run)
    except BaseException as error:  # noqa: BLE001 - raised below
        failure = failure_of(run, error)
    finally:
        # From here on the task is the caller's again. A run that was stopped ends as such, even so.
        run.cancel_token.leave()
        if run.parent is not None:
            failure = await end_run(run, failure)
        _finish(run)
    if failure is not None:
        raise failure
    return run.output


async def _answered(run: Run) -> None:
    """Bring the run to its answer, or to where it waits for a person."""
    output = run.output
    answer = await _turns(run)
    if answer is None:
        output.status = RunStatus.paused
        return
    _answer(run, answer)
    run.out.event(RunContentCompletedEvent(run.source))
    _note(run)
    for step in run.spec.after:
        await step(run)
    output.status = RunStatus.completed


def _note(run: Run) -> None:
    """What was said and done so far, in the output."""
    output = run.output
    output.input = run.input.value
    output.messages = [message for message in run.messages if not message.from_history]
    if isinstance(output, TeamRunOutput):
        output.member_responses = [child.output for child in run.children]


def _answer(run: Run, answer: Answer) -> None:
    """Put the answer into the output: of texts all that was shown, or the structured value."""
    output, out = run.output, run.out
    output.content, output.content_type, output.last_turn = answer.content, answer.content_type, None
    if answer.is_text:
        output.content = out.said or answer.content
        if out.last_turn and out.last_turn != output.content:
            output.last_turn = out.last_turn
    run.answered = True


def _finish(run: Run) -> None:
    output = run.output
    for child in run.paused.values():
        child.abandon()
    if not run.answered:
        output.content = None if run.spec.structured else run.out.words or None
        if output.status is not RunStatus.paused:
            run.messages += closing_messages(run)
    elif run.spec.structured:
        drop_unfit_content(run)
    _note(run)
    own = run.progress.own_metrics
    own.duration = (own.duration or 0.0) + run.elapsed
    output.metrics = own
    if run.children:  # a copy: the next part of a paused run counts on from its own
        output.metrics = replace(own, details={k: replace(v) for k, v in own.details.items()})
        for child in run.children:
            output.metrics.include(child.output.metrics)
    output.requirements = [
        *run.requirements,
        *(r for child in run.children for r in child.output.requirements),
    ]


async def _turns(run: Run) -> Answer | None:
    """Turn after turn until there is an answer; None if the run waits for a person."""
    check_may_go_on(run)  # before anything is done
    if not run.messages:
        await _begin(run)
    while True:
        await yield_to_loop(run)
        check_may_go_on(run)
        message = run.messages[-1]
        calls = message.tool_calls
        if not calls:
            message = await ask(run, run.spec.model, run.messages)
            run.call_ids.ensure_unique_ids(message)
            if message.images or message.audio:
                run.output.add_media([*message.images, *message.audio])
            run.messages.append(message)
            _check_limit(run, message)
            run.debug("assistant: %s %s", message.content or "", message.tool_calls or "")
            calls = message.tool_calls
        if calls:
            run.progress.has_called = True
            run.out.calls_begin()
            outcomes = await run_calls(run, calls)
            if any(outcome.pending for outcome in outcomes):
                ended = zip(calls, outcomes, strict=True)
                run.progress.finished_calls = {c.id: done for c, done in ended if not done.pending}
                return None
            run.progress.finished_calls.clear()
            for call, outcome in zip(calls, outcomes, strict=True):
                run.messages.append(tool_message(call, outcome))
                run.output.add_media(outcome.media)
                run.out.result(outcome)
            answer = _answer_of(outcomes)
            run.out.calls_ended(answer, heard=not any(outcome.not_streamed for outcome in outcomes))
            if answer is not None:
                return answer
            continue
        verdict = await _verdict(run, message)
        if isinstance(verdict, Answer):
            run.out.answer(verdict)
            return verdict
        run.messages.append(Message("user", verdict.message, said=""))


async def _verdict(run: Run, message: Message) -> Answer | RetryAnswer:
    """Whether the model's text is the answer. A refusal is: it would only be repeated, and paid for again."""
    if run.spec.review is None or run.model_refused:
        return Answer(message.content or "")
    return await run.spec.review(run, message)


async def _begin(run: Run) -> None:
    await run.expand()
    for step in run.spec.before:
        await step(run)
    run.input.messages = await loaded(run.input.messages)
    run.messages = run.call_ids.apply(await loaded(await run.spec.prompt(run)))
    await run.out.wait_for_consumer()
    for message in run.messages:
        if not message.from_history:
            run.debug("%s: %s", message.role, message.content)


def _check_limit(run: Run, message: Message) -> None:
    """See that a model that was asked to call nothing has called nothing.

    Raises:
        UsageLimitExceeded: It has; nothing of that is carried out.
    """
    spec = run.spec
    if run.calls_used_up and any(call.name != spec.answer_tool for call in message.tool_calls):
        raise UsageLimitExceeded("tool calls (tool_call_limit)", spec.tool_call_limit or 0)


def _answer_of(outcomes: list[ToolOutcome]) -> Answer | None:
    """The answer that tool calls have given, if they end the run."""
    answers = [outcome.answer for outcome in outcomes if outcome.answer is not None]
    if len(answers) == 1:
        return answers[0]
    if answers:
        return Answer("\n\n".join(outcome.content for outcome in outcomes if outcome.answer is not None))
    return Answer("") if any(outcome.stop for outcome in outcomes) else None  # their results are content


async def ask(
    run: Run,
    model: Model,
    messages: Sequence[Message],
    *,
    tools: Mapping[str, RunnableTool] | None = None,
    response_format: ResponseFormat | None = None,
    sink: SinkFactory | None = None,
) -> Message:
    """Ask `model`, as often as the run's retries allow, then the run's fallback models; returns the answer.

    Every request is counted and told.

    Args:
        tools, response_format, sink: Instead of the run's own; with tools goes the format.
    """
    retries = run.spec.retries
    chosen = run.spec.tools if tools is None else tools
    failure: ModelError | ModelBehaviorError | None = None
    failed = 0
    for asked, again in [(model, retries.count), *((other, 0) for other in retries.fallbacks)]:
        for attempt in range(again + 1):
            if failure is not None:
                await _before_another(run, failure, failed + 1, retries.wait(attempt))
            made = sink or run.spec.sink
            deltas = AnswerSink(run.out) if made is None else made(run)
            deltas.model = asked
            choice = _choice(run) if chosen else None
            offered = chosen if choice != "none" or asked.has_choice_none else {}
            request = ModelRequest(
                messages=messages,
                tools=[tool.definition for tool in offered.values()],
                tool_choice=choice if offered else None,
                response_format=run.spec.response_format if tools is None else response_format,
                stream=deltas.streams,
            )
            try:
                return await _request(run, asked, request, deltas)
            except (ModelError, ModelBehaviorError) as error:
                failure = error
                failed += 1
                if not _may_pass(error):
                    break
    raise failure or AssertionError("unreachable")


def _choice(run: Run) -> str | dict[str, Any] | None:
    """The `tool_choice` of the next request.

    A choice that forces a call holds for the first turn that calls, or the run would never answer; and once
    `tool_call_limit` is used up nothing more may be called, or the model would try for ever.
    """
    spec = run.spec
    if run.calls_used_up:
        return "none" if spec.answer_tool is None else {"name": spec.answer_tool}
    if run.progress.has_called and spec.tool_choice not in (None, "none"):
        return "auto"
    return spec.tool_choice


async def _before_another(run: Run, failure: KernError, attempt: int, delay: float) -> None:
    """A request has failed and is made again: what was streamed of the turn is void."""
    if not run.out.take_back():
        raise failure
    run.out.event(ModelRetryEvent(run.source, message_of(failure), attempt, delay))
    log.warning("run %s: %s; the request is made again in %g s", run.run_id, message_of(failure), delay)
    await asyncio.sleep(delay)


def _may_pass(error: KernError) -> bool:
    """The same request may succeed later."""
    if isinstance(error, ModelIncompleteError | ModelBehaviorError):
        return False
    return not isinstance(error, ModelStatusError) or isinstance(
        error, ModelRateLimitError | ModelServerError
    )


async def _request(run: Run, model: Model, request: ModelRequest, deltas: RunSink) -> Message:
    """One request to a model, counted and told; returns its message."""
    output = run.output
    if run.spec.max_requests is not None and run.progress.requests >= run.spec.max_requests:
        raise UsageLimitExceeded("requests of one run (max_requests)", run.spec.max_requests)
    run.tree.ledger.reserve_request()
    run.progress.requests += 1
    run.out.event(ModelRequestStartedEvent(run.source, model.id, model.provider))
    run.out.begin_turn()
    if verbose := run.tree.request.debug > 1:  # what is to be shown costs something
        offered = {tool.name: tool.parameters for tool in request.tools}
        run.debug("asks %s, with the tools %s", model, offered, level=2)
    try:
        response = await model.respond(request, deltas)
    except ModelIncompleteError as error:
        if error.usage is not None:
            _count(run, model, error.usage)
        deltas.cut(error.content)
        raise
    except KernError:
        raise
    except Exception as error:
        raise ModelError(error_text(error), provider=model.provider, model=model.id) from error
    finally:
        deltas.close()
    message = response.message
    deltas.ended(message)
    _count(run, model, response.usage)
    run.model_refused = response.finish_reason == "refusal"
    if verbose:
        run.debug("used %s", response.usage.to_dict(), level=2)
    message.usage = response.usage
    message.created_at = int(time.time())
    output.model, output.model_provider = model.id, model.provider
    if message.reasoning_content:
        output.reasoning_content = message.reasoning_content
    out = run.out
    if run.progress.own_metrics.time_to_first_token is None and out.first_text_after is not None:
        run.progress.own_metrics.time_to_first_token = out.turn_began - run.started + out.first_text_after
    if run.out.hears_events:
        run.out.event(
            ModelRequestCompletedEvent(
                run.source, model.id, model.provider, response.usage.to_dict(), out.first_text_after
            )
        )
    await run.out.wait_for_consumer()
    return message


def _count(run: Run, model: Model, usage: Usage) -> None:
    run.tree.ledger.count(usage)
    run.progress.own_metrics.count(f"{model.provider}/{model.id}", usage)


async def drive_child(run: Run) -> AnyRunOutput:
    """Drive a member's run, with its start and its terminal event."""
    announce(run)
    try:
        output = await drive(run)
    except BaseException as error:
        run.out.event(terminal_event(run, error))
        raise
    run.out.event(terminal_event(run, None))
    return output


def announce(run: Run, state: dict[str, object] | None = None, revision: int | None = None) -> None:
    """Tell that a run starts, or goes on after a pause."""
    if run.messages:
        run.out.event(RunContinuedEvent(run.source, state, revision))
        return
    run.out.event(RunStartedEvent(run.source, run.spec.model.id, run.spec.model.provider, state, revision))


def terminal_event(
    run: Run, error: BaseException | None
) -> RunCompletedEvent | RunPausedEvent | RunCancelledEvent | RunErrorEvent:
    """The one event that ends a run's events; a top-level run is committed first."""
    output = run.output
    if output.status is RunStatus.completed:  # a cancellation that came during its commit comes too late
        return RunCompletedEvent(
            run.source,
            output.content,
            output.content_type,
            output.metrics.to_dict(),
            output.session_state,
            jsonable(output.metadata) or None,
        )
    if output.status is RunStatus.paused and error is None:
        return RunPausedEvent(run.source, output.requirements)
    if output.status is RunStatus.cancelled:
        return RunCancelledEvent(run.source, "by cancel_run" if run.cancel_token.stopped else None)
    text = output.error or ("" if error is None else message_of(error))
    return RunErrorEvent(run.source, text, output.error_type or type(error).__name__)
