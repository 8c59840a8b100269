"""The port for views of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from kern.run.events import BaseRunEvent
from kern.run.output import AnyRunOutput


@dataclass(slots=True, frozen=True, kw_only=True)
class ViewOptions:
    """What a view shows, and how.

    Args:
        markdown: Render the answers as Markdown, where the view can.
        show_message: Show the user's message first.
        show_reasoning: Show the model's reasoning, if there is any.
        show_member_responses: Also show the tool calls and answers of a team's members.
        chat: The run answers a line of a chat. The line is already above it, and the requirements of a paused
            run are not listed, since the chat asks for them.
    """

    markdown: bool = False
    show_message: bool = True
    show_reasoning: bool = True
    show_member_responses: bool = False
    chat: bool = False


class View(ABC):
    """A view of one run: a context manager that restores the terminal, however it is left.

    The methods may be called from any thread. They wait for nothing but the terminal itself. If a write
    fails, `event`, `finish` or the exit raises the `OSError` once (`BrokenPipeError` if the reader of a pipe
    has gone), but never in place of another error. After that the view writes nothing.
    """

    @abstractmethod
    def __enter__(self) -> Self:
        """Begin: show the user's message."""

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show what was not shown yet, and restore the terminal."""

    @abstractmethod
    def event(self, event: BaseRunEvent) -> None:
        """Process one event of the tree of runs."""

    @abstractmethod
    def finish(self, output: AnyRunOutput) -> None:
        """Show the end of the run. No events may follow."""

    @abstractmethod
    def fail(self, error: BaseException) -> None:
        """Show the error that ended the run. The caller raises it."""


def mark_shown(error: BaseException) -> None:
    """Mark an error as shown, so that it is not shown twice."""
    error._kern_shown = True  # type: ignore[attr-defined]  # an error travels further than any registry


def was_shown(error: BaseException) -> bool:
    """Whether a view has shown this error."""
    return getattr(error, "_kern_shown", False)
