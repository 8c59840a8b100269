"""Blocks as rich panels, and nothing of a model's in them that a terminal would obey."""

from __future__ import annotations

from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.highlighter import JSONHighlighter
from rich.markdown import Markdown
from rich.panel import Panel
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from kern.console._blocks import Block, Format
from kern.console._text import clean, encodable

BORDERS = {
    "message": "cyan",
    "reasoning": "green",
    "calls": "yellow",
    "member": "magenta",
    "response": "blue",
    "paused": "yellow",
    "cancelled": "red",
    "error": "red",
}


@dataclass(slots=True)
class Harmless:
    """Whatever it holds, rendered without control characters, and with none that the encoding lacks.

    Texts are cleaned before they get here, so that widths are right; this stands behind them, for whatever a
    renderer may bring out of a text, and for the frames and bullets that it adds.
    """

    content: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the content, and clean each piece."""
        for segment in console.render(self.content, options):
            if segment.control:
                continue
            yield Segment(encodable(clean(segment.text), options.encoding), segment.style)


@dataclass(slots=True)
class Lines:
    """Lines that are rendered already."""

    lines: list[list[Segment]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield them, without a newline after the last."""
        for index, line in enumerate(self.lines):
            if index:
                yield Segment.line()
            yield from line


def body_of(text: str, form: Format) -> RenderableType:
    """A block's body; `text` is clean. Without `markdown` no character of it has a meaning."""
    if form == "markdown":
        # A link's address is written out: one that hides behind its text could lead anywhere.
        return Markdown(text, hyperlinks=False)
    if form == "list":
        grid = Table.grid(padding=(0, 1))  # what is too long for a line is indented under its beginning
        for line in text.splitlines():
            bullet, _, item = line.partition(" ")
            grid.add_row(Text(bullet), Text(item))
        return grid
    if form == "json":
        return JSONHighlighter()(Text(text))
    return Text(text)


def framed(content: RenderableType, title: str, border: str) -> Panel:
    """Content in the frame that all blocks have."""
    return Panel(
        content,
        title=Text(title),
        title_align="left",
        border_style=border,
        box=box.HEAVY,
        padding=(0, 1),
        expand=True,
    )


def panel_of(block: Block) -> Harmless:
    """A block as it is printed."""
    return Harmless(framed(body_of(block.body, block.format), block.title, BORDERS[block.kind]))
