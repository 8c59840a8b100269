"""The live region: the last lines of the terminal, which are repainted in place while a run is in progress.

What is complete is printed above the region, once. The region has always fewer lines than the terminal, so it
does not scroll and leaves nothing in the scrollback. Its last row is empty and has the cursor, so that what
the terminal echoes ("^C") does not move the rows above.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from weakref import WeakKeyDictionary

from rich.ansi import AnsiDecoder
from rich.console import Console, ConsoleRenderable, Group, RenderHook
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment

from kern.console._files import is_terminal
from kern.console._panels import Harmless, Lines
from kern.console._redirect import redirect


class _OneUpdate(RenderHook):
    """Asks the terminal to show each repaint as a whole (synchronized output, DEC private mode 2026).

    Terminals that do not know the mode ignore it.
    """

    _BEGIN = Segment("\x1b[?2026h", None, [(ControlType.CARRIAGE_RETURN,)])
    _END = Segment("\x1b[?2026l", None, [(ControlType.CARRIAGE_RETURN,)])

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [Lines([[self._BEGIN]]), *renderables, Lines([[self._END]])]


_CURSOR_ROW = [Segment(" ")]  # rich leaves a last line that is empty out

_regions: WeakKeyDictionary[Console, LiveRegion] = WeakKeyDictionary()
_mutex = threading.Lock()


def _nothing() -> None:
    """Does nothing; for streams that were not redirected."""


class LiveRegion:
    """The live region of one console. A console has at most one at a time.

    Only `paint` and `stop` write to the terminal, and the caller must not call them at the same time. All
    other output waits for the next repaint: of two writers, each would move the cursor by a region that the
    other one has changed.

    Args:
        console: A console that is a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="crop",
        )
        self._above: deque[ConsoleRenderable | str] = deque()
        self._ansi = AnsiDecoder()
        self._lines: list[list[Segment]] = []
        self._width = console.width
        self._give_back: Callable[[], None] = _nothing

    @classmethod
    def claim(cls, console: Console) -> LiveRegion | None:
        """Start the region; returns None if another view has it."""
        with _mutex:
            if console in _regions:
                return None
            _regions[console] = region = cls(console)
        region._live.start()
        console.push_render_hook(_OneUpdate())
        if is_terminal(console.file):
            region._give_back = redirect(region._above.append)
        return region

    @staticmethod
    def print_above(console: Console, blocks: Sequence[ConsoleRenderable]) -> bool:
        """Print blocks above the console's region, if it has one."""
        with _mutex:
            region = _regions.get(console)
            if region is not None:
                region._above.extend(blocks)
            return region is not None

    def paint(self, lines: list[list[Segment]], above: Sequence[ConsoleRenderable] = ()) -> None:
        """Print `above` permanently, and replace the region's lines, in one write.

        There must be fewer lines than the terminal has.
        """
        waiting = [self._above.popleft() for _ in range(len(self._above))]
        with self._console:
            self._follow_width()
            self._lines = lines
            # Set the new region before printing above it: otherwise rich draws the old one again below what
            # is printed, and the next refresh leaves its rows empty.
            self._live.update(Lines([*lines, _CURSOR_ROW] if lines else []), refresh=True)
            for printed, items in groupby((*waiting, *above), key=lambda item: isinstance(item, str)):
                if printed:
                    # The terminal wraps long lines, so that they can be copied as one line.
                    text = (self._ansi.decode_line(str(line)) for line in items)
                    self._console.print(Group(*map(Harmless, text)), soft_wrap=True)
                else:
                    self._console.print(*items)

    def stop(self, above: Sequence[ConsoleRenderable] = ()) -> None:
        """Print `above`, remove the region, and restore the cursor, standard output and standard error."""
        with _mutex:
            try:
                self._give_back()
                self.paint([], above)
            finally:
                _regions.pop(self._console, None)
                self._console.pop_render_hook()
                self._live.stop()

    def _follow_width(self) -> None:
        """Erase the extra rows if the terminal became narrower and wrapped the region's lines."""
        width = self._console.width
        if width < self._width:
            extra = sum((Segment.get_line_length(line) - 1) // width for line in self._lines if line)
            erase = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
            self._console.control(Control(*erase * extra))
        self._width = width
