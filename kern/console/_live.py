"""The live region: the last lines of the terminal, repainted in place while a run is on.

What is whole is printed above it, once. The region itself is never as high as the terminal, so it never
scrolls, and nothing of it is left in the scrollback.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Sequence

from rich.console import Console, ConsoleRenderable, RenderHook
from rich.control import Control
from rich.file_proxy import FileProxy
from rich.live import Live
from rich.segment import ControlType, Segment

from kern.console._panels import Lines


class _OneUpdate(RenderHook):
    """Asks the terminal to show each repaint as a whole (synchronized output, DEC private mode 2026).

    Terminals that do not know the mode ignore it.
    """

    _BEGIN = Segment("\x1b[?2026h", None, [(ControlType.CARRIAGE_RETURN,)])
    _END = Segment("\x1b[?2026l", None, [(ControlType.CARRIAGE_RETURN,)])

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [Lines([[self._BEGIN]]), *renderables, Lines([[self._END]])]


_claimed: weakref.WeakSet[Console] = weakref.WeakSet()
_claiming = threading.Lock()


class LiveRegion:
    """The live region of one console. A console has one at a time.

    Args:
        console: A console that is a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")
        self._hook = _OneUpdate()
        self._lines: list[list[Segment]] = []
        self._width = console.width

    @classmethod
    def claim(cls, console: Console) -> LiveRegion | None:
        """Start the region; None where another view has it."""
        with _claiming:
            if console in _claimed:
                return None
            _claimed.add(console)
        region = cls(console)
        region._live.start()
        console.push_render_hook(region._hook)
        return region

    def paint(self, lines: list[list[Segment]], above: Sequence[ConsoleRenderable] = ()) -> None:
        """Print `above` for good, and show these lines in place of the last ones, in one write.

        There must be fewer lines than the terminal has.
        """
        with self._console:
            self._follow_width()
            self._lines = lines
            self._live.update(Lines(lines))
            if above:
                self._console.print(*above, sep="\n")
            else:
                self._live.refresh()

    def stop(self, above: Sequence[ConsoleRenderable] = ()) -> None:
        """Print `above`, remove the region, give back the cursor, standard output and standard error."""
        try:
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, FileProxy):
                    stream.flush()  # what a tool has printed without a newline
            self.paint([], above)
        finally:
            self._console.pop_render_hook()
            with _claiming:
                _claimed.discard(self._console)
            self._live.stop()

    def _follow_width(self) -> None:
        """Where the terminal has become narrower, it has wrapped the region's lines: erase the extra rows."""
        width = self._console.width
        if width < self._width:
            extra = sum((Segment.get_line_length(line) - 1) // width for line in self._lines if line)
            erase = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
            self._console.control(Control(*erase * extra))
        self._width = width
