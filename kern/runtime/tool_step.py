"""One tool call, or delegation, as a step of a run with a journal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from kern._error_text import leaf_errors
from kern.errors import KernError, ModelBehaviorError
from kern.messages import check_types
from kern.run.output import RunStatus
from kern.runtime.approval import in_doubt, may_call
from kern.runtime.hooked_tool import HookedTool
from kern.runtime.identity import end_output
from kern.runtime.outcome import CallSite, ToolOutcome
from kern.runtime.request import RunInput
from kern.runtime.run_events import terminal_event
from kern.runtime.run_tree import DelegatingTool, Run, RunnableTool
from kern.runtime.step_data import (
    Data,
    call_key,
    error_data,
    error_from,
    messages_data,
    messages_from,
    outcome_data,
    outcome_from,
    reading,
)
from kern.runtime.steps import CutShort, Steps, signalled
from kern.tools.function import Function

_NOTED_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "child_run_id": str,
    "child_run_ids": list,
    "confirmed": bool,
    "confirmation_note": str,
    "tool_args": dict,
}
_NOTED = tuple(_NOTED_TYPES)
"""The fields of a call's record that the tool fills in."""


class ToolStep:
    """One call as a step.

    Args:
        run: The run that makes the call.
        steps: The steps of the run.
        site: The call.
    """

    def __init__(self, run: Run, steps: Steps, site: CallSite) -> None:
        self._run = run
        self._steps = steps
        self._site = site
        self._tool: RunnableTool | None = run.spec.tools.get(site.call.name)
        self._key = call_key(run.run_id, "tool", site.call.id)
        self._played = False
        self._sent_back = run.progress.sent_back[site.call.name]
        self.duration: float | None = None
        """How many seconds the recorded call took; None if there is none."""

    @property
    def owner(self) -> tuple[str, str]:
        """The author of the commits of the call: run id and call id."""
        return self._run.run_id, self._site.call.id

    async def outcome(self, carry_out: Callable[[Run, CallSite], Awaitable[ToolOutcome]]) -> ToolOutcome:
        """Return the recorded outcome of the call, or carry it out.

        Args:
            carry_out: Carries out the call.

        Raises:
            KernError: An error that ends the run.
            JournalSignal: The journal cannot be written.
        """
        run, steps = self._run, self._steps
        first = steps.peek(self._key)
        if first is not None and first.get("children") and isinstance(self._tool, DelegatingTool):
            self._note(first)
            await self._children_again(self._tool, first["children"])
        if first is not None and first.get("pending"):
            outcome = await carry_out(run, self._site)  # makes the same requirement again
            self._played = await steps.recorded(run, self._key) is not None
            return outcome
        drives = isinstance(self._tool, DelegatingTool) and self._tool.drives_runs
        data = await steps.recorded(run, self._key, waits=not drives)
        if data is not None:
            return self._again(data)
        begun = call_key(run.run_id, "begun", self._site.call.id)
        if steps.in_doubt(begun):  # also where the program has no such tool any more
            return in_doubt(run, self._site)
        function = getattr(self._tool, "function", None)
        noted = isinstance(function, Function) and self._may_not_be_repeated(function)
        if isinstance(function, Function) and noted and may_call(run, function, self._site):
            await steps.keep(run, "begun", begun, {"tool": function.name})
        try:
            outcome = await carry_out(run, self._site)
        except asyncio.CancelledError:
            if steps.detailed:
                steps.broke_off(self._key, {})
            raise
        except KernError as error:
            steps.tick(run)
            await steps.keep(run, "tool", self._key, {"error": error_data(error)}, self.owner)
            raise
        steps.tick(run)
        return outcome

    def _may_not_be_repeated(self, function: Function) -> bool:
        """Whether to record that the call begins, for a process that resumes the run."""
        return self._steps.claim is not None and function.effect not in ("read", "idempotent")

    async def keep(self, outcome: ToolOutcome) -> None:
        """Record the outcome of the call, after its events."""
        if self._played:
            return
        run, execution = self._run, self._site.execution
        noted = {name: value for name in _NOTED if (value := getattr(execution, name)) is not None}
        data: Data = {"tool": self._site.call.name, **outcome_data(outcome), "execution": noted}
        if execution.duration is not None:
            data["duration"] = execution.duration
        if run.progress.sent_back[self._site.call.name] > self._sent_back:
            data["sent_back"] = True
        kind = "tool"
        if children := self._children():
            kind, data["children"] = "delegation", children
        elif outcome.error and self._steps.unclear and isinstance(self._tool, DelegatingTool | None):
            return  # its member may be the one that is missing: with that, the run can still be resumed
        await self._steps.keep(run, kind, self._key, data, self.owner)

    async def keep_pending(self) -> None:
        """Record in a recording that the call waits for a person.

        A run in a database needs no such record: the row of the paused run says so.
        """
        if self._steps.claim is None and not self._played:
            await self._steps.keep(self._run, "tool", self._key, {"pending": True}, self.owner)

    def _children(self) -> list[Data]:
        """Return data on the members' runs that the call started."""
        execution = self._site.execution
        ids = [execution.child_run_id, *(execution.child_run_ids or ())]
        return [
            {
                "run_id": child.run_id,
                "member": child.spec.id,
                "value": child.input.value if isinstance(child.input.value, str) else None,
                **messages_data(child.input.messages),
            }
            for child in self._run.children
            if child.run_id in ids
        ]

    def _again(self, data: Data) -> ToolOutcome:
        """Return the recorded outcome, and repeat the effects of the call on the run."""
        self._played = True
        run, call = self._run, self._site.call
        if call.name != run.spec.answer_tool:
            run.progress.tool_calls += 1
        run.progress.answers.pop(call.id, None)
        self._site.start.begin()
        if self._site.slot is not None:
            self._site.slot.mark_passed()
        if "error" in data:
            with signalled(), reading(self._key):
                error = error_from(data["error"])
            raise error
        self._note(data)
        self.duration = data.get("duration")
        with signalled(), reading(self._key):
            outcome = outcome_from(data)
        if data.get("sent_back"):
            return sent_back(run, call.name, outcome)
        return outcome

    def _note(self, data: Data) -> None:
        """Fill in the call's record in the output from the recorded step."""
        with signalled(), reading(self._key):
            check_types("execution", data["execution"], _NOTED_TYPES)
            for run_id in data["execution"].get("child_run_ids") or ():
                if not isinstance(run_id, str):
                    raise TypeError("child_run_ids must be a list of str")
            for name in _NOTED:
                if name in data["execution"]:
                    setattr(self._site.execution, name, data["execution"][name])

    async def _children_again(self, tool: DelegatingTool, recorded: list[Data]) -> None:
        """Drive the members' runs again, from their recorded steps, to where they had got."""
        run = self._run
        alone = self._site.alone and self._site.execution.child_run_id is not None
        alone = alone and not isinstance(tool, HookedTool)
        known = {child.run_id: child for child in run.children}
        children = []
        with signalled(), reading(self._key):
            if not isinstance(recorded, list):
                raise TypeError("children must be a list")
        for one in recorded:
            with signalled(), reading(self._key):
                child = known.get(one["run_id"])
                spec = tool.team.specs.get(one["member"])
                value = run.input.value if one["value"] is None else one["value"]
                input = RunInput(value=value, messages=messages_from(one))
            if child is None and spec is not None:
                child = tool.team.child(run, spec, input, one["run_id"], alone=alone)
            if child is not None and child.output.status is RunStatus.running:
                run.paused.pop(child.run_id, None)
                self._steps.cut(child.run_id)
                children.append(child)
        async with asyncio.TaskGroup() as group:
            for child in children:
                group.create_task(_child_again(tool, child))


async def _child_again(tool: DelegatingTool, child: Run) -> None:
    try:
        await tool.team.drive_again(child)
    except BaseException as error:
        leaves = list(leaf_errors(error))
        if all(isinstance(leaf, KernError) for leaf in leaves):
            return  # the recorded outcome of the delegation says what followed
        if not all(isinstance(leaf, CutShort) for leaf in leaves):
            raise
        _was_cut_short(child)


def _was_cut_short(run: Run) -> None:
    """Mark the run, and those below it that had not ended, as cancelled at this point."""
    for child in run.children:
        if child.output.status is RunStatus.running:
            _was_cut_short(child)
    end_output(run.output, asyncio.CancelledError())
    run.out.event(terminal_event(run, None))


def sent_back(run: Run, tool: str, outcome: ToolOutcome) -> ToolOutcome:
    """Count that a tool asks the model to try again; the outcome ends the run if it has done so too often."""
    try:
        run.send_back(tool, outcome.content)
    except ModelBehaviorError as failure:
        return replace(outcome, failure=failure)
    return outcome
