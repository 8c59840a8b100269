"""What there is to show, as titled sections of text: the same for panels and for plain text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from kern._error_text import error_text, message_of
from kern.console._progress import RunProgress
from kern.console._text import (
    clean,
    content_text,
    first_line,
    format_call,
    format_seconds,
)
from kern.console._view import ViewOptions
from kern.errors import KernError
from kern.run.output import RunStatus
from kern.run.requirement import Need, RunRequirement
from kern.run.tool_execution import ToolExecution

Kind = Literal["message", "reasoning", "calls", "member", "response", "paused", "cancelled", "error"]
Format = Literal["text", "list", "markdown", "json"]

_WAITS_FOR: dict[Need, str] = {
    "confirmation": "to be confirmed",
    "user_input": "needs input",
    "external_execution": "to be carried out elsewhere",
}
_LONGEST_MESSAGE = 4_000
_LONGEST_CALLS = 100


@dataclass(slots=True, frozen=True)
class Section:
    """A piece of the view that is whole: it is printed once and never changed.

    Args:
        kind: What it is.
        title: Its heading.
        body: Its text, without control characters.
        format: How the body is written; each line of a "list" begins with a bullet and a space.
    """

    kind: Kind
    title: str
    body: str
    format: Format = "text"


def message_section(message: str) -> Section | None:
    """What the user said; a very long message is cut."""
    text = clean(message).strip("\n")
    if not text.strip():
        return None
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[:_LONGEST_MESSAGE]}\n… ({len(text):,} characters)"
    return Section("message", "Message", text)


def reasoning_section(text: str, name: str = "") -> Section | None:
    """The model's reasoning; `name` is the member's whose it is."""
    body = clean(text).strip()
    return Section("reasoning", _title(name, "Reasoning"), body) if body else None


def calls_section(run: RunProgress, name: str = "") -> Section | None:
    """All tool calls of a run; `name` is the member's that made them."""
    if not run.calls:
        return None
    title = _title(name, "Tool Calls") if name or not run.is_team else "Team Tool Calls"
    lines = [f"• {describe_call(call)}" for call in run.calls[:_LONGEST_CALLS]]
    if (more := len(run.calls) - _LONGEST_CALLS) > 0:
        lines.append(f"… and {more} more")
    return Section("calls", title, "\n".join(lines), "list")


def describe_call(call: ToolExecution) -> str:
    """A call on one line, with its duration; for a failed one also the first line of the error.

    One that the person has refused was not made, and took no time.
    """
    line = format_call(call.tool_name, call.tool_args)
    if call.confirmed is False:
        line += f" refused{f': {first_line(call.confirmation_note, 200)}' if call.confirmation_note else ''}"
        return clean(line.replace("\n", " "))
    if call.duration is not None:
        line += f" ({format_seconds(call.duration)})"
    if call.tool_call_error:
        line += f" failed: {first_line(call.result or '', 200)}"
    return clean(line.replace("\n", " "))


def member_sections(run: RunProgress, options: ViewOptions) -> Iterator[Section]:
    """What a member did and said."""
    if options.show_reasoning and (reasoning := reasoning_section(run.reasoning.text, run.name)):
        yield reasoning
    if calls := calls_section(run, run.name):
        yield calls
    if run.status is RunStatus.error:
        yield Section("error", clean(f"{run.name} Error"), clean(run.error))
        return
    if answer := answer_section(run, options, run.name):
        yield answer


def answer_section(run: RunProgress, options: ViewOptions, name: str = "") -> Section | None:
    """The run's answer, as far as there is one; `name` is the member's who gives it."""
    text, is_json = content_text(run.content)
    body = clean(text).strip("\n")
    if not body.strip():
        return None
    whole = run.status is RunStatus.completed
    note = format_seconds(run.elapsed) if whole else "unfinished"
    form: Format = "json" if is_json else "markdown" if options.markdown else "text"
    return Section("member" if name else "response", f"{_title(name, 'Response')} ({note})", body, form)


def ending_section(run: RunProgress) -> Section | None:
    """Why the run has not come to an answer; None for a completed one."""
    match run.status:
        case RunStatus.paused:
            return Section("paused", "Paused", _waiting_for(run.requirements))
        case RunStatus.cancelled:
            return Section("cancelled", "Cancelled", clean(run.error) or "The run was cancelled.")
        case RunStatus.error:
            return Section("error", "Error", clean(run.error) or "The run has failed.")
        case _:
            return None


def closing_sections(run: RunProgress, options: ViewOptions) -> Iterator[Section]:
    """All that a top-level run leaves to show."""
    if options.show_reasoning and (reasoning := reasoning_section(run.reasoning.text)):
        yield reasoning
    for section in (calls_section(run), answer_section(run, options), ending_section(run)):
        if section is not None:
            yield section


def error_section(error: BaseException) -> Section:
    """An error that ended the run. Kern's own errors speak for themselves; others are named."""
    text = message_of(error).strip()
    if not isinstance(error, KernError) or not text:
        text = error_text(error)
    return Section("error", "Error", clean(text))


def _title(name: str, what: str) -> str:
    return clean(f"{name} {what}".replace("\n", " ")) if name else what


def _waiting_for(requirements: Sequence[RunRequirement]) -> str:
    lines = ["The run waits for a person."]
    for need in requirements:
        call = format_call(need.tool_name, need.tool_args)
        lines.append(clean(f"• {_WAITS_FOR[need.kind]}: {call}".replace("\n", " ")))
    return "\n".join(lines)
