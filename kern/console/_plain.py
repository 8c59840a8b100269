"""The view for pipes, files and terminals without rich: text as it comes, headings, no escape codes."""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType
from typing import Self, TextIO

from kern.console._files import write_text
from kern.console._progress import Progress, RunProgress, progress_of
from kern.console._sections import (
    Section,
    answer_section,
    closing_sections,
    describe_call,
    ending_section,
    error_section,
    member_sections,
    message_section,
)
from kern.console._text import clean, first_line, same_json
from kern.console._view import View, ViewOptions, mark_shown
from kern.run.events import (
    TERMINAL_EVENTS,
    BaseRunEvent,
    ModelRetryEvent,
    ReasoningContentDeltaEvent,
    RunContentEvent,
    ToolCallCompletedEvent,
)
from kern.run.output import AnyRunOutput
from kern.run.tool_execution import ToolExecution


class PlainView(View):
    """Writes the leader's text as it arrives, and each member's when the member is done.

    Args:
        message: What the user said.
        options: What to show.
        stream: Write while the run is on, not only at its end.
        file: Where to; None (a program without a standard output) is nowhere.
    """

    def __init__(self, message: str, options: ViewOptions, *, stream: bool, file: TextIO | None) -> None:
        self._message = message
        self._options = options
        self._stream = stream
        self._file = file
        self._progress = Progress()
        self._section = ""
        self._empty = True
        self._at_line_start = True
        self._done = False

    def __enter__(self) -> Self:
        if self._options.show_message:
            self._show(message_section(self._message))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._close()
            return
        with suppress(OSError, ValueError):  # the body's own error is the one to see
            self._close()

    def event(self, event: BaseRunEvent) -> None:
        """Take in one event; the text of the top-level run is written at once."""
        if not self._stream:
            return
        run = self._progress.run_of(event.source)
        if run is not self._progress.top:
            self._progress.apply(event)
            if isinstance(event, TERMINAL_EVENTS) and self._options.show_member_responses:
                self._show(*member_sections(run, self._options))
            return
        match event:
            case RunContentEvent(content=str(piece)):
                self._add("Response", run.answer.append(piece))
            case ReasoningContentDeltaEvent(reasoning_content=piece) if self._options.show_reasoning:
                self._add("Reasoning", run.reasoning.append(piece))
            case ModelRetryEvent():
                self._retry(run, event)
            case ToolCallCompletedEvent(tool=ToolExecution() as call):
                self._progress.apply(event)
                title = "Team Tool Calls" if run.is_team else "Tool Calls"
                self._add(title, f"• {describe_call(call)}\n")
            case _:
                self._progress.apply(event)

    def finish(self, output: AnyRunOutput) -> None:
        """Write what was not streamed."""
        self._done = True
        top = self._progress.top
        if top is None:
            *members, top = progress_of(output)
            if self._options.show_member_responses:
                for member in members:
                    self._show(*member_sections(member, self._options))
            self._show(*closing_sections(top, self._options))
        else:
            self._finish_run(top, output)
        self._end_line()

    def fail(self, error: BaseException) -> None:
        """Write the error."""
        self._done = True
        with suppress(OSError):  # the run's error is the one to see
            self._show(error_section(error))
        mark_shown(error)

    def _finish_run(self, top: RunProgress, output: AnyRunOutput) -> None:
        written = top.answer.text
        top.finish(output)
        as_text = top.structured is None
        shown = top.answer.text == written if as_text else same_json(written, top.structured)
        if not shown:
            self._show(answer_section(top, self._options))
        self._show(ending_section(top))

    def _retry(self, run: RunProgress, event: ModelRetryEvent) -> None:
        before = len(run.answer.text) + len(run.reasoning.text)
        self._progress.apply(event)
        if len(run.answer.text) + len(run.reasoning.text) < before:
            self._end_line()
            self._write(f"[trying again, the text above is void: {clean(first_line(event.error, 200))}]\n")
            self._section = ""

    def _close(self) -> None:
        if not self._done and self._progress.top is not None:
            self._show(ending_section(self._progress.top))
        self._done = True
        self._end_line()

    def _show(self, *sections: Section | None) -> None:
        for section in sections:
            if section is not None:
                self._heading(section.title)
                self._write(section.body.rstrip("\n") + "\n")

    def _add(self, section: str, piece: str) -> None:
        if section != self._section:
            piece = piece.lstrip("\n")
            if not piece:
                return
            self._heading(section)
            self._section = section
        self._write(clean(piece))

    def _heading(self, title: str) -> None:
        self._end_line()
        self._write(f"{title}:\n" if self._empty else f"\n{title}:\n")
        self._section = ""

    def _end_line(self) -> None:
        if not self._at_line_start:
            self._write("\n")

    def _write(self, text: str) -> None:
        if self._file is None or not text:
            return
        try:
            write_text(self._file, text)
        except (OSError, ValueError):
            self._file = None  # the reader has gone, or the file is closed: nothing more is tried
            raise
        self._empty = False
        self._at_line_start = text.endswith("\n")
