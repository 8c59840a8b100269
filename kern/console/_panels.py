"""Renders sections as rich panels, without control characters from texts of models and tools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from markdown_it.token import Token
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.highlighter import JSONHighlighter
from rich.markdown import Markdown, MarkdownContext, MarkdownElement, TableElement
from rich.measure import Measurement
from rich.padding import Padding
from rich.panel import Panel
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from kern.console._sections import Format, Section
from kern.console._text import BREAK, breakable, clean, encodable


@dataclass(slots=True)
class Harmless:
    """Renders its content without control characters, and without characters that the encoding lacks.

    Texts are cleaned before they get here, so that widths are right. This is a second line of defence, for
    what a renderer may make of a text, and for the frames and bullets that it adds.
    """

    content: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the content, and clean each piece."""
        for segment in console.render(self.content, options):
            if segment.control:
                continue
            text = clean(segment.text.replace(BREAK, ""))
            yield Segment(encodable(text, options.encoding), segment.style)


@dataclass(slots=True)
class Lines:
    """Lines that were rendered before."""

    lines: list[list[Segment]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield them, without a newline after the last."""
        for index, line in enumerate(self.lines):
            if index:
                yield Segment.line()
            yield from line


def body_of(text: str, form: Format) -> RenderableType:
    """A section's body. `text` is clean; it is literal text unless `form` is "markdown" or "json"."""
    if form == "markdown":
        return WholeMarkdown(text)
    if form == "json":
        return JSONHighlighter()(Text(breakable(text)))
    return Text(breakable(text))


def framed(content: RenderableType, title: str) -> Panel:
    """Content in the frame that an answer has."""
    return Panel(
        content,
        title=Text(title, "bold") if title else None,
        title_align="left",
        border_style="dim",
        box=box.ROUNDED,
        padding=(0, 1),
        expand=True,
    )


def rendered(section: Section, color: str) -> Harmless:
    """A section as it is printed.

    Args:
        section: The section.
        color: The color of the member that it is about.
    """
    return Harmless(_rendered(section, color))


def _rendered(section: Section, color: str) -> RenderableType:
    body = body_of(section.body, section.format)
    text, name = breakable(section.body), Text.assemble((section.name, color))
    match section.kind:
        case "message":
            return _hanging(Text(section.marker, "bold cyan"), Text(text), 0)
        case "step" | "failure":
            style = "red" if section.kind == "failure" else "dim"
            line = name
            if section.name and section.body:
                line += Text(": ", "dim")
            return _hanging(Text(section.marker, style), line + Text(text, style), 2)
        case "change":
            return _hanging(Text(section.marker, "dim"), Text(text, "dim"), 6)
        case "reasoning":
            heading = name + Text(" " * bool(section.name) + section.title, "dim")
            return Group(heading, Padding(Text(text, "dim italic"), (0, 0, 0, 2)))
        case "member":
            heading = name + Text(f" ({section.title})", "dim")
            return Group(heading, Padding(body, (0, 0, 0, 2)))
        case "said":
            return body
        case "answer":
            return framed(body, section.title)
        case "closing":
            return Text(section.body, "dim")
        case "paused" | "cancelled" | "error":
            style = "yellow" if section.kind == "paused" else "red"
            return Group(Text(f"{section.title}:", f"bold {style}"), Text(text))


def _hanging(marker: Text, text: Text, indent: int) -> RenderableType:
    """A line that is indented under its beginning where it wraps."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column(overflow="fold")  # "…" would take the end of a long word away
    grid.add_row(marker, text)
    return Padding(grid, (0, 0, 0, indent))


# rich's Markdown, changed so that no text is lost in tables, in HTML, and in deeply nested parts.

_ANY = 1_000_000
"""A width at which every table fits."""

_DEEPEST = 17
"""Levels of nested tokens that are laid out. The parser drops text below its own limit of 20."""
_COLUMNS = {"blockquote": 4, "list_item": 5}
"""The maximum number of columns by which each level of these indents."""
_LEAST_TEXT = 8


class WholeTable(TableElement):
    """A table that does not break words. If its longest words need more width, each row becomes a list."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the table."""
        for table in super().__rich_console__(console, options):
            if not isinstance(table, Table):
                yield table
                continue
            table.show_edge = False
            wide = options.update(width=_ANY)
            needed = table.__rich_measure__(console, wide)
            if needed.minimum > options.max_width:
                yield from _rows_as_lists(table)
                continue
            if needed.maximum > options.max_width:
                _divide(table, options.max_width - needed.minimum, console, wide)
            for column in table.columns:
                column.overflow = "fold"
            yield table


def _divide(table: Table, room: int, console: Console, wide: ConsoleOptions) -> None:
    """Give each column the width of its longest word, and a share of the rest; rich would break words."""
    columns = []
    for column in table.columns:
        cells = [Measurement.get(console, wide, cell) for cell in (column.header, *column.cells)]
        least = max(cell.minimum for cell in cells)
        columns.append((column, least, max(cell.maximum for cell in cells) - least))
    for left, (column, least, more) in enumerate(sorted(columns, key=lambda each: each[2])):
        share = min(more, room // (len(columns) - left))
        column.width = least + share
        room -= share


def _rows_as_lists(table: Table) -> Iterator[RenderableType]:
    """Each row as lines, one for each cell below the name of its column."""
    headers = [column.header for column in table.columns]
    for number, row in enumerate(zip(*(column.cells for column in table.columns), strict=False)):
        if number:
            yield Text()
        for header, cell in zip(headers, row, strict=True):
            line = _text(header) + Text(": ") + _text(cell)
            line.justify = "left"
            yield line


def _text(cell: RenderableType) -> Text:
    return cell.copy() if isinstance(cell, Text) else Text(str(cell))


class HtmlBlock(MarkdownElement):
    """Shows the source of HTML, which rich leaves out."""

    def __init__(self) -> None:
        self._text = ""

    def on_text(self, context: MarkdownContext, text: str | Text) -> None:
        """The block's source."""
        self._text += str(text)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render it."""
        yield Text(self._text.rstrip("\n"), overflow="fold")


class WholeMarkdown(Markdown):
    """Markdown that shows all of its text.

    The address of a link is written out, since an address hidden behind a text could lead anywhere. Code has
    the terminal's own colors and background, dark or light.
    """

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "table_open": WholeTable,
        "html_block": HtmlBlock,
    }

    def __init__(self, markup: str) -> None:
        super().__init__(markup, hyperlinks=False, code_theme="ansi_dark")
        for token in self.parsed:
            for child in token.children or ():
                if child.type == "text":
                    child.content = breakable(child.content)
                elif child.type == "html_inline":
                    is_break = child.content.replace(" ", "").lower() in ("<br>", "<br/>")
                    child.type = "hardbreak" if is_break else "text"
        self._depth = max((token.level for token in self.parsed), default=0)
        self._indent = _deepest_indent(self.parsed)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render it, or show its source if it is nested too deeply to be laid out."""
        if self._depth > _DEEPEST or self._indent + _LEAST_TEXT > options.max_width:
            yield Text(self.markup)
        else:
            yield from super().__rich_console__(console, options)


def _deepest_indent(tokens: Iterable[Token]) -> int:
    """The indentation of the most deeply nested text, in columns."""
    indent = deepest = 0
    for token in tokens:
        kind = token.type.removesuffix("_open").removesuffix("_close")
        indent += token.nesting * _COLUMNS.get(kind, 0)
        deepest = max(deepest, indent)
    return deepest
