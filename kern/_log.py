"""Kern's loggers: what is quoted in a message cannot forge a line, nor command the terminal that shows it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: str) -> str:
    r"""The text on one line, with escapes (`\n`, `\x1b`) for whatever a terminal or a log would obey."""
    if _UNSAFE.search(text) is None:
        return text
    return _UNSAFE.sub(lambda match: ascii(match[0])[1:-1], text)


class _Quoted:
    """An argument of a message, made harmless where it becomes text."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return one_line(str(self._value))

    def __repr__(self) -> str:
        return one_line(repr(self._value))


class _Harmless(logging.Filter):
    """Quotes the arguments; the message itself is Kern's own, and stays what reporters group by."""

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
    """The logger of this name, which is "kern" or begins with it."""
    logger = logging.getLogger(name)
    logger.addFilter(_harmless)
    return logger
