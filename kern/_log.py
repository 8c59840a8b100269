"""Kern's loggers. Values in a message cannot forge a line of the log, or send commands to a terminal."""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

REORDERING = "\u202a-\u202e\u2066-\u2069"
"""Characters that change the order in which a terminal shows a text, as a range of a regular expression."""

_UNSAFE = re.compile(f"[\x00-\x1f\x7f-\x9f\u2028\u2029{REORDERING}\ud800-\udfff]")


def one_line(text: str) -> str:
    r"""The text on one line, with control characters escaped (`\n`, `\x1b`)."""
    if _UNSAFE.search(text) is None:
        return text
    return _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text)


class _Quoted:
    """An argument of a message whose text is escaped when it is formatted."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return one_line(str(self._value))

    def __repr__(self) -> str:
        return one_line(repr(self._value))


class _Harmless(logging.Filter):
    """Escapes the arguments. The message itself stays as it is, since error reporters group by it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        if isinstance(record.args, Mapping):
            record.args = {name: _quoted(value) for name, value in record.args.items()}
        elif record.args:
            record.args = tuple(map(_quoted, record.args))
        return True


def _quoted(value: object) -> object:
    return value if isinstance(value, int | float | _Quoted) else _Quoted(value)


_harmless = _Harmless()


def named(name: str) -> logging.Logger:
    """The logger "kern", or a logger below it, with escaped arguments."""
    logger = logging.getLogger(name)
    logger.addFilter(_harmless)
    return logger


class _Cleaned(logging.Filter):
    """Removes secrets from the logs of a library, which may quote what servers send."""

    def __init__(self) -> None:
        super().__init__()
        self.ways: list[tuple[tuple[str, ...], Callable[[str], str]]] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean the record. Its traceback becomes text, since frames hold more than the text shows."""
        if not any(record.pathname.startswith(folders) for folders, _ in self.ways):
            return True
        if not logging.getLogger(record.name).hasHandlers():
            return False  # without handlers, Python would write it to stderr
        record.msg, record.args = self._clean(record.getMessage()), None
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = self._clean("".join(traceback.format_exception(record.exc_info[1])).rstrip())
            record.exc_info = None
        return True

    def _clean(self, text: str) -> str:
        for _, clean in tuple(self.ways):
            text = clean(text)
        return text


_cleaned = _Cleaned()


@contextmanager
def cleaned_logs(
    libraries: Sequence[str], others: Sequence[str], clean: Callable[[str], str]
) -> Iterator[None]:
    """Pass the logs of these libraries through `clean` inside the block; without handlers, drop them.

    Args:
        libraries: Imported packages whose loggers have the names of their modules.
        others: Further loggers that they use; records of other packages in these are left alone.
        clean: Removes secrets from a text.
    """
    folders = tuple(folder for library in libraries for folder in sys.modules[library].__path__)
    below = tuple(f"{library}." for library in libraries)
    names = [name for name in tuple(logging.root.manager.loggerDict) if name.startswith(below)]
    for name in (*libraries, *others, *names):
        logging.getLogger(name).addFilter(_cleaned)
    way = (folders, clean)
    _cleaned.ways.append(way)
    try:
        yield
    finally:
        _cleaned.ways.remove(way)
