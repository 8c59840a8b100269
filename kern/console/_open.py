"""Which view it is: panels on a terminal, plain text elsewhere."""

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
    """A view of one run, for `with`.

    Panels, with a live region while the run is on, where standard output is a terminal and rich is
    installed; plain text otherwise. A console that is passed in always gets panels.

    Args:
        message: What the user said.
        options: What to show.
        stream: Show text as it arrives. Without, events (none need come) only tell who works.
        console: A `rich.console.Console`; None is standard output.

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
    # rich is optional: what needs it is imported where it is known to be there.
    from rich.console import Console

    from kern.console._rich import RichView

    if not isinstance(console, Console):
        raise UsageError(f"console must be a rich.console.Console, not {type(console).__name__}")
    return RichView(message, options, stream=stream, console=console)


def _terminal(file: TextIO | None) -> Console | None:
    """The one console of a terminal, so that views at the same time know of each other; else None."""
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
