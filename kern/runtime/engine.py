"""The only turn loop: ask the model, carry out what it calls, tell it the results, until it has answered.

The loop pushes events into the run's buffer and never yields to a caller, so that streaming or not, agent or
team, nested or not, is all the same code.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from kern._error_text import error_text, is_failure, message_of
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
"""How long a run may keep the event loop, if none of its turns takes longer."""


async def drive(run: Run) -> AnyRunOutput:
    """Drive a run to its end, or to where it waits for a person.

    `run.output` is filled in however it ends; the terminal event is the caller's. A run whose messages are
    there already, because it was paused, goes on with the tool calls that its last turn left open. One that
    is stopped returns its output, with status CANCELLED.

    Raises:
        KernError: The run has failed; the output has status ERROR.
        CancelledError: It was cancelled; the output has status CANCELLED.
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
    output.content, output.content_type, output.last_turn = answer.content, answer.content_type, None
    if answer.is_text:  # of texts all that was shown
        spoken = run.out.spoken
        output.content = spoken.text or answer.content
        if (last_turn := spoken.last_turn) and last_turn != output.content:
            output.last_turn = last_turn
    run.answered = True
    if run.out.hears_events:
        run.out.event(RunContentCompletedEvent(run.source))
    if run.spec.after:
        _note(run)
        for step in run.spec.after:
            await step(run)
    output.status = RunStatus.completed


def _note(run: Run) -> None:
    """What was said and done so far, in the output."""
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
    if run.children:  # a copy: the next part of a paused run counts on from its own
        output.metrics = replace(own, details={k: replace(v) for k, v in own.details.items()})
        for child in run.children:
            output.metrics.include(child.output.metrics)
            output.requirements += child.output.requirements


async def _turns(run: Run) -> Answer | None:
    """Turn after turn until there is an answer; None if the run waits for a person."""
    _check_may_go_on(run)  # before anything is done
    if not run.messages:
        await _begin(run)
    while True:
        # A model and tools that never wait would keep the loop: no timeout could fire, and no other run go
        # on. With a journal always: a replay is to be the same each time.
        if run.tree.steps is not None or time.perf_counter() - run.last_yield > YIELD_SECONDS:
            await asyncio.sleep(0)
            run.last_yield = time.perf_counter()
        _check_may_go_on(run)
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
            answer = _tell_results(run, calls, outcomes)
            if answer is not None:
                return answer
            continue
        if run.model_paused:
            continue
        review = run.spec.review
        if review is None or run.model_refused:  # a refusal would only be repeated, and paid for again
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
    if not _words_alone(run.input.messages):
        run.input.messages = await loaded(run.input.messages)
    messages = await (run.spec.prompt(run) if run.tree.steps is None else made_prompt(run))
    run.messages = messages if _words_alone(messages) else run.call_ids.apply(await loaded(messages))
    if run.tree.audience.follows:
        await run.out.wait_for_consumer()
    if run.tree.request.debug:
        for message in run.messages:
            if not message.from_history:
                run.debug("%s: %s", message.role, message.content)


def _words_alone(messages: Sequence[Message]) -> bool:
    """Nothing but texts is in them: no files to be read, no calls to be named."""
    for message in messages:  # noqa: SIM110 - a generator costs more than the loop
        if message.role == "tool" or not message.is_text:
            return False
    return True


def _check_limit(run: Run, message: Message) -> None:
    """See that a model that was asked to call nothing has called nothing.

    Raises:
        UsageLimitExceeded: It has; nothing of that is carried out.
    """
    spec = run.spec
    if run.calls_used_up and any(call.name != spec.answer_tool for call in message.tool_calls):
        raise UsageLimitExceeded("tool calls (tool_call_limit)", spec.tool_call_limit or 0)


def _tell_results(run: Run, calls: list[ToolCall], outcomes: list[ToolOutcome]) -> Answer | None:
    """Tell the model, and those who hear the run, what the calls of a turn have come to; returns the answer
    that they have given, if they end the run.
    """
    answering: list[ToolOutcome] = []
    stopped, heard = False, True
    for call, outcome in zip(calls, outcomes, strict=True):
        run.messages.append(tool_message(run, call, outcome))
        if outcome.media:
            run.output.add_media(outcome.media)
        if outcome.show or outcome.stop:
            run.out.result(outcome.content, as_it_came=outcome.show)
        if outcome.answer is not None:
            answering.append(outcome)
        stopped = stopped or outcome.stop
        heard = heard and not outcome.not_streamed
    answer: Answer | None = None
    if len(answering) == 1:
        answer = answering[0].answer
    elif answering:
        answer = Answer("\n\n".join(outcome.content for outcome in answering))
    elif stopped:  # their results are content
        answer = Answer("")
    run.out.calls_ended(answer, heard=heard)
    return answer


async def drive_child(run: Run) -> AnyRunOutput:
    """Drive a member's run, with its start and its terminal event."""
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


def _check_may_go_on(run: Run) -> None:
    """See that the run may go on, between two turns.

    Raises:
        CancelledError: It may not: a function or a model has swallowed the cancellation that said so.
    """
    tree, stopped = run.tree, run
    deadline = tree.runs[0].deadline
    late = deadline is not None and deadline.expired
    left = tree.audience.follows and tree.audience.gone
    while not stopped.cancel_token.stopped and stopped.parent is not None:
        stopped = stopped.parent
    if stopped.cancel_token.stopped or tree.cancel_token.cut_short or late or left:
        raise asyncio.CancelledError
    run.cancel_token.go_on()


def _failure_of(run: Run, error: BaseException) -> BaseException | None:
    """What has ended the run, as it is raised, and as its output says it; None for a stop of its own."""
    if isinstance(error, asyncio.CancelledError):
        end_output(run.output, error)
        return error if run.cancel_token.cancelled_from_outside or not run.cancel_token.stopped else None
    if not is_failure(error):
        return error
    failure = error if isinstance(error, KernError) else KernError(error_text(error))
    if failure is not error:
        failure.__cause__ = error
    end_output(run.output, failure)
    if isinstance(error, CheckError):
        run.output.refused = "output" if run.messages else "input"
        run.out.refused = True
    return failure


async def end_run(run: Run, failure: BaseException | None) -> BaseException | None:
    """The run ends, and cannot be stopped any more; returns what is raised.

    One that was stopped before ends as a cancelled one, whatever else it has come to: `cancel_run` has said
    so. What its tools have started goes on only after an end that is none of these.
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
    """With a schema the content is a value that fits, of a run that is completed; or nothing."""
    output = run.output
    declined = run.model_refused and isinstance(output.content, str)
    if declined or output.status is not RunStatus.completed:
        output.last_turn = output.content if declined else None
        output.content, output.content_type = None, "str"
