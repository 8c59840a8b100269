"""How a run goes on from turn to turn, and ends: by an answer, an error, a cancellation or `cancel_run`."""

from __future__ import annotations

import asyncio
import time

from kern._error_text import error_text, is_failure, message_of
from kern.errors import CheckError, KernError
from kern.run.output import RunStatus
from kern.runtime.identity import end_output
from kern.runtime.run_tree import Run, log

YIELD_SECONDS = 0.005
"""How long a run may keep the event loop, if none of its turns takes longer."""


async def yield_to_loop(run: Run) -> None:
    """Let others have a turn of the event loop, between two of the run's, if it was long ago.

    A model and tools that never wait would keep the loop: no timeout could fire, and no other run go on.
    """
    # With a journal always: a replay is to be the same each time.
    if run.tree.steps is not None or time.perf_counter() - run.last_yield > YIELD_SECONDS:
        await asyncio.sleep(0)
        run.last_yield = time.perf_counter()


def check_may_go_on(run: Run) -> None:
    """See that the run may go on, between two turns.

    Raises:
        CancelledError: It may not: a function or a model has swallowed the cancellation that said so.
    """
    tree, stopped = run.tree, run
    deadline = tree.runs[0].deadline
    late = deadline is not None and deadline.expired
    left = tree.audience.gone
    while not stopped.cancel_token.stopped and stopped.parent is not None:
        stopped = stopped.parent
    if stopped.cancel_token.stopped or tree.cancel_token.cut_short or late or left:
        raise asyncio.CancelledError
    run.cancel_token.go_on()


def failure_of(run: Run, error: BaseException) -> BaseException | None:
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


def drop_unfit_content(run: Run) -> None:
    """With a schema the content is a value that fits, of a run that is completed; or nothing."""
    output = run.output
    declined = run.model_refused and isinstance(output.content, str)
    if declined or output.status is not RunStatus.completed:
        output.last_turn = output.content if declined else None
        output.content, output.content_type = None, "str"
