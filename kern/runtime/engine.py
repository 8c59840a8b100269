"""The turn loop: ask the model, carry out its tool calls, send it the results, until it answers.

The loop pushes events into the run's buffer and never yields to a caller. So the same code serves agents and
teams, nested and top-level runs, with and without streaming.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from kern._error_text import NOBODY_CANCELLED, error_text, is_failure, message_of
from kern._log import named
from kern.errors import CheckError, KernError, UsageLimitExceeded
from kern.messages import Message, ToolCall
from kern.run.events import RunContentCompletedEvent
from kern.run.output import AnyRunOutput, RunStatus, TeamRunOutput
from kern.runtime.files import loaded
from kern.runtime.identity import end_output
from kern.runtime.interrupted import closing_messages
from kern.runtime.model_request import ask
from kern.runtime.out import Answer, RetryAnswer
from kern.runtime.outcome import ToolOutcome
from kern.runtime.prompt_step import made_prompt
from kern.runtime.run_ends import StartedRuns, current_started_runs
from kern.runtime.run_events import announce, terminal_event
from kern.runtime.run_tree import Run
from kern.runtime.tool_calls import run_calls, tool_message

log: Final = named("kern")

YIELD_SECONDS = 0.005
"""How many seconds turns may take in a row before the run yields to the event loop."""


async def drive(run: Run) -> AnyRunOutput:
    """Drive a run until it ends or pauses.

    `run.output` is filled in however the run ends; the caller emits the terminal event. A run that was paused
    has messages already, and continues with the open tool calls of its last turn. A run that `cancel_run`
    stopped returns its output, with status CANCELLED.

    Raises:
        KernError: The run failed; the output has status ERROR.
        CancelledError: The task was cancelled; the output has status CANCELLED.
    """
    run.started_runs = StartedRuns(current_started_runs.get())
    token = current_started_runs.set(run.started_runs)
    run.cancel_token.enter()
    failure: BaseException | None = None
    try:
        await _answered(run)
    except BaseException as error:  # noqa: BLE001 - raised below
        failure = _failure_of(run, error)
    finally:
        current_started_runs.reset(token)
        # From here on a stop does not cancel the task any more, but the run still ends as CANCELLED.
        run.cancel_token.leave()
        if run.parent is not None:
            failure = await end_run(run, failure)
        _finish(run)
    if failure is not None:
        raise failure
    return run.output


async def _answered(run: Run) -> None:
    """Drive the run to its answer, or to a pause, and fill in the content of its output."""
    output = run.output
    answer = await _turns(run)
    if answer is None:
        output.status = RunStatus.paused
        return
    output.content, output.content_type, output.last_turn = answer.content, answer.content_type, None
    if answer.is_text:  # the content of a text answer is all the text that was shown
        spoken = run.out.spoken
        output.content = spoken.text or answer.content
        if (last_turn := spoken.last_turn) and last_turn != output.content:
            output.last_turn = last_turn
    run.answered = True
    if run.out.wants_events:
        run.out.event(RunContentCompletedEvent(run.source))
    if run.spec.after:
        _note(run)
        for step in run.spec.after:
            await step(run)
    output.status = RunStatus.completed


def _note(run: Run) -> None:
    """Copy the conversation so far into the output."""
    output = run.output
    output.input = run.input.value
    output.messages = own = []
    for message in run.messages:
        if not message.from_history:
            own.append(message)  # noqa: PERF401 - a comprehension is a call more, in each run
    if isinstance(output, TeamRunOutput):
        output.member_responses = [child.output for child in run.children]


def _finish(run: Run) -> None:
    output = run.output
    for child in run.paused.values():
        child.abandon()
    if not run.answered:
        output.content = None if run.spec.structured else run.out.words or None
        if output.status is not RunStatus.paused:
            run.messages += closing_messages(run)
    elif run.spec.structured:
        _drop_unfit_content(run)
    _note(run)
    own = run.progress.own_metrics
    own.duration = (own.duration or 0.0) + time.perf_counter() - run.started
    output.metrics = own
    output.requirements = [*run.requirements]
    if run.children:  # a copy: a run that is continued goes on counting from its own metrics
        output.metrics = replace(own, details={k: replace(v) for k, v in own.details.items()})
        for child in run.children:
            output.metrics.include(child.output.metrics)
            output.requirements += child.output.requirements


async def _turns(run: Run) -> Answer | None:
    """Take turns until there is an answer. Return None if the run pauses."""
    if _is_to_stop(run):  # before the first step
        raise asyncio.CancelledError
    run.cancel_token.clear_cancellations()
    if not run.messages:
        await _begin(run)
    while True:
        # A model and tools that never wait would block the event loop: no timeout could fire, and no other
        # run could progress. With a journal always yield, so that every replay takes the same steps.
        if run.tree.steps is not None or time.perf_counter() - run.last_yield > YIELD_SECONDS:
            await asyncio.sleep(0)
            run.last_yield = time.perf_counter()
        if _is_to_stop(run):  # a function or a model has swallowed the cancellation
            raise asyncio.CancelledError
        run.cancel_token.clear_cancellations()
        message = run.messages[-1]
        calls = [] if message.is_text else message.tool_calls
        if not calls:
            message = await ask(run, run.spec.model, run.messages)
            calls = []
            if not message.is_text:
                run.call_ids.ensure_unique_ids(message)
                calls = message.tool_calls
                if media := message.media:
                    run.output.add_media(media)
            run.messages.append(message)
            if calls and run.spec.tool_call_limit is not None:
                _check_limit(run, message)
            if run.tree.request.debug:
                run.debug("assistant: %s %s", message.content or "", calls or "")
        if calls:
            run.progress.has_called = True
            run.out.calls_begin()
            outcomes = await run_calls(run, calls)
            for outcome in outcomes:
                if outcome.pending:
                    ended = zip(calls, outcomes, strict=True)
                    run.progress.finished_calls = {c.id: done for c, done in ended if not done.pending}
                    return None
            run.progress.finished_calls.clear()
            answer = _add_results(run, calls, outcomes)
            if answer is not None:
                return answer
            continue
        if run.model_paused:
            continue
        review = run.spec.review
        if review is None or run.model_refused:  # asking again would only cost another refusal
            verdict: Answer | RetryAnswer = Answer(message.content or "")
        else:
            verdict = await review(run, message)
        if isinstance(verdict, Answer):
            run.out.answer(verdict)
            return verdict
        run.messages.append(Message("user", verdict.message, said=""))


async def _begin(run: Run) -> None:
    if run.spec.expand is not None:
        await run.expand()
    for step in run.spec.before:
        await step(run)
    if not _is_text_only(run.input.messages):
        run.input.messages = await loaded(run.input.messages)
    messages = await (run.spec.prompt(run) if run.tree.steps is None else made_prompt(run))
    run.messages = messages if _is_text_only(messages) else run.call_ids.apply(await loaded(messages))
    if run.tree.audience.follows:
        await run.out.wait_for_consumer()
    if run.tree.request.debug:
        for message in run.messages:
            if not message.from_history:
                run.debug("%s: %s", message.role, message.content)


def _is_text_only(messages: Sequence[Message]) -> bool:
    """Whether the messages are only texts, without files to read or call ids to make unique."""
    for message in messages:  # noqa: SIM110 - a generator costs more than the loop
        if message.role == "tool" or not message.is_text:
            return False
    return True


def _check_limit(run: Run, message: Message) -> None:
    """Check that a model that may not call any more tools has called none.

    Raises:
        UsageLimitExceeded: It has called one; none of the calls is carried out.
    """
    spec = run.spec
    if run.calls_used_up and any(call.name != spec.answer_tool for call in message.tool_calls):
        raise UsageLimitExceeded("tool calls (tool_call_limit)", spec.tool_call_limit or 0)


def _add_results(run: Run, calls: list[ToolCall], outcomes: list[ToolOutcome]) -> Answer | None:
    """Add the results of a turn's calls to the conversation and to what the run shows. Return the answer, if
    the calls end the run.
    """
    answering: list[ToolOutcome] = []
    stopped, streamed = False, True
    for call, outcome in zip(calls, outcomes, strict=True):
        run.messages.append(tool_message(run, call, outcome))
        if outcome.media:
            run.output.add_media(outcome.media)
        if outcome.show or (outcome.stop and not outcome.hidden):
            run.out.result(outcome.content, as_it_came=outcome.show)
        if outcome.answer is not None:
            answering.append(outcome)
        stopped = stopped or outcome.stop
        streamed = streamed and not outcome.not_streamed
    answer: Answer | None = None
    if len(answering) == 1:
        answer = answering[0].answer
    elif answering:
        answer = Answer("\n\n".join(outcome.content for outcome in answering))
    elif stopped:  # the results were added to the content above
        answer = Answer("")
    run.out.calls_ended(answer, streamed=streamed)
    return answer


async def drive_child(run: Run) -> AnyRunOutput:
    """Drive a team member's run, with its start event and its terminal event."""
    announce(run)
    try:
        output = await drive(run)
    except BaseException as error:
        if is_failure(error) or isinstance(error, asyncio.CancelledError):
            run.out.event(terminal_event(run, error))
        raise
    run.out.event(terminal_event(run, None))
    if run.tree.steps is not None:
        run.tree.steps.ended(run)
    return output


def _is_to_stop(run: Run) -> bool:
    """Whether the run was cancelled by its id or by its caller, has no time left, or lost its consumer."""
    tree, stopped = run.tree, run
    deadline = tree.runs[0].deadline
    late = deadline is not None and deadline.expired
    left = tree.audience.follows and tree.audience.consumer_left
    while not stopped.cancel_token.stopped and stopped.parent is not None:
        stopped = stopped.parent
    return stopped.cancel_token.stopped or tree.cancel_token.cut_short or late or left


def _failure_of(run: Run, error: BaseException) -> BaseException | None:
    """Return the error to raise, and note it in the output; None if `cancel_run` stopped the run."""
    failure = error
    if isinstance(error, asyncio.CancelledError):
        outside = run.cancel_token.cancelled_from_outside
        if outside or _is_to_stop(run):
            end_output(run.output, error)
            return error if outside or not run.cancel_token.stopped else None
        failure = KernError(f"CancelledError: {NOBODY_CANCELLED}")
    elif not is_failure(error):
        return error
    elif not isinstance(error, KernError):
        failure = KernError(error_text(error))
    if failure is not error:
        failure.__cause__ = error
    end_output(run.output, failure)
    if isinstance(error, CheckError):
        run.output.refused = "output" if run.messages else "input"
        run.out.refused = True
    return failure


async def end_run(run: Run, failure: BaseException | None) -> BaseException | None:
    """End the run: from here on `cancel_run` is too late. Return the error to raise.

    A run that was stopped before ends as CANCELLED, even if it has an answer or an error: `cancel_run` has
    promised that. Runs that its tools started go on only if this run completes or pauses.
    """
    output = run.output
    if run.cancel_token.seal() and not isinstance(failure, asyncio.CancelledError):
        if failure is not None:
            log.warning("run %s was cancelled, and failed at its end: %s", run.run_id, message_of(failure))
        if output.status is not RunStatus.cancelled:
            run.abandon()
            run.requirements.clear()
        end_output(output, asyncio.CancelledError())
        failure = None
    if run.started_runs is None:
        return failure
    if output.status in (RunStatus.completed, RunStatus.paused):
        run.started_runs.hand_over()
        return failure
    try:
        await run.started_runs.give_up()
    except asyncio.CancelledError as error:
        end_output(output, error)
        return error
    return failure


def _drop_unfit_content(run: Run) -> None:
    """Remove a content that does not fit the schema: only a completed run has one that does."""
    output = run.output
    declined = run.model_refused and isinstance(output.content, str)
    if declined or output.status is not RunStatus.completed:
        output.last_turn = output.content if declined else None
        output.content, output.content_type = None, "str"
