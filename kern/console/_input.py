"""Reads lines from standard input without blocking the event loop."""

from __future__ import annotations

import asyncio
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kern.console._files import has_descriptor, is_open, is_terminal

_LINE_ENDS_WITHIN = 1.0
"""How many seconds a read that was cancelled may take to return."""

_MOST_LINES = 1_000
"""How many lines of earlier chats are kept."""


def is_interactive() -> bool:
    """Whether a person is typing: standard input and standard output are terminals."""
    return is_terminal(sys.stdin) and has_descriptor(sys.stdin) and sys.stdout is not None


async def read_line(prompt: str) -> str | None:
    """Read the next line of standard input, without its newline; None at the end of the input.

    On a terminal this shows the prompt and has the line editing of `input()`. The read runs in a daemon
    thread of its own, so that a person who thinks does not occupy a thread of a pool, and the process can
    exit without waiting for a line. A cancelled read takes nothing from the input, and restores the terminal.
    """
    if not is_open(sys.stdin):
        return None
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str | None] = loop.create_future()
    person = is_interactive()
    if person:
        with suppress(ImportError):
            importlib.import_module("readline")  # its import gives input() its editing; Windows has none
    with suppress(AttributeError, io.UnsupportedOperation):  # it cannot be set once something was read
        sys.stdin.reconfigure(errors="replace")  # type: ignore[union-attr]

    def read() -> None:
        outcome = _outcome(lambda: input(prompt) if person else _next_line())
        with suppress(RuntimeError):  # the loop is closed, so no task waits for the line
            loop.call_soon_threadsafe(_resolve, line, outcome)

    with _saved_terminal() as restore:
        reader = threading.Thread(target=read, name="kern-input", daemon=True)
        reader.start()
        try:
            return await asyncio.shield(line)
        except asyncio.CancelledError:
            with _input_at_its_end(reader):
                await asyncio.wait({line}, timeout=_LINE_ENDS_WITHIN)
            restore()
            raise


def _next_line() -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.rstrip("\r\n")


def _outcome(read: Callable[[], str]) -> str | BaseException | None:
    try:
        return read()
    except EOFError:
        return None
    except BaseException as error:  # noqa: BLE001 -- raised again where the line is awaited
        return error


def _resolve(line: asyncio.Future[str | None], outcome: str | BaseException | None) -> None:
    if line.done():
        return
    if isinstance(outcome, BaseException):
        line.set_exception(outcome)
    else:
        line.set_result(outcome)


@contextmanager
def _input_at_its_end(reader: threading.Thread) -> Iterator[None]:
    """Make a thread that waits in `input()` return: within the block it finds standard input at its end.

    Python has no other way to end that wait. A thread that is left waiting would keep the terminal in
    readline's mode and take the next line from another reader. So standard input is replaced by the null
    device for a moment, and a signal whose handler does nothing makes the thread read again. Signal handlers
    can be set in the main thread only: elsewhere, and on Windows, the thread stays (it is a daemon).
    """
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGURG)
    if handler is None or reader.ident is None:
        yield
        return
    fd = sys.stdin.fileno()
    saved, null = os.dup(fd), os.open(os.devnull, os.O_RDONLY)
    signal.signal(signal.SIGURG, lambda *_: None)
    try:
        os.dup2(null, fd)
        if reader.is_alive():
            signal.pthread_kill(reader.ident, signal.SIGURG)
        yield
    finally:
        os.dup2(saved, fd)
        os.close(saved)
        os.close(null)
        signal.signal(signal.SIGURG, handler)


@contextmanager
def _saved_terminal() -> Iterator[Callable[[], None]]:
    """Yield a function that restores the present modes of the terminal."""
    if sys.platform == "win32" or not is_interactive():
        yield lambda: None
        return
    import termios  # does not exist on Windows

    fd = sys.stdin.fileno()
    modes = termios.tcgetattr(fd)

    def restore() -> None:
        with suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSADRAIN, modes)

    yield restore


@contextmanager
def kept_lines(file: Path | None) -> Iterator[None]:
    """Within the block, the arrow keys recall lines of earlier chats, which are stored in `file`.

    Only the owner can read the file. If it cannot be read or written, the chat works without it.
    """
    if file is None or not is_interactive():
        yield
        return
    try:
        readline = importlib.import_module("readline")
    except ImportError:  # Windows has none
        yield
        return
    with suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(_MOST_LINES)
    try:
        yield
    finally:
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            readline.write_history_file(file)
