"""The view for pipes, files and terminals without rich: text and headings, without escape codes."""

from __future__ import annotations

import threading
from contextlib import suppress
from types import TracebackType
from typing import Self, TextIO
from weakref import WeakSet

from kern.console._files import write_text
from kern.console._progress import RunProgress
from kern.console._sections import Section, error_section, message_section, one_line
from kern.console._story import Story
from kern.console._text import clean, first_line, same_json
from kern.console._view import View, ViewOptions, mark_shown
from kern.run.events import BaseRunEvent, ModelRetryEvent, RunContentEvent
from kern.run.output import AnyRunOutput

_begun: WeakSet[TextIO] = WeakSet()
"""Files to which a run was written before. An empty line separates two runs."""


class PlainView(View):
    """Writes the leader's text as it arrives, and everything else line by line.

    Args:
        message: The user's message.
        options: What to show.
        stream: Write while the run is in progress, not only at its end.
        file: Where to write; None, for a program without standard output, writes nothing.
    """

    def __init__(self, message: str, options: ViewOptions, *, stream: bool, file: TextIO | None) -> None:
        self._message = message
        self._options = options
        self._stream = stream
        self._file = file
        self._story = Story(options)
        self._lock = threading.RLock()
        self._last: Section | None = None
        self._in_answer = False
        self._at_line_start = True
        self._written = False
        self._done = False

    def __enter__(self) -> Self:
        if self._options.show_message and (message := message_section(self._message)):
            self._show([message])
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
        """Take in one event. With `stream`, the text of the top-level run is written at once."""
        with self._lock:
            progress = self._story.progress
            before = progress.top.answer.text if progress.top is not None else ""
            sections = self._story.take(event)
            if self._in_answer:  # which stands there already
                sections = [section for section in sections if section.kind != "said"]
            top = progress.top
            if top is not None and progress.runs.get(event.source.run_id) is top:
                if isinstance(event, ModelRetryEvent):
                    self._retry(top, event, before)
                self._show(sections)
                if self._stream and isinstance(event, RunContentEvent) and top.structured is None:
                    self._answer(top, top.answer.text[len(before) :])
            else:
                self._show(sections)

    def finish(self, output: AnyRunOutput) -> None:
        """Write what was not written yet."""
        with self._lock:
            self._done = True
            top = self._story.progress.top
            written = top.unprinted if top is not None and self._in_answer else None
            sections = self._story.finish(output)
            if written is not None and top is not None:
                as_text = top.structured is None
                same = top.unprinted == written if as_text else same_json(written, top.structured)
                if same:
                    sections = [section for section in sections if section.kind != "answer"]
            self._show(sections)
            self._end_line()

    def fail(self, error: BaseException) -> None:
        """Write the error."""
        with self._lock, suppress(OSError):  # the run's error is the one to see
            self._done = True
            left = self._story.left_over(ending=False)
            self._show([section for section in left if section.kind != "answer" or not self._in_answer])
            self._show([error_section(error)])
        mark_shown(error)

    def _answer(self, run: RunProgress, piece: str) -> None:
        """Write a piece of the answer, under its heading."""
        if not self._in_answer:
            piece = piece.lstrip("\n")
            if not piece:
                return
            self._separate(Section("answer", "", title=run.title))
            if run.title:
                self._write(f"{one_line(run.title)}:\n")
            self._in_answer = True
        self._write(clean(piece))

    def _retry(self, run: RunProgress, event: ModelRetryEvent, before: str) -> None:
        if self._in_answer and len(run.answer.text) < len(before):
            self._end_line()
            self._write(f"[trying again, the text above is void: {clean(first_line(event.error, 200))}]\n")
            self._in_answer = False

    def _close(self) -> None:
        with self._lock:
            top = self._story.progress.top
            if not self._done and top is not None:
                left = self._story.left_over()
                self._show([section for section in left if section.kind != "answer" or not self._in_answer])
            self._done = True
            self._end_line()

    def _show(self, sections: list[Section]) -> None:
        for section in sections:
            self._end_line()
            self._in_answer = False
            self._separate(section)
            self._write(_plain(section))

    def _separate(self, section: Section) -> None:
        """Separate sections by an empty line, except the one-line steps of a run."""
        self._end_line()
        last, self._last = self._last, section
        if last is not None and not (last.is_line and section.is_line):
            self._write("\n")

    def _end_line(self) -> None:
        if not self._at_line_start:
            self._write("\n")

    def _write(self, text: str) -> None:
        if self._file is None or not text:
            return
        if not self._written:
            self._written = True
            text = self._gap() + text
        try:
            write_text(self._file, text)
        except (OSError, ValueError):
            self._file = None  # the reader has gone, or the file is closed: nothing more is tried
            raise
        self._at_line_start = text.endswith("\n")

    def _gap(self) -> str:
        """Write the empty line between two runs in one file."""
        try:
            again = self._file in _begun
            _begun.add(self._file)  # type: ignore[arg-type]  # it is not None here
        except TypeError:  # it cannot be remembered
            return ""
        return "\n" if again else ""


def _plain(section: Section) -> str:
    """A section as it is written."""
    body = section.body.rstrip("\n")
    named = f"{section.name}: " if section.name and body else section.name
    match section.kind:
        case "message":
            return f"{section.marker} {body}\n"
        case "step" | "failure":
            return f"  {section.marker or ' '} {named}{body}\n"
        case "change":
            return f"      {section.marker} {body}\n"
        case "closing":
            return f"{body}\n"
        case "member":
            return f"{section.name} ({section.title}):\n{body}\n"
        case _:
            heading = " ".join(part for part in (section.name, section.title) if part)
            return f"{heading}:\n{body}\n" if heading else f"{body}\n"
