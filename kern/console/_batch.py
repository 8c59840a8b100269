"""A bar on the terminal, for many runs at once."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Protocol

from kern.console._files import is_terminal
from kern.errors import MissingExtraError


class Progress(Protocol):
    """Where a batch says how far it is."""

    def advance(self, *, failed: bool) -> None:
        """One more item has ended."""


class _Silent:
    def advance(self, *, failed: bool) -> None:
        pass


@contextmanager
def open_progress(name: str, total: int, wanted: bool | None) -> Iterator[Progress]:
    """A bar, as long as the block lasts; nothing where it is not wanted.

    Args:
        name: What is at work.
        total: How many items there are.
        wanted: None: if standard error is a terminal and rich is installed.

    Raises:
        MissingExtraError: It is wanted, but rich is not installed.
    """
    there = find_spec("rich") is not None
    if wanted and not there:
        raise MissingExtraError("rich", "console")
    if not (is_terminal(sys.stderr) and there if wanted is None else wanted):
        yield _Silent()
        return
    # rich is optional: what needs it is imported where it is known to be there.
    from rich.console import Console

    from kern.console._bar import Bar

    with Bar(name, total, Console(stderr=True)) as bar:
        yield bar
