"""The port: what a view of a run has to do, whatever it draws on."""

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
        show_reasoning: Show the reasoning, where the model tells it.
        show_member_responses: Show the tool calls and answers of a team's members, not only the leader's.
        chat: The run answers a line of a chat. The line stands above it, and what a paused run waits for
            is not listed, since the chat asks for it.
    """

    markdown: bool = False
    show_message: bool = True
    show_reasoning: bool = True
    show_member_responses: bool = False
    chat: bool = False


class View(ABC):
    """A person's view of one run: a context manager that leaves the terminal clean, however it is left.

    The methods may be called from any thread. None of them waits for anything but the terminal itself.
    A write that fails raises its `OSError` once, from `event`, `finish` or the exit (`BrokenPipeError` where
    the reader of a pipe has gone), never in place of another error; from then on the view is silent.
    """

    @abstractmethod
    def __enter__(self) -> Self:
        """Show the message, and from now on what happens."""

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Show what was not shown yet, and give the terminal back."""

    @abstractmethod
    def event(self, event: BaseRunEvent) -> None:
        """Take in one event of the tree of runs."""

    @abstractmethod
    def finish(self, output: AnyRunOutput) -> None:
        """Show the end of the run; the view takes no more events."""

    @abstractmethod
    def fail(self, error: BaseException) -> None:
        """Show the error that ended the run; the caller raises it."""


def mark_shown(error: BaseException) -> None:
    """Note on an error that a person has seen it."""
    error._kern_shown = True  # type: ignore[attr-defined]  # an error travels further than any registry


def was_shown(error: BaseException) -> bool:
    """Whether a view has shown this error."""
    return getattr(error, "_kern_shown", False)
