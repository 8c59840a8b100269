"""Tool calls that need a person: which calls do, and how one continues after the person has answered."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from kern._error_text import error_text
from kern.errors import ToolArgumentsError
from kern.messages import ToolCall
from kern.run.requirement import Need, RunRequirement, UserInputError
from kern.runtime.outcome import CallSite, ToolOutcome
from kern.runtime.run_tree import Run
from kern.tools.arguments import misfits_of, parsed
from kern.tools.function import Function
from kern.tools.json_check import misfits


@dataclass(slots=True, frozen=True)
class Proceed:
    """The call may be made, with the values that the person entered."""

    user_input: dict[str, Any] | None = None


def need_of(function: Function) -> Need | None:
    """Return what a call of `function` waits for; None if it can be made at once."""
    if function.requires_confirmation:
        return "confirmation"
    if function.requires_user_input:
        return "user_input"
    if function.external_execution:
        return "external_execution"
    return None


def check_before_asking(function: Function, call: ToolCall) -> None:
    """Check the model's part of a call that needs user input, before the person is asked.

    Raises:
        ToolArgumentsError: The model left out a required argument, or wrote invalid JSON.
    """
    given = parsed(call.arguments, function.name)
    required = function.parameters.get("required", ()) if function.user_input_fields else ()
    if any(name not in given for name in required):
        function.validate(call.arguments)  # raises the error with the details


def check_input(function: Function, call: ToolCall, requirement: RunRequirement) -> None:
    """Check the values that a person entered: the person can correct them, the model cannot.

    Raises:
        UserInputError: The values do not fit the parameters.
    """
    given = requirement.user_input
    if given is None or requirement.confirmed is False:
        return
    try:
        function.validate(call.arguments, user_input=given)
    except ToolArgumentsError as error:
        found = misfits_of(error)
        own = {name: line for name, line in found.items() if name in given}
        lines = misfits(given, requirement.user_input_schema or {}) or [*own.values()]
        fields = [*own] or list(given)
        if not lines:  # the misfit is in the model's own part
            return
    except Exception as error:  # noqa: BLE001 - a validator of the application may raise anything
        lines, fields = [error_text(error)], list(given)
    else:
        return
    raise UserInputError(
        f"{function.name}: the user input does not fit the parameters: {'; '.join(lines)}",
        tool_call_id=call.id,
        fields=fields,
    )


def decide(run: Run, function: Function, site: CallSite) -> Proceed | ToolOutcome:
    """Decide whether the call is made, has its outcome already, or has to wait for a person."""
    need = need_of(function)
    requirement = run.progress.answers.pop(site.call.id, None)  # an answer is valid for one call
    if need is None and (requirement is None or requirement.kind != "in_doubt"):
        return Proceed()
    if requirement is None or not requirement.is_resolved:
        if requirement is None and need is not None:
            schema = function.user_input_schema if need == "user_input" else None
            requirement = _requirement(run, site, need, schema)
        assert requirement is not None
        run.requirements.append(requirement)
        return ToolOutcome("", pending=True)
    return _answered(site, requirement) or Proceed(requirement.user_input)


def _answered(site: CallSite, requirement: RunRequirement) -> ToolOutcome | None:
    """Return the outcome that the person's answer gives the call; None if the call is to be made."""
    site.execution.confirmed, site.execution.confirmation_note = requirement.confirmed, requirement.note
    if requirement.confirmed is False:
        note = f": {requirement.note}" if requirement.note else ""
        return ToolOutcome(f"The user has rejected this call{note}. Do not repeat it as it is.")
    return None if requirement.result is None else ToolOutcome(requirement.result)


def may_call(run: Run, function: Function, site: CallSite) -> bool:
    """Whether no person has to decide on the call first, or a person has allowed it."""
    if need_of(function) is None:
        return True
    answer = run.progress.answers.get(site.call.id)
    return (
        answer is not None and answer.is_resolved and answer.confirmed is not False and answer.result is None
    )


def in_doubt(run: Run, site: CallSite) -> ToolOutcome:
    """Return the outcome of a call that was begun by a process that died: a person must decide what to do.

    An answer that was given since counts, except a confirmation: it may have been given for the original
    call, not for the call in doubt.
    """
    answer = run.progress.answers.pop(site.call.id, None)
    resume = run.tree.request.resume
    for given in () if resume is None else resume.given:
        if (given.run_id, given.tool_call_id) == (run.run_id, site.call.id) and (
            outcome := _answered(site, given)
        ):
            return outcome
    requirement = _requirement(run, site, "in_doubt")
    if answer is not None:
        requirement.user_input = answer.user_input
    run.requirements.append(requirement)
    return ToolOutcome("", pending=True)


def _requirement(
    run: Run, site: CallSite, need: Need, schema: dict[str, Any] | None = None
) -> RunRequirement:
    return RunRequirement(
        kind=need,
        id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{run.run_id}/{site.call.id}/{need}/{run.generation}")),
        run_id=run.run_id,
        agent_path=list(run.source.path),
        tool_call_id=site.call.id,
        tool_name=site.call.name,
        tool_args=site.execution.tool_args,
        user_input_schema=schema,
    )
