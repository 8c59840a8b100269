"""A request to a model: with retries and fallback models, usage counts and events."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

from kern._error_text import error_text, message_of
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
from kern.models.base import Model, ModelRequest, ModelResponse, ResponseFormat, answered
from kern.models.prices import LISTED, cost_of, expected_cost, is_bounded, is_to_load
from kern.models.prices import load as load_prices
from kern.run.events import ModelRequestCompletedEvent, ModelRequestStartedEvent, ModelRetryEvent
from kern.runtime.model_step import ModelStep
from kern.runtime.run_tree import Run, RunnableTool, SinkFactory
from kern.runtime.sink import AnswerSink, RunSink
from kern.tools.server_tool import check_server_tools
from kern.usage import CUT_OFF, Usage

log: Final = named("kern")

_definition: Final = attrgetter("definition")


async def ask(
    run: Run,
    model: Model,
    messages: Sequence[Message],
    *,
    tools: Mapping[str, RunnableTool] | None = None,
    response_format: ResponseFormat | None = None,
    sink: SinkFactory | None = None,
) -> Message:
    """Ask `model`, as often as the run's retries allow, and then the run's fallback models.

    Args:
        tools, response_format, sink: In place of the run's own. `response_format` is used only with `tools`.

    Returns:
        The answer.

    Raises:
        ModelError: The last request failed.
        ModelBehaviorError: The last answer is unusable.
        UsageLimitExceeded: The request would exceed a limit.
    """
    retries = run.spec.retries
    chosen = run.spec.tools if tools is None else tools
    by_provider = run.spec.server_tools if tools is None else ()
    failure: ModelError | ModelBehaviorError | None = None
    failed, again = 0, retries.count
    gone: list[str] = []
    for asked in (model, *retries.fallbacks):
        for attempt in range(again + 1):
            if failure is not None:
                instead = None if attempt else asked
                await _before_another(run, failure, failed + 1, retries.wait(attempt), instead, gone)
            made = sink or run.spec.sink
            deltas = AnswerSink(run.out) if made is None else made(run)
            deltas.model = asked
            choice = _choice(run) if chosen or by_provider else None
            may_call = choice != "none" or asked.has_choice_none
            request = ModelRequest(
                messages=messages,
                tools=list(map(_definition, chosen.values())) if chosen and may_call else [],
                tool_choice=choice if may_call else None,
                response_format=run.spec.response_format if tools is None else response_format,
                stream=deltas.streams,
                server_tools=by_provider if may_call else (),
            )
            try:
                if by_provider:
                    check_server_tools(by_provider, asked.server_tool_api, asked)
                return await _request(run, asked, request, deltas)
            except KernError as error:
                _note(error, gone)
                if not isinstance(error, ModelError | ModelBehaviorError):
                    raise
                failure = error
                failed += 1
                if not _may_pass(error):
                    break
        again = 0  # each fallback model is asked once
    raise failure or AssertionError("unreachable")


def _choice(run: Run) -> str | dict[str, Any] | None:
    """Return the `tool_choice` of the next request.

    A choice that forces a call applies until a turn has called a tool, or the run would never answer. When
    `tool_call_limit` is reached, tools are switched off, or the model would try to call them for ever.
    """
    spec = run.spec
    if spec.tool_call_limit is not None and run.calls_used_up:
        return "none" if spec.answer_tool is None else {"name": spec.answer_tool}
    if run.progress.has_called and spec.tool_choice not in (None, "none"):
        return "auto"
    return spec.tool_choice


def _note(error: KernError, gone: Sequence[str]) -> None:
    """Note on an error of a fallback model why the models before it could not answer."""
    for note in gone:
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)


async def _before_another(
    run: Run, failure: KernError, attempt: int, delay: float, instead: Model | None, gone: list[str]
) -> None:
    """Prepare another attempt after a failed request: what was streamed of the turn is void.

    Args:
        run, failure, attempt: Of the failed request.
        delay: How many seconds to wait.
        instead: The fallback model that is asked now; None: the same model is asked again.
        gone: Receives why the model before a fallback model could not answer.

    Raises:
        KernError: The failure, if the consumer has read a part of the text and gets no event that voids it.
    """
    if instead is not None:
        gone.append(f"before that, {error_text(failure)}")
    if not run.out.take_back():
        raise failure
    run.out.event(ModelRetryEvent(run.source, message_of(failure), attempt, delay))
    if instead is None:
        log.warning("run %s: %s; retrying the request in %g s", run.run_id, message_of(failure), delay)
    else:
        log.warning("run %s: %s; asking %s instead", run.run_id, message_of(failure), instead)
    await asyncio.sleep(delay)


def _may_pass(error: KernError) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, ModelIncompleteError | ModelBehaviorError):
        return False
    return not isinstance(error, ModelStatusError) or isinstance(
        error, ModelRateLimitError | ModelServerError
    )


async def _request(run: Run, model: Model, request: ModelRequest, deltas: RunSink) -> Message:
    """Make one request to a model, with its counts and events. Return the message of its answer."""
    ledger, steps = run.tree.ledger, run.tree.steps
    if model.provider in LISTED and is_to_load(model):
        await asyncio.to_thread(load_prices)
    step = None if steps is None else ModelStep(run, steps, request)
    expected = await _reserve(run, model, request, step)
    failed, limited = False, ledger is not None and (step is None or not step.on_record)
    deltas.on_discarded = discarded = _Discarded(run, model, expected, step) if limited else None
    run.progress.requests += 1
    if run.out.wants_events:
        run.out.event(ModelRequestStartedEvent(run.source, model.id, model.provider))
    run.out.begin_turn()
    if verbose := run.tree.request.debug > 1:  # collecting the tools takes time
        offered = {tool.name: tool.parameters for tool in request.tools}
        run.debug("asks %s, with the tools %s", model, offered, level=2)
    try:
        response = await (answered(model, request, deltas) if step is None else step.respond(model, deltas))
    except asyncio.CancelledError:
        if step is None or not step.on_record:  # what was sent, the provider may answer, and bill
            _count(run, model, Usage(requests=1, billed={CUT_OFF: 1}), expected, step)
        raise
    except (ModelError, ModelBehaviorError) as error:
        failed = error.usage is None
        if error.usage is not None:
            _count(run, model, error.usage, expected, step, wrote=_is_begun(error))
        if isinstance(error, ModelIncompleteError):
            deltas.cut(error.content)
        raise
    else:
        _count(run, model, response.usage, expected, step, response=response)
    finally:
        if discarded is None:  # else each was counted before the next attempt
            for number, usage in enumerate(deltas.thrown_away):
                _count(run, model, usage, expected, step, f"thrown away {number}")
        if ledger is not None:
            ledger.end_request(expected, failed=failed)
        deltas.close()
    deltas.ended(response.message)
    if verbose:
        run.debug("used %s", response.usage.to_dict(), level=2)
    _take_in(run, model, response)
    if run.out.wants_events:
        if not request.stream:
            deltas.put_parts(response.message)
        run.out.event(
            ModelRequestCompletedEvent(
                run.source,
                run.output.model,
                model.provider,
                response.usage.to_dict(),
                run.out.first_text_after,
                response.response_id,
            )
        )
    if step is not None:
        await step.keep(response)
    if run.tree.audience.follows:
        await run.out.wait_for_consumer()
    return response.message


class _Discarded:
    """Counts answers that are discarded, each before its request is retried: the limits hold for retries.

    Args:
        run, model, expected, step: Of the request; see `_count`.
    """

    def __init__(self, run: Run, model: Model, expected: float, step: ModelStep | None) -> None:
        self._run = run
        self._model = model
        self._expected = expected
        self._step = step
        self._number = 0

    def __call__(self, usage: Usage) -> None:
        """Count the usage of a discarded answer.

        Raises:
            UsageLimitExceeded: Another attempt would exceed a limit.
        """
        what = f"thrown away {self._number}"
        self._number += 1
        _count(self._run, self._model, usage, self._expected, self._step, what)
        if self._run.tree.ledger is not None:
            self._run.tree.ledger.reserve_again(self._expected)


def _is_written(response: ModelResponse) -> bool:
    """Whether the model has written something, so that there have to be output tokens."""
    message = response.message
    if response.finish_reason == "refusal":  # the words about it may be the provider's own
        return False
    return bool(message.content or message.tool_calls or message.reasoning_content)


def _is_begun(error: ModelError | ModelBehaviorError) -> bool:
    """Whether the model has written a part of an answer."""
    return isinstance(error, ModelIncompleteError) and bool(error.content)


def _take_in(run: Run, model: Model, response: ModelResponse) -> None:
    """Copy the facts of a response, such as its finish reason, into the run and its output."""
    message, output, out = response.message, run.output, run.out
    run.model_refused = response.finish_reason == "refusal"
    run.model_paused = response.finish_reason == "paused"
    message.usage = response.usage
    message.created_at = int(run.now())
    output.model, output.model_provider = response.model or model.id, model.provider
    output.response_id = response.response_id
    if not message.is_text and (reasoning := message.reasoning_content):
        output.reasoning_content = reasoning
    if run.progress.own_metrics.time_to_first_token is None and out.first_text_after is not None:
        run.progress.own_metrics.time_to_first_token = out.turn_began - run.started + out.first_text_after


async def _reserve(run: Run, model: Model, request: ModelRequest, step: ModelStep | None) -> float:
    """Count a request before it is made. Return its expected cost in US dollars.

    Raises:
        UsageLimitExceeded: The request would exceed a limit; it is not counted.
    """
    ledger = run.tree.ledger
    if step is not None and step.on_record:  # it was made before, so no limit refuses it
        if ledger is None:
            return 0.0
        expected = expected_cost(model, request) if ledger.limits_cost else 0.0
        ledger.note(requests=1, expected=expected, step=step.key)
        return expected
    try:
        if run.spec.max_requests is not None and run.progress.requests >= run.spec.max_requests:
            raise UsageLimitExceeded("requests of one run (max_requests)", run.spec.max_requests)
        if ledger is None:
            return 0.0
        expected = expected_cost(model, request) if ledger.limits_cost else 0.0
        ledger.reserve_request(expected, None if step is None else step.key)
    except UsageLimitExceeded as error:  # recorded: in a replay another team member might meet the limit
        if step is not None:
            await step.keep_error(error)
        raise
    return expected


def _count(
    run: Run,
    model: Model,
    usage: Usage,
    expected: float,
    step: ModelStep | None,
    what: str = "usage",
    *,
    response: ModelResponse | None = None,
    wrote: bool = False,
) -> None:
    """Count what a request has used, at its price.

    Args:
        run, model, usage, step: Who has asked, which model, what it used, in which step.
        expected: What was set aside for it, which a limit counts where nobody knows the cost.
        what: Of the step.
        response: The answer, where it is one.
        wrote: The model has written something of an answer that is none.
    """
    if usage.cost is not None and not 0 <= usage.cost < math.inf:  # one that makes no sense is not known
        usage.cost = None
    if usage.cost is None and (model.price is not None or model.provider in LISTED):
        answered = None if response is None else response.model
        if usage.output_tokens <= 0 and response is not None:  # else there is nothing to find out
            wrote = _is_written(response)
        usage.cost = cost_of(model, usage, answered, wrote=wrote)
    if expected and usage.cost is None and is_bounded(usage):
        usage.counted_cost = expected
    if run.tree.ledger is not None:
        if step is None:
            run.tree.ledger.count(usage)
        else:
            run.tree.ledger.count(usage, f"{step.key} {what}", on_record=step.on_record)
    run.progress.own_metrics.count(f"{model.provider}/{model.id}", usage)
