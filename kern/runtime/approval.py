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
    """Decide whether the call is made, or has to wait for a person.

    What a person was asked waits for its answer, and what a person has answered counts, whatever the tool
    asks today: the program may have changed. An answer that does not settle what the tool asks today leads
    to a new question.
    """
    answer = run.progress.answers.pop(site.call.id, None)  # an answer is valid for one call
    need = need_of(function)
    if answer is None:
        if need is None:
            return Proceed()
    elif not answer.is_resolved:
        run.requirements.append(answer)
        return ToolOutcome("", pending=True)
    elif _allows(function, answer):
        site.execution.confirmed, site.execution.confirmation_note = answer.confirmed, answer.note
        return Proceed(answer.user_input)
    assert need is not None
    requirement = _requirement(run, site, need, function.user_input_schema if need == "user_input" else None)
    if answer is not None and need != "user_input":
        requirement.user_input = answer.user_input
    run.requirements.append(requirement)
    return ToolOutcome("", pending=True)


def answered(run: Run, site: CallSite) -> ToolOutcome | None:
    """Return the outcome that a person has given the call: a rejection, or its result; None if neither."""
    answer = run.progress.answers.get(site.call.id)
    outcome = None if answer is None else _given(site, answer)
    if outcome is not None:
        del run.progress.answers[site.call.id]
    return outcome


def _given(site: CallSite, answer: RunRequirement) -> ToolOutcome | None:
    """Return the outcome that the person's answer gives the call; None if it gives none."""
    if answer.confirmed is False:
        site.execution.confirmed, site.execution.confirmation_note = False, answer.note
        note = f": {answer.note}" if answer.note else ""
        return ToolOutcome(f"The user has rejected this call{note}. Do not repeat it as it is.")
    if answer.result is None:
        return None
    site.execution.confirmed = answer.confirmed
    return ToolOutcome(answer.result)


def _allows(function: Function, answer: RunRequirement) -> bool:
    """Whether the call may be made because of this answer, which neither rejects it nor gives its result."""
    need = need_of(function)
    if need == "confirmation":
        return answer.confirmed is True
    if need == "user_input":
        entered = answer.user_input
        required = function.user_input_schema.get("required", ())
        return entered is not None and all(name in entered for name in required)
    return need is None


def may_call(run: Run, function: Function, site: CallSite) -> bool:
    """Whether no person has to decide on the call first, or a person has allowed it."""
    answer = run.progress.answers.get(site.call.id)
    if answer is None:
        return need_of(function) is None
    rejected = answer.confirmed is False or answer.result is not None
    return answer.is_resolved and not rejected and _allows(function, answer)


def in_doubt(run: Run, site: CallSite) -> ToolOutcome:
    """Return the outcome of a call that was begun by a process that died: a person must decide what to do.

    An answer that was given since counts, except a confirmation: it may have been given for the original
    call, not for the call in doubt.
    """
    answer = run.progress.answers.pop(site.call.id, None)
    resume = run.tree.request.resume
    for given in () if resume is None else resume.given:
        if (given.run_id, given.tool_call_id) == (run.run_id, site.call.id) and (
            outcome := _given(site, given)
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
