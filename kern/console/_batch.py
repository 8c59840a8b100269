"""Shows the progress of a batch of runs on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Protocol

from kern.console._files import is_terminal
from kern.errors import MissingExtraError


class Progress(Protocol):
    """What a batch reports its progress to."""

    def advance(self, *, failed: bool) -> None:
        """One more item has ended."""


class _Silent:
    def advance(self, *, failed: bool) -> None:
        pass


@contextmanager
def open_progress(name: str, total: int, wanted: bool | None) -> Iterator[Progress]:
    """Show a progress bar for the duration of the block.

    Args:
        name: The name of the agent or team.
        total: The number of items.
        wanted: Whether to show it. None: if standard error is a terminal and rich is installed.

    Raises:
        MissingExtraError: `wanted` is True, but rich is not installed.
    """
    there = find_spec("rich") is not None
    if wanted and not there:
        raise MissingExtraError("rich", "console")
    if not (is_terminal(sys.stderr) and there if wanted is None else wanted):
        yield _Silent()
        return
    # rich is optional, so this module is imported only if rich is installed.
    from rich.console import Console

    from kern.console._bar import Bar

    console = Console(stderr=True)
    if console.is_jupyter and find_spec("ipywidgets") is None:
        console = Console(force_jupyter=False)  # how it ended, in a line: a bar that moves is a widget there
    with Bar(name, total, console) as bar:
        yield bar
