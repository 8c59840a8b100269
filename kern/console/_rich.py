"""The view for terminals: panels, and a live region while the run is on (rich, the extra `console`)."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from rich.console import Console

from kern.console._live import LiveRegion
from kern.console._panels import Harmless, panel_of
from kern.console._progress import Progress, RunProgress, progress_of
from kern.console._screen import Screen
from kern.console._sections import (
    Section,
    answer_section,
    calls_section,
    closing_sections,
    ending_section,
    error_section,
    member_sections,
    message_section,
    reasoning_section,
)
from kern.console._view import View, ViewOptions, mark_shown
from kern.run.events import (
    TERMINAL_EVENTS,
    BaseRunEvent,
    ModelRequestStartedEvent,
    RunContentEvent,
    ToolCallStartedEvent,
)
from kern.run.output import AnyRunOutput

_PAUSE = 1 / 12
"""Seconds between two repaints."""
_REST = 4
"""A repaint is followed by a rest of this many times its CPU time: it never takes over a fifth of a core."""
_ENDS_REASONING = (RunContentEvent, ToolCallStartedEvent, ModelRequestStartedEvent, *TERMINAL_EVENTS)


class RichView(View):
    """Panels for what is whole; below them, on a terminal, a live region for what is under way.

    An event is only queued; a thread of the view's own takes the events in and repaints, some times a
    second. So neither a token nor a slow terminal costs the event loop anything. `finish` and the exit
    draw on the caller's thread.

    Args:
        message: What the user said.
        options: What to show.
        stream: Show text as it arrives.
        console: Where to. The live region is left out where it is no terminal, or another view has it.
    """

    def __init__(self, message: str, options: ViewOptions, *, stream: bool, console: Console) -> None:
        self._message = message
        self._options = options
        self._console = console
        self._progress = Progress()
        self._screen = Screen(console, self._progress, options, stream=stream)
        self._region: LiveRegion | None = None
        self._events: deque[BaseRunEvent] = deque()
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._failure: Exception | None = None
        self._closed = False
        self._reasoned = 0

    def __enter__(self) -> Self:
        with self._lock, self._writing():
            if self._options.show_message:
                self._print([section for section in (message_section(self._message),) if section])
            if self._console.is_interactive:
                self._region = LiveRegion.claim(self._console)
        if self._region is not None:
            threading.Thread(target=self._keep_painting, name="kern-console", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._close(self._left_over)
            return
        with suppress(Exception):  # the body's own error, or cancellation, is the one to see
            self._close(self._left_over)

    def event(self, event: BaseRunEvent) -> None:
        """Take in one event; it is shown at the next repaint."""
        self._raise_failure()
        if self._closed:
            return
        if self._region is not None:
            self._events.append(event)
            return
        with self._lock, self._writing():
            self._print(self._take(event))

    def finish(self, output: AnyRunOutput) -> None:
        """Show the end in place of the live region."""
        self._close(lambda: self._finished(output))

    def fail(self, error: BaseException) -> None:
        """Show what there was, and the error."""
        with suppress(OSError):  # the run's error is the one to see
            self._close(lambda: [*self._left_over(ending=False), error_section(error)])
        mark_shown(error)

    def _keep_painting(self) -> None:
        pause = _PAUSE
        while not self._closing.wait(pause):
            began = time.thread_time()
            with self._lock:
                if self._closed:
                    return
                try:
                    self._paint()
                except Exception as error:  # noqa: BLE001 -- raised again on the caller's thread
                    self._give_up(error)
                    return
            pause = max(_PAUSE, _REST * (time.thread_time() - began))

    def _paint(self) -> None:
        assert self._region is not None
        with self._writing():
            panels = [panel_of(section) for section in self._waiting()]
            self._region.paint(self._screen.lines(), panels)

    def _give_up(self, error: Exception) -> None:
        self._failure = error
        self._closed = True
        if self._region is not None:
            with suppress(OSError):
                self._region.stop()

    def _raise_failure(self) -> None:
        error, self._failure = self._failure, None
        if error is not None:
            raise error

    def _close(self, last: Callable[[], Iterable[Section]]) -> None:
        """Show what waits, then the `last` sections, and give the terminal back; once."""
        self._raise_failure()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._closing.set()
            region, self._region = self._region, None
            with self._writing():
                if region is None:
                    self._print([*self._waiting(), *last()])
                    return
                panels: list[Harmless] = []
                try:
                    panels += [panel_of(section) for section in (*self._waiting(), *last())]
                finally:
                    region.stop(panels)

    def _print(self, sections: Sequence[Section]) -> None:
        panels = [panel_of(section) for section in sections]
        if panels and not LiveRegion.print_above(self._console, panels):
            self._console.print(*panels)

    def _waiting(self) -> list[Section]:
        """Take in the events that wait; returns the sections that are whole with them."""
        sections: list[Section] = []
        while self._events:
            sections += self._take(self._events.popleft())
        return sections

    def _take(self, event: BaseRunEvent) -> list[Section]:
        run = self._progress.apply(event)
        if run is not self._progress.top:
            if self._options.show_member_responses and isinstance(event, TERMINAL_EVENTS):
                return list(member_sections(run, self._options))
            return []
        return self._reasoning(run) if isinstance(event, _ENDS_REASONING) else []

    def _reasoning(self, run: RunProgress) -> list[Section]:
        """The reasoning that is whole and was not shown yet."""
        shown = min(self._reasoned, len(run.reasoning.text))
        self._reasoned = len(run.reasoning.text)
        if not self._options.show_reasoning:
            return []
        section = reasoning_section(run.reasoning.text[shown:])
        return [section] if section else []

    def _finished(self, output: AnyRunOutput) -> list[Section]:
        top = self._progress.top
        if top is not None:
            top.finish(output)
            return self._left_over()
        *members, top = progress_of(output)
        sections: list[Section] = []
        if self._options.show_member_responses:
            for member in members:
                sections += member_sections(member, self._options)
        return [*sections, *closing_sections(top, self._options)]

    def _left_over(self, *, ending: bool = True) -> list[Section]:
        """What the events have told and no panel has shown."""
        top = self._progress.top
        if top is None:
            return []
        sections: list[Section | None] = []
        if self._options.show_member_responses:
            for member in self._progress.members():
                if not member.ended:
                    sections += member_sections(member, self._options)
        sections += self._reasoning(top)
        sections += [calls_section(top), answer_section(top, self._options)]
        if ending:
            sections.append(ending_section(top))
        return [section for section in sections if section is not None]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A write that fails closes the view; rich's own answer to a broken pipe is to exit the program."""
        try:
            yield
        except OSError:
            self._closed = True
            raise
        except SystemExit as error:
            self._closed = True
            if isinstance(error.__context__, BrokenPipeError):
                raise error.__context__ from None
            raise
