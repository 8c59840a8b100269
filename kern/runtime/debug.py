"""`debug_mode`: messages of the logger "kern", shown even where no logging is set up."""

from __future__ import annotations

import logging
import sys
from typing import Final

from kern._log import named, one_line

log: Final = named("kern")
log.addHandler(logging.NullHandler())  # a library speaks only where it is listened to


class _StandardError(logging.Handler):
    """Writes to the standard error as it is right now: a live view in the terminal may stand in for it."""

    def emit(self, record: logging.LogRecord) -> None:
        # A traceback has lines of its own: indented, none of them can pass for a message.
        lines = self.format(record).split("\n")
        sys.stderr.write("\n    ".join(map(one_line, lines)) + "\n")


def show_debug_messages() -> None:
    """Give the logger a handler on the standard error, if nothing handles its messages yet."""
    if not _is_handled():
        handler = _StandardError()
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        log.addHandler(handler)


def _is_handled() -> bool:
    logger: logging.Logger | None = log
    while logger is not None:
        if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return True
        logger = logger.parent if logger.propagate else None
    return False


def debug(message: str, *args: object) -> None:
    """Log for a run in debug mode, whatever the logger's level: no global level has to be changed."""
    if log.isEnabledFor(logging.DEBUG):
        log.debug(message, *args)
        return
    log.handle(log.makeRecord(log.name, logging.DEBUG, __file__, 0, message, args, None))
