"""The view for terminals (extra `console`): panels, and a live region while the run is in progress."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self
from weakref import WeakSet

from rich.console import Console, ConsoleRenderable
from rich.text import Text

from kern.console._live import LiveRegion
from kern.console._panels import rendered
from kern.console._screen import Screen
from kern.console._sections import Section, error_section, message_section
from kern.console._story import Story
from kern.console._view import View, ViewOptions, mark_shown
from kern.run.events import BaseRunEvent
from kern.run.output import AnyRunOutput

_PAUSE = 1 / 12
"""Seconds between two repaints."""
_REST = 4
"""After a repaint the thread sleeps this many times its CPU time: it takes at most a fifth of a core."""
_COLORS = ("cyan", "magenta", "green", "blue", "bright_cyan", "bright_magenta", "bright_green", "bright_blue")
"""The colors of members, in the order of their first appearance."""

_begun: WeakSet[Console] = WeakSet()
"""Consoles on which a run was shown before. An empty line separates two runs."""


class RichView(View):
    """Prints what is complete; below it, on a terminal, a live region shows what is in progress.

    Events are only queued. A thread of the view processes them and repaints a few times per second, so that
    neither a token nor a slow terminal holds up the event loop. `finish` and the exit draw on the caller's
    thread.

    Args:
        message: The user's message.
        options: What to show.
        stream: Show text as it arrives.
        console: The console. There is no live region if it is not a terminal, or another view has the region.
    """

    def __init__(self, message: str, options: ViewOptions, *, stream: bool, console: Console) -> None:
        self._message = message
        self._options = options
        self._console = console
        self._story = Story(options)
        self._screen = Screen(console, self._story.progress, options, self.color_of, stream=stream)
        self._region: LiveRegion | None = None
        self._events: deque[BaseRunEvent] = deque()
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._failure: Exception | None = None
        self._closed = False
        self._colors: dict[str, str] = {}
        self._last: Section | None = None

    def __enter__(self) -> Self:
        with self._lock, self._writing():
            if self._options.chat or self._console in _begun:
                self._print_raw([Text()])
            _begun.add(self._console)
            if self._options.show_message and (message := message_section(self._message)):
                self._print([message])
            if self._console.is_interactive:
                self._region = LiveRegion.claim(self._console)
        if self._region is not None:
            threading.Thread(target=self._keep_painting, name="kern-console", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._close(self._story.left_over)
            return
        with suppress(Exception):  # the body's own error, or cancellation, is the one to see
            self._close(self._story.left_over)

    def event(self, event: BaseRunEvent) -> None:
        """Take in one event; it is shown at the next repaint."""
        self._raise_failure()
        if self._closed:
            return
        if self._region is not None:
            self._events.append(event)
            return
        with self._lock, self._writing():
            self._print(self._story.take(event))

    def finish(self, output: AnyRunOutput) -> None:
        """Show the end in place of the live region."""
        self._close(lambda: self._story.finish(output))

    def fail(self, error: BaseException) -> None:
        """Show what has happened so far, and the error."""
        with suppress(OSError):  # the run's error is the one to see
            self._close(lambda: [*self._story.left_over(ending=False), error_section(error)])
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
            panels = list(self._panels(self._waiting()))
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
        """Show what is queued and the `last` sections, and restore the terminal. Only the first call acts."""
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
                panels: list[ConsoleRenderable] = []
                try:
                    panels += self._panels((*self._waiting(), *last()))
                finally:
                    region.stop(panels)

    def _print(self, sections: Sequence[Section]) -> None:
        self._print_raw(list(self._panels(sections)))

    def _print_raw(self, panels: Sequence[ConsoleRenderable]) -> None:
        if panels and not LiveRegion.print_above(self._console, panels):
            self._console.print(*panels)

    def _waiting(self) -> list[Section]:
        """Process the queued events; returns the sections that they complete."""
        sections: list[Section] = []
        while self._events:
            sections += self._story.take(self._events.popleft())
        return sections

    def color_of(self, name: str) -> str:
        """The color of a member; colors repeat once all are used."""
        return self._colors.setdefault(name, _COLORS[len(self._colors) % len(_COLORS)])

    def _panels(self, sections: Iterable[Section]) -> Iterator[ConsoleRenderable]:
        """The sections as they are printed, separated by empty lines, except the one-line steps of a run."""
        for section in sections:
            last, self._last = self._last, section
            if last is not None and not (last.is_line and section.is_line) and section.kind != "closing":
                yield Text()
            yield rendered(section, self.color_of(section.name) if section.name else "")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Close the view if a write fails, and raise the error. On a broken pipe rich itself would exit."""
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
