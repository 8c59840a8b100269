"""Helpers for standard streams, which programs replace by objects that may have no method but `write`."""

from __future__ import annotations

import sys
from typing import Any

from kern.console._text import clean, encodable


def is_open(file: Any) -> bool:
    """Whether the stream exists and is not closed."""
    return file is not None and not getattr(file, "closed", False)


def is_terminal(file: Any) -> bool:
    """Whether the stream reports to be a terminal and has the methods of one."""
    isatty = getattr(file, "isatty", None)
    return is_open(file) and hasattr(file, "flush") and callable(isatty) and bool(isatty())


def has_descriptor(file: Any) -> bool:
    """Whether the stream stands for a file of the operating system."""
    try:
        return isinstance(file.fileno(), int)
    except (AttributeError, OSError, ValueError):  # io.UnsupportedOperation is both of the last two
        return False


def encoding_of(file: Any) -> str | None:
    """The stream's encoding, or None if it does not say."""
    encoding = getattr(file, "encoding", None)
    return encoding if isinstance(encoding, str) else None


def write_text(file: Any, text: str) -> None:
    """Write the text and flush. Characters that the stream cannot encode become "?".

    Raises:
        OSError: The stream cannot be written to.
        ValueError: It is closed.
    """
    try:
        file.write(encodable(text, encoding_of(file)))
    except UnicodeEncodeError as error:  # it does not tell its encoding: the error does
        file.write(encodable(text, error.encoding))
    flush(file)


def say(line: str) -> None:
    """Write one of Kern's own lines to standard output, if there is one."""
    if sys.stdout is not None:
        write_text(sys.stdout, clean(line.replace("\n", " ")) + "\n")


def flush(file: Any) -> None:
    """Flush the stream, if it has the method.

    A notebook's stream flushes itself, several times a second. Each flush of ours would wait for another
    thread, and begin a new output.
    """
    if hasattr(file, "flush_interval"):
        return
    if callable(method := getattr(file, "flush", None)):
        method()
