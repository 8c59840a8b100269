"""Tool calls: the calls of one turn run concurrently, and each ends in a result for the model."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from kern._error_text import counted, error_text, is_failure, message_of, only_error
from kern._json import whole
from kern._sync.shield import run_in_child_task
from kern.budget import UsageLedger
from kern.errors import RetryAgentRun, StopAgentRun, ToolTimeoutError, UsageLimitExceeded
from kern.messages import File, Image, Message, ToolCall
from kern.models.base import ToolDefinition
from kern.run.events import (
    ToolCallCompletedEvent,
    ToolCallErrorEvent,
    ToolCallStartedEvent,
)
from kern.run.tool_execution import ToolExecution
from kern.runtime.approval import answered, check_before_asking, decide
from kern.runtime.debug import log_tool_error
from kern.runtime.files import loaded
from kern.runtime.hook_chain import Chain, links_of
from kern.runtime.invoke import invoke
from kern.runtime.outcome import CallSite, StatefulTool, ToolOutcome, arguments_of
from kern.runtime.return_values import Listener, in_own_context, runs_through
from kern.runtime.run_ends import StartedRuns, current_started_runs
from kern.runtime.run_tree import Run
from kern.runtime.step_data import call_key
from kern.runtime.steps import first_signal
from kern.runtime.tool_step import ToolStep, sent_back
from kern.state.turn_order import TurnOrder, TurnSlot
from kern.tools.function import Function
from kern.tools.options import Hook
from kern.tools.result import Chunks, result_of


class FunctionTool(StatefulTool):
    """A function of the application as a tool that the engine can run.

    Args:
        hooks: The `tool_hooks` of the agent or team; see `links_of`.
    """

    __slots__ = ("_links", "_runs_through", "definition", "function")

    def __init__(self, function: Function, hooks: Sequence[Hook] = ()) -> None:
        self.function: Function[..., Any] = function
        self._links = links_of(function, hooks)
        hooked = any(piece.takes_context for piece in self._links)
        self._runs_through: bool = not self._links and runs_through(function.entrypoint)
        super().__init__(touches_state=hooked or function.context_parameter is not None)
        self.definition: ToolDefinition = ToolDefinition(
            function.name, function.description, function.parameters, function.strict, function.cache
        )

    @property
    def may_swallow_cancellations(self) -> bool:
        """Whether code of the application can be suspended in a call, and so swallow a cancellation."""
        return bool(self._links) or not (self._runs_through or self.function.kind == "sync")

    async def run(self, run: Run, site: CallSite) -> ToolOutcome:
        """Validate the arguments, call the function, and turn its value into text."""
        function = self.function
        values: dict[str, Any] | None = None
        if function.requires_user_input:
            check_before_asking(function, site.call)
        elif site.call.id not in run.progress.answers:  # a person may have entered what the model left out
            values = function.validate(site.call.arguments)
        verdict = decide(run, function, site)
        if isinstance(verdict, ToolOutcome):
            return verdict
        if values is None:
            values = function.validate(site.call.arguments, user_input=verdict.user_input)
        deadline = asyncio.timeout(function.timeout)
        try:
            async with deadline:
                value = await self._call(run, site, values)
        except TimeoutError as error:
            if not deadline.expired():
                raise  # the function itself raised it
            raise ToolTimeoutError(
                f"{function.name} took longer than its timeout of {function.timeout:g} s", tool=function.name
            ) from error
        result = result_of(value)
        return ToolOutcome(
            result.text,
            stop=function.stop_after_tool_call,
            media=result.media,
            show=bool(function.show_result),
            hidden=function.stop_after_tool_call and not function.show_result,
        )

    async def _call(self, run: Run, site: CallSite, values: dict[str, Any]) -> Any:
        function = self.function
        listener = self._listener(run, site)
        if self._links:
            return await Chain(run, site, self._links, listener).run(values)
        return await invoke(
            run,
            in_own_context(function.entrypoint) if self._runs_through else function.entrypoint,
            function.kind,
            values,
            context_parameter=function.context_parameter,
            label=function.name,
            tool_call_id=site.call.id,
            slot=site.slot,
            listener=listener,
            start=site.start,
        )

    def _streams_content(self, run: Run, site: CallSite) -> bool:
        """Whether to stream a generator's chunks as content: only if no other call and no hook interferes."""
        generates = self.function.kind in ("generator", "async_generator")
        shown = self.function.show_result and not run.spec.structured
        return bool(generates and shown and site.alone and not self._links)

    def _listener(self, run: Run, site: CallSite) -> Listener | None:
        out = run.out
        if not out.streams:
            return None
        if self._streams_content(run, site):
            out.begin_result()
            return lambda piece: out.text(whole(result_of(Chunks([piece])).text))
        return lambda piece: out.aside(whole(result_of(Chunks([piece])).text), site.call.id)


_AT_ONCE = 128
"""How many calls start before the loop yields: a model may make thousands, and other runs must progress."""


async def run_calls(run: Run, calls: list[ToolCall]) -> list[ToolOutcome]:
    """Carry out all calls of one turn, concurrently. Return the outcomes in call order.

    The error of a call is its outcome. An error that is raised here ends the run. If the calls would exceed a
    limit, none of them begins, so that none is cut short.
    """
    if run.tree.ledger is not None:
        new = [call for call in calls if call.id not in run.progress.finished_calls]
        await _reserve(run, run.tree.ledger, new)
    if run.tree.steps is not None:  # a run with a journal has the time of its latest step
        run.turn_began = run.now()
    if len(calls) == 1:
        lone = partial(_run_call, run, calls[0], alone=True)
        tool: object = run.spec.tools.get(calls[0].name)
        if isinstance(tool, FunctionTool) and not tool.may_swallow_cancellations:
            return [await lone()]  # a task takes two turns of the event loop
        return [await run_in_child_task(lone)]
    slots = _slots(run, calls)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = []
            for call in calls:
                tasks.append(group.create_task(_run_call(run, call, slots.get(call.id))))
                if len(tasks) % _AT_ONCE == 0:
                    await asyncio.sleep(0)
    except BaseExceptionGroup as errors:
        raise first_signal(errors) or errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _reserve(run: Run, ledger: UsageLedger, calls: Sequence[ToolCall]) -> None:
    """Count the calls of a turn towards the limits. Recorded calls are counted without a check.

    Raises:
        UsageLimitExceeded: The calls would exceed a limit.
    """
    steps = run.tree.steps
    step: str | None = None
    if steps is not None and calls:
        keys = [call_key(run.run_id, "tool", call.id) for call in calls]
        step = f"{keys[0]} counted"
        if any(key in steps for key in keys):
            ledger.note(tool_calls=len(calls), step=step)
            return
    try:
        ledger.reserve_tool_calls(len(calls), step)
    except UsageLimitExceeded as error:
        for call in calls:
            _note_not_made(_record(run, call), error)
        raise


def _record(run: Run, call: ToolCall) -> ToolExecution:
    """Return the record of the call in the output: the one from before a pause, or a new one."""
    execution = run.progress.begun_calls.get(call.id)
    if execution is None:
        # For display and storage: empty if the arguments are not a JSON object.
        arguments = arguments_of(call) or {}
        execution = ToolExecution(call.id, call.name, arguments, created_at=run.turn_began or time.time())
        run.output.tools.append(execution)
    return execution


def _slots(run: Run, calls: list[ToolCall]) -> dict[str, TurnSlot]:
    """Give the calls that may touch the session state their order, by call id. Other calls need no slot."""
    stateful = [
        call.id for call in calls if call.id not in run.progress.finished_calls and _touches_state(run, call)
    ]
    if len(stateful) < 2:
        return {}
    return dict(zip(stateful, TurnOrder(len(stateful)).slots(), strict=True))


def _touches_state(run: Run, call: ToolCall) -> bool:
    tool: object = run.spec.tools.get(call.name)
    return isinstance(tool, StatefulTool) and tool.touches_state


async def _run_call(
    run: Run, call: ToolCall, slot: TurnSlot | None = None, *, alone: bool = False
) -> ToolOutcome:
    if (settled := run.progress.finished_calls.get(call.id)) is not None:  # finished before a pause
        return settled
    async with run.turn_slots:
        execution = _record(run, call)
        if run.out.wants_events:
            run.out.event(ToolCallStartedEvent(run.source, execution.copied()))
        if run.tree.request.debug:
            run.debug("calls %s(%s)", call.name, call.arguments)
        site = CallSite(call, execution, alone, slot)
        steps = run.tree.steps
        if steps is None:
            outcome = await _carried_out(run, site, None)
        else:
            step = ToolStep(run, steps, site)
            with steps.in_progress(step.owner):
                outcome = await _carried_out(run, site, step)
    if not outcome.pending and run.tree.audience.follows:
        await run.out.wait_for_consumer()
    return outcome


async def _carried_out(run: Run, site: CallSite, step: ToolStep | None) -> ToolOutcome:
    """Carry out a call: note its outcome, emit its events, and record it if there is a journal."""
    execution = site.execution
    started = time.perf_counter()
    try:
        outcome = await (_outcome(run, site) if step is None else step.outcome(_outcome))
    except BaseException as error:
        if site.start.prevent():
            _note_not_made(execution, error)
        raise
    if not outcome.content.isascii() and (content := whole(outcome.content)) is not outcome.content:
        outcome = replace(outcome, content=content)
    if site.slot is not None:
        site.slot.mark_passed()
    if outcome.pending:
        if step is not None:
            await step.keep_pending()
        return outcome
    execution.duration = time.perf_counter() - started
    if step is not None and step.duration is not None:
        execution.duration = step.duration
    execution.result = outcome.content
    execution.tool_call_error = outcome.error
    execution.stop_after_tool_call = outcome.stop
    if run.tree.request.debug:
        run.debug("%s returns %s", site.call.name, outcome.content)
    if run.out.wants_events:
        if outcome.error:
            run.out.event(ToolCallErrorEvent(run.source, execution.copied(), outcome.content))
        run.out.event(ToolCallCompletedEvent(run.source, execution.copied(), outcome.content))
    if step is not None:
        await step.keep(outcome)
    if outcome.failure is not None:
        raise outcome.failure
    return outcome


def _note_not_made(execution: ToolExecution, error: BaseException) -> None:
    """Note that the run ended before the call was made, so that it is not mistaken for a finished call."""
    why = message_of(error) if isinstance(error, UsageLimitExceeded) else "the run ended before"
    execution.result, execution.tool_call_error = f"Not called: {why}.", True


async def _outcome(run: Run, site: CallSite) -> ToolOutcome:
    call = site.call
    tool = run.spec.tools.get(call.name)
    limit = run.spec.tool_call_limit
    if call.name != run.spec.answer_tool:
        run.progress.tool_calls += 1
        if run.progress.answers and (given := answered(run, site)) is not None:
            return given
        if limit is not None and run.progress.tool_calls > limit:
            return ToolOutcome(
                f"Not called: the limit of {counted(limit, 'tool calls')} is reached.", error=True
            )
    if tool is None:
        known = ", ".join(run.spec.tools) or "none"
        return ToolOutcome(f"There is no tool named {call.name!r}. Tools: {known}.", error=True)
    try:
        async with StartedRuns(current_started_runs.get()):
            if not isinstance(tool, FunctionTool):  # a FunctionTool calls `begin` itself, when it starts
                site.start.begin()
            outcome = await tool.run(run, site)
        return replace(outcome, media=await loaded(outcome.media)) if outcome.media else outcome
    except BaseException as raised:
        error = only_error(raised)
        if isinstance(error, RetryAgentRun):
            return sent_back(run, call.name, ToolOutcome(error.message))
        if isinstance(error, StopAgentRun):
            return ToolOutcome(error.message, stop=True)
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and not (task is not None and task.cancelling()):
            return ToolOutcome(f"{call.name} was cancelled.", error=True)
        if not is_failure(error):
            raise
        log_tool_error(call.name, error, in_debug_mode=run.tree.request.debug)
        return ToolOutcome(error_text(error), error=True)  # the model gets every error of a tool


def tool_message(run: Run, call: ToolCall, outcome: ToolOutcome) -> Message:
    """Make the message with the result of a call for the model."""
    message = Message(
        "tool",
        outcome.content,
        tool_call_id=call.id,
        tool_name=call.name,
        tool_call_error=outcome.error,
        stop_after_tool_call=outcome.stop,
        created_at=int(run.now()),
    )
    if outcome.media and not outcome.media_in_text:
        # The media that all providers accept in tool results; the text mentions audio and video.
        message.images = [media for media in outcome.media if isinstance(media, Image)]
        message.files = [media for media in outcome.media if isinstance(media, File) and media.url is None]
    return message
