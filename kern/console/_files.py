"""What a program may have put in the place of a standard stream: anything that has `write` will do."""

from __future__ import annotations

import sys
from typing import Any

from kern.console._text import clean, encodable


def is_open(file: Any) -> bool:
    """Whether there is a stream, and it is not closed."""
    return file is not None and not getattr(file, "closed", False)


def is_terminal(file: Any) -> bool:
    """Whether the stream says that it is a terminal, and can be used as one."""
    isatty = getattr(file, "isatty", None)
    return is_open(file) and hasattr(file, "flush") and callable(isatty) and bool(isatty())


def has_descriptor(file: Any) -> bool:
    """Whether the stream stands for a file of the operating system."""
    try:
        return isinstance(file.fileno(), int)
    except (AttributeError, OSError, ValueError):  # io.UnsupportedOperation is both of the last two
        return False


def encoding_of(file: Any) -> str | None:
    """The stream's encoding, where it tells."""
    encoding = getattr(file, "encoding", None)
    return encoding if isinstance(encoding, str) else None


def write_text(file: Any, text: str) -> None:
    """Write the text and flush; what the stream cannot encode becomes "?".

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
    """Write a line of our own to standard output, if there is one."""
    if sys.stdout is not None:
        write_text(sys.stdout, clean(line.replace("\n", " ")) + "\n")


def flush(file: Any) -> None:
    """Flush the stream, where it can be."""
    if callable(method := getattr(file, "flush", None)):
        method()
