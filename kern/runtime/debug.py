"""`debug_mode`: messages of the logger "kern", shown even if no logging is configured."""

from __future__ import annotations

import logging
import sys
from typing import Final

from kern._log import named, one_line

log: Final = named("kern")
log.addHandler(logging.NullHandler())  # a library prints no logs unless the application asks for them


class _StandardError(logging.Handler):
    """Writes to the current `sys.stderr`, which a live view in the terminal may have replaced."""

    def emit(self, record: logging.LogRecord) -> None:
        # Lines of a traceback are indented, so that none can be mistaken for a message.
        lines = self.format(record).split("\n")
        sys.stderr.write("\n    ".join(map(one_line, lines)) + "\n")


def _standard_error() -> logging.Handler:
    handler = _StandardError()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    return handler


def show_debug_messages() -> None:
    """Add a handler for standard error to the logger, if it has no handler yet."""
    if not _is_handled():
        log.addHandler(_standard_error())


def _is_handled() -> bool:
    logger: logging.Logger | None = log
    while logger is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def warn(message: str, *args: object) -> None:
    """Log a warning about a mistake in the program, which is shown even if no logging is configured."""
    if _is_handled():
        log.warning(message, *args)
    elif log.isEnabledFor(logging.WARNING):
        record = log.makeRecord(log.name, logging.WARNING, __file__, 0, message, args, None)
        if log.filter(record):
            _standard_error().emit(record)


def debug(message: str, *args: object) -> None:
    """Log a message of a run in debug mode at any level of the logger, which is not changed."""
    if log.isEnabledFor(logging.DEBUG):
        log.debug(message, *args)
        return
    log.handle(log.makeRecord(log.name, logging.DEBUG, __file__, 0, message, args, None))
