"""Asks the person at the terminal for what a paused run waits for."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from kern.console._files import say
from kern.console._text import clean, format_call
from kern.run.requirement import RunRequirement, UserInputError
from kern.tools.json_check import misfits

Read = Callable[[str], Awaitable[str | None]]
"""Reads a line after a prompt; returns None if the person leaves."""

_WHOLE = 1_000_000
"""How many characters of the arguments are shown: all, since the person consents to the call as a whole."""
_YES = ("y", "yes")
_NO = ("", "n", "no")


Kept = Mapping[str, Mapping[str, Any]]
"""By tool call: the values that were entered before and fit."""


async def ask(requirements: Sequence[RunRequirement], read: Read, kept: Kept | None = None) -> bool:
    """Ask the person for each requirement that has no answer yet; returns False if they leave instead."""
    for need in requirements:
        while not need.is_resolved:
            call = format_call(need.tool_name, need.tool_args, limit=_WHOLE)
            say(f"{' › '.join([*need.agent_path, ''])}{call}")
            match need.kind:
                case "confirmation":
                    answered = await _confirm(need, read)
                case "user_input":
                    answered = await _fill_in(need, read, (kept or {}).get(need.tool_call_id, {}))
                case "external_execution":
                    answered = await _take_result(need, read)
                case "in_doubt":
                    answered = await _settle_doubt(need, read)
            if not answered:
                return False
    return True


def take_back(requirements: Sequence[RunRequirement], misfit: UserInputError) -> Kept:
    """Reopen the requirements whose values do not fit, so that they are asked for again.

    Returns:
        The values that fit, by tool call.
    """
    kept = {}
    for need in requirements:
        if need.tool_call_id == misfit.tool_call_id and need.user_input is not None:
            given, need.user_input = need.user_input, None
            kept[need.tool_call_id] = {k: v for k, v in given.items() if k not in misfit.fields}
    return kept


async def _confirm(need: RunRequirement, read: Read) -> bool:
    line = await read("[y/N/reason] ")
    if line is None:
        return False
    answer = line.strip()
    if answer.casefold() in _YES:
        need.confirm()
    else:
        need.reject(None if answer.casefold() in _NO else answer)
    return True


async def _settle_doubt(need: RunRequirement, read: Read) -> bool:
    """Ask about a call during which its process died: only the person can find out whether it was made."""
    say("The process ended during this call, so it may have been carried out. Find out before you answer.")
    line = await read("[again/N/its result] ")
    if line is None:
        return False
    answer = line.strip()
    if answer.casefold() == "again":
        need.confirm()
    elif answer.casefold() in _NO:
        need.reject()
    else:
        need.set_external_execution_result(answer)
    return True


async def _take_result(need: RunRequirement, read: Read) -> bool:
    line = await read("Its result: ")
    if line is not None:
        need.set_external_execution_result(line)
    return line is not None


async def _fill_in(need: RunRequirement, read: Read, kept: Mapping[str, Any]) -> bool:
    schema = need.user_input_schema or {}
    values = dict(kept)
    for name, field in schema.get("properties", {}).items():
        if name in kept:
            continue
        required = name in schema.get("required", ())
        suggested = need.tool_args.get(name, field.get("default"))
        while True:
            line = await read(_field_prompt(name, field, suggested))
            if line is None:
                return False
            if line.strip():
                values[name] = _value_of(line.strip(), field)
            elif suggested is not None:
                values[name] = suggested
            elif required and not _takes_text(field):
                continue
            elif required:
                values[name] = ""
            if name in values and (lines := misfits({name: values[name]}, {**schema, "required": []})):
                say(f"That does not fit: {'; '.join(lines)}")
                del values[name]
                continue
            break
    need.provide_user_input(values)
    return True


_FORMATS = {
    "date": "such as 2026-12-31",
    "date-time": "such as 2026-12-31T23:59:00+01:00",
    "time": "such as 23:59:00",
    "duration": "such as P1DT2H30M",
}


def _field_prompt(name: str, field: Mapping[str, Any], suggested: Any) -> str:
    kinds = [str(part["type"]) for part in (field, *field.get("anyOf", ())) if part.get("type")]
    about = [" or ".join(kinds)] if kinds else []
    formats = [part["format"] for part in (field, *field.get("anyOf", ())) if part.get("format")]
    about += [_FORMATS.get(name, str(name)) for name in formats]
    if not {"array", "object"}.isdisjoint(kinds):
        about.append("as JSON")
    if field.get("description"):
        about.append(str(field["description"]))
    if choices := field.get("enum"):
        about.append("one of " + ", ".join(map(str, choices)))
    details = f" ({'; '.join(about)})" if about else ""
    kept = "" if suggested is None else f" [{json.dumps(suggested, ensure_ascii=False, default=str)}]"
    return clean(f"{name}{details}{kept}: ".replace("\n", " "))


def _takes_text(field: Mapping[str, Any]) -> bool:
    return bool(field.get("type", "string") == "string")


def _value_of(line: str, field: Mapping[str, Any]) -> Any:
    """The value of a line: text unchanged for a text field, "y" or "n" for a boolean, JSON for the rest."""
    if _takes_text(field):
        return line
    if field.get("type") == "boolean" and line.casefold() in (*_YES, "n", "no"):
        return line.casefold() in _YES
    try:
        return json.loads(line)
    except ValueError:
        return line
