"""The content of the live region: who is working at what, and the end of the text that is being written."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, RenderableType
from rich.segment import Segment
from rich.text import Text

from kern.console._panels import Harmless, Lines, body_of, framed
from kern.console._progress import Progress, RunProgress
from kern.console._sections import one_line
from kern.console._tail import MarkdownTail
from kern.console._text import clean, content_text, first_line, format_call, format_seconds
from kern.console._view import ViewOptions

_DOTS = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_DASHES = "|/-\\"
_DELEGATIONS = ("delegate_task_to_member", "delegate_task_to_members")
_SMALLEST_PANEL = 5

RenderedLines = list[list[Segment]]


class Screen:
    """Lays out the live region, with fewer lines than the terminal.

    The text is rendered again only if it has grown, and only the end of it that fits. The cost of a repaint
    therefore does not depend on the length of the answer.

    Args:
        console: The terminal.
        progress: What the runs have done so far.
        options: What to show.
        color_of: The color of a member.
        stream: Show text as it arrives.
    """

    def __init__(
        self,
        console: Console,
        progress: Progress,
        options: ViewOptions,
        color_of: Callable[[str], str],
        *,
        stream: bool,
    ) -> None:
        self._console = console
        self._progress = progress
        self._options = options
        self._color_of = color_of
        self._stream = stream
        self._began = time.monotonic()
        self._tail = MarkdownTail()
        self._rendered: tuple[tuple[str, int, int], RenderedLines] | None = None

    def lines(self) -> RenderedLines:
        """The present lines of the region."""
        room = self._console.height - 1
        text, what = self._text()
        status = self._status()
        most = max(1, room // 2) if text else max(1, room)
        if len(status) > most:
            hidden = len(status) - most + 1
            status = [Text(f"… {hidden} more"), *status[hidden:]]
        lines = self._body(text, what, room - len(status)) if text else []
        for line in status:
            line.no_wrap, line.overflow = True, "ellipsis"
            lines += self._render(line, self._console.width)
        return lines

    def _text(self) -> tuple[str, str]:
        """The text that the leader has written so far, and its kind (answer or reasoning)."""
        top = self._progress.top
        if top is None or not self._stream:
            return "", ""
        if self._options.show_reasoning and not top.answer.turn and (reasoning := top.reasoning.turn):
            return reasoning, "reasoning"
        if top.structured is not None:
            return content_text(top.structured)[0], "json"
        return top.unprinted, "answer"

    def _body(self, text: str, what: str, room: int) -> RenderedLines:
        width = self._console.width
        if room < _SMALLEST_PANEL:
            return self._end_of(text, what, width, room)
        inner = self._end_of(text, what, width - 4, room - 2)
        elapsed = format_seconds(time.monotonic() - self._began)
        top = self._progress.top
        title = "Reasoning" if what == "reasoning" else one_line(top.title if top is not None else "")
        return self._render(framed(Lines(inner), f"{title} ({elapsed})".lstrip()), width)

    def _end_of(self, text: str, what: str, width: int, height: int) -> RenderedLines:
        """The last lines of the text, at most `height`."""
        if height <= 0 or width <= 0:
            return []
        key = (text, width, height)
        if self._rendered is None or self._rendered[0] != key:
            markdown = self._options.markdown and what == "answer"
            render = self._end_of_markdown if markdown else self._end_of_plain
            self._rendered = key, render(text, width, height)[-height:]
        return self._rendered[1]

    def _end_of_plain(self, text: str, width: int, height: int) -> RenderedLines:
        return self._render(body_of(clean(text[-width * height :]).strip("\n"), "text"), width)

    def _end_of_markdown(self, text: str, width: int, height: int) -> RenderedLines:
        """The shortest end of the text that fills the height, since rendering Markdown is expensive."""
        full = width * height
        for size in (min(_size_of_lines(text, height), full), full):
            cut = self._tail.cut(text, size)
            lines = self._render(body_of(clean(cut).strip("\n"), "markdown"), width)
            if len(lines) >= height or len(cut) >= len(text):
                break
        return lines

    def _render(self, content: RenderableType, width: int) -> RenderedLines:
        options = self._console.options.update(width=width, height=None)
        return self._console.render_lines(Harmless(content), options, pad=False)

    def _status(self) -> list[Text]:
        """One line for each call and each member in progress, and for the leader if it shows no text."""
        now = time.monotonic()
        frames = _DASHES if self._console.options.ascii_only else _DOTS
        frame = frames[int(now * 10) % len(frames)]
        top = self._progress.top
        members = [run for run in self._progress.members() if not run.ended]
        if top is None:
            return [Text(f"{frame} Working {format_seconds(now - self._began)}")]
        thinking = self._options.show_reasoning and top.reasoning.turn
        writing = self._stream and bool(top.answer.turn or thinking)
        lines = [
            Text(f"{frame} {one_line(format_call(call.tool_name, call.tool_args))}")
            for call in top.running.values()  # those that have ended are shown above
            if not (members and call.tool_name in _DELEGATIONS)
        ]
        lines += [Text(f"{frame} ") + self._member(run) for run in members]
        if not (top.ended or top.running or members or writing):
            name = one_line(top.title) or "Working"
            lines.append(Text(f"{frame} {name} {format_seconds(now - self._began)}"))
        return lines

    def _member(self, run: RunProgress) -> Text:
        doing = [format_call(call.tool_name, call.tool_args) for call in run.running.values()]
        name = one_line(run.name)
        shown = Text(name)
        shown.truncate(max(8, self._console.width // 2), overflow="ellipsis")
        line = Text.assemble((shown.plain, self._color_of(name)), f" {format_seconds(run.elapsed)}")
        if doing:
            return line + Text(f" · {one_line(', '.join(doing))}")
        if self._options.show_member_responses and run.answer:
            last = first_line("\n".join(reversed(run.answer.text[-500:].splitlines())), 200)
            return line + Text(f" · {one_line(last)}")
        return line


def _size_of_lines(text: str, count: int) -> int:
    """How many characters the last `count` lines have."""
    start = len(text)
    for _ in range(count):
        start = text.rfind("\n", 0, start)
        if start < 0:
            return len(text)
    return len(text) - start
