"""The sections that views show, as texts: the same for a terminal and for a pipe.

Only the answer is framed. Everything else appears in dim lines, in the order in which it happens; see
`Story`.
"""

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
from kern.run.output import AnyRunOutput, RunStatus
from kern.run.requirement import Need, RunRequirement
from kern.run.tool_execution import ToolExecution

Kind = Literal[
    "message",
    "step",
    "change",
    "failure",
    "reasoning",
    "said",
    "member",
    "answer",
    "paused",
    "cancelled",
    "error",
    "closing",
]
Format = Literal["text", "markdown", "json"]

_WAITS_FOR: dict[Need, str] = {
    "confirmation": "to be confirmed",
    "user_input": "needs input",
    "external_execution": "to be carried out elsewhere",
    "in_doubt": "may have been carried out already",
}
_LONGEST_MESSAGE = 4_000
_LEAST_SECONDS = 0.05
"""Calls that took less than this many seconds are shown without their duration."""


@dataclass(slots=True, frozen=True)
class Section:
    """A complete piece of the view: it is printed once and never changed.

    Args:
        kind: What it is.
        body: Its text, without control characters.
        title: Its heading, if it has one of its own.
        name: The member that it is about, if any.
        marker: The character that its line begins with.
        format: The format of the body.
    """

    kind: Kind
    body: str
    title: str = ""
    name: str = ""
    marker: str = ""
    format: Format = "text"

    @property
    def is_line(self) -> bool:
        """Whether it is one of the one-line steps between the message and the answer."""
        return self.kind in ("step", "change", "failure")


def message_section(message: str) -> Section | None:
    """The user's message; a very long one is cut."""
    text = clean(message).strip("\n")
    if not text.strip():
        return None
    if len(text) > _LONGEST_MESSAGE:
        text = f"{text[:_LONGEST_MESSAGE]}\n… ({len(text):,} characters)"
    return Section("message", text, marker=">")


def reasoning_section(text: str, name: str = "") -> Section | None:
    """The model's reasoning; `name` is the member's, if it is one's."""
    body = clean(text).strip()
    return Section("reasoning", body, title="Reasoning", name=one_line(name)) if body else None


def call_section(call: ToolExecution, name: str = "") -> Section:
    """A tool call that has ended; `name` is the member's, if one made it."""
    failed = call.tool_call_error and call.confirmed is not False
    kind: Kind = "failure" if failed else "step"
    return Section(kind, describe_call(call), name=one_line(name), marker="✗" if failed else "")


def describe_call(call: ToolExecution) -> str:
    """A call on one line, with its duration; for a failed call also the first line of the error.

    A call that the person rejected was not made and has no duration.
    """
    line = format_call(call.tool_name, call.tool_args)
    if call.confirmed is False:
        line += f" refused{f': {first_line(call.confirmation_note, 200)}' if call.confirmation_note else ''}"
        return one_line(line)
    if call.duration is not None and call.duration >= _LEAST_SECONDS:
        line += f" ({format_seconds(call.duration)})"
    if call.tool_call_error:
        line += f" failed: {first_line(call.result or '', 200)}"
    return one_line(line)


def member_sections(run: RunProgress, options: ViewOptions) -> Iterator[Section]:
    """The end of a member's run: its answer under its name, or only that it has ended."""
    name = one_line(run.name)
    if run.status is RunStatus.error:
        yield Section("failure", f"failed: {clean(run.error)}", name=name, marker="✗")
        return
    took = format_seconds(run.elapsed)
    how = {
        RunStatus.completed: took,
        RunStatus.paused: "waits for a person",
        RunStatus.cancelled: f"was cancelled after {took}",
    }.get(run.status, "unfinished")
    if not options.show_member_responses:
        yield Section("step", how, name=name, marker="←")
        return
    if options.show_reasoning and (reasoning := reasoning_section(run.reasoning.text, name)):
        yield reasoning
    body, form = _body(run, options)
    if body:
        yield Section("member", body, title=how, name=name, format=form)
    else:
        yield Section("step", how, name=name, marker="←")


def said_section(run: RunProgress, options: ViewOptions) -> Section | None:
    """The text of the top-level run before it went on to call tools."""
    text, run.printed_length = run.unprinted, len(run.answer.text)
    body = clean(text).strip("\n")
    if not body.strip():
        return None
    form: Format = "markdown" if options.markdown else "text"
    return Section("said", body, title=one_line(run.title), format=form)


def answer_section(run: RunProgress, options: ViewOptions) -> Section | None:
    """The answer of the top-level run, or None."""
    body, form = _body(run, options)
    if not body:
        return None
    title = " ".join(part for part in (run.title, "" if run.completed else "(unfinished)") if part)
    return Section("answer", body, title=one_line(title), format=form)


def _body(run: RunProgress, options: ViewOptions) -> tuple[str, Format]:
    text, is_json = content_text(run.content)
    body = clean(text).strip("\n")
    return body if body.strip() else "", "json" if is_json else "markdown" if options.markdown else "text"


def ending_section(run: RunProgress, options: ViewOptions) -> Section | None:
    """Why the run has no answer; None if it is completed, or if the chat asks next."""
    match run.status:
        case RunStatus.paused if not options.chat:
            return Section("paused", _waiting_for(run.requirements), title="Paused")
        case RunStatus.cancelled:
            return Section("cancelled", clean(run.error) or "The run was cancelled.", title="Cancelled")
        case RunStatus.error:
            return Section("error", clean(run.error) or "The run has failed.", title="Error")
        case _:
            return None


def closing_section(output: AnyRunOutput) -> Section:
    """The last line: the run's duration and usage."""
    return Section("closing", output.closing_line())


def error_section(error: BaseException) -> Section:
    """An error that ended the run. Errors that are not Kern's are shown with the name of their class."""
    text = message_of(error).strip()
    if not isinstance(error, KernError) or not text:
        text = error_text(error)
    return Section("error", clean(text), title="Error")


def one_line(text: str) -> str:
    """The text as one line, without control characters."""
    return clean(text).replace("\n", " ")


def _waiting_for(requirements: Sequence[RunRequirement]) -> str:
    lines = ["The run waits for a person."]
    for need in requirements:
        call = format_call(need.tool_name, need.tool_args)
        lines.append(one_line(f"• {_WAITS_FOR[need.kind]}: {call}"))
    return "\n".join(lines)
