"""Chooses the view: panels on a terminal, plain text elsewhere."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TextIO
from weakref import WeakValueDictionary

from kern.console._files import is_terminal
from kern.console._plain import PlainView
from kern.console._redirect import real_stdout
from kern.console._view import View, ViewOptions
from kern.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

_terminals: WeakValueDictionary[int, Console] = WeakValueDictionary()


def open_view(message: str, options: ViewOptions, *, stream: bool, console: Any | None = None) -> View:
    """Open a view of one run, for `with`.

    If standard output is a terminal and rich is installed, the view has panels, and a live region while the
    run is in progress. Otherwise it is plain text. A console that is passed in always gets panels.

    Args:
        message: The user's message.
        options: What to show.
        stream: Show text as it arrives. False: events only show who is working.
        console: A `rich.console.Console`; None: standard output.

    Raises:
        MissingExtraError: A console is given, but rich is not installed.
        UsageError: `console` is something else.
    """
    if console is None:
        file = real_stdout()
        console = _terminal(file)
        if console is None:
            return PlainView(message, options, stream=stream, file=file)
    elif find_spec("rich") is None:
        raise MissingExtraError("rich", "console")
    # rich is optional, so these modules are imported only if rich is installed.
    from rich.console import Console

    from kern.console._rich import RichView

    if not isinstance(console, Console):
        raise UsageError(f"console must be a rich.console.Console, not {type(console).__name__}")
    return RichView(message, options, stream=stream, console=console)


def _terminal(file: TextIO | None) -> Console | None:
    """The console of a terminal, the same for all views, so that they cooperate; None if there is none."""
    if file is None or not is_terminal(file) or find_spec("rich") is None:
        return None
    from rich.console import Console

    console = _terminals.get(id(file))
    if console is None:
        console = Console(file=file)
        if not console.is_interactive:
            return None
        _terminals[id(file)] = console
    return console
