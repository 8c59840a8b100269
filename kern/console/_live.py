"""The live region: the last lines of the terminal, repainted in place while a run is on.

What is whole is printed above it, once. The region itself is never as high as the terminal, so it never
scrolls, and nothing of it is left in the scrollback. Its last row is empty and holds the cursor: what the
terminal echoes there ("^C") neither wraps nor moves the rows above.
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
    """What there is to give back where nothing was taken."""


class LiveRegion:
    """The live region of one console; a console has one at a time.

    Only `paint` and `stop` write to the terminal, and their caller sees to it that they take turns. Whatever
    else is to be seen in the meantime waits for the next repaint: two writers would each move the cursor
    by a region that the other has changed.

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
        """Start the region; None where another view has it."""
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
        """Have the console's region, if there is one now, print these blocks above itself."""
        with _mutex:
            region = _regions.get(console)
            if region is not None:
                region._above.extend(blocks)
            return region is not None

    def paint(self, lines: list[list[Segment]], above: Sequence[ConsoleRenderable] = ()) -> None:
        """Print `above` for good, and show these lines in place of the last ones, in one write.

        There must be fewer lines than the terminal has.
        """
        waiting = [self._above.popleft() for _ in range(len(self._above))]
        with self._console:
            self._follow_width()
            self._lines = lines
            # The region as it is to be, before anything is printed above it: rich would draw the old one
            # again below what is printed, and the next refresh would leave its rows empty.
            self._live.update(Lines([*lines, _CURSOR_ROW] if lines else []), refresh=True)
            for printed, items in groupby((*waiting, *above), key=lambda item: isinstance(item, str)):
                if printed:
                    # No line is broken here that the terminal would not break: it can be copied as it was.
                    text = (self._ansi.decode_line(str(line)) for line in items)
                    self._console.print(Group(*map(Harmless, text)), soft_wrap=True)
                else:
                    self._console.print(*items)

    def stop(self, above: Sequence[ConsoleRenderable] = ()) -> None:
        """Print `above`, remove the region, give back the cursor, standard output and standard error."""
        with _mutex:
            try:
                self._give_back()
                self.paint([], above)
            finally:
                _regions.pop(self._console, None)
                self._console.pop_render_hook()
                self._live.stop()

    def _follow_width(self) -> None:
        """Where the terminal has become narrower, it has wrapped the region's lines: erase the extra rows."""
        width = self._console.width
        if width < self._width:
            extra = sum((Segment.get_line_length(line) - 1) // width for line in self._lines if line)
            erase = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
            self._console.control(Control(*erase * extra))
        self._width = width
