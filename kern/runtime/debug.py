"""`debug_mode`: messages of the logger "kern", shown even if no logging is configured."""

from __future__ import annotations

import logging
import sys
from typing import Final

from kern._error_text import error_text
from kern._log import named, one_line
from kern.errors import HookError, KernError, ModelError, UsageError

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


def log_tool_error(tool: str, error: BaseException, *, in_debug_mode: int) -> None:
    """Log the traceback of a tool that raised: the model, and the output, have only its class and text.

    Args:
        tool: The tool.
        error: What it raised. Kern's own errors are meant for the model, and are not logged.
        in_debug_mode: Whether the run is in debug mode; otherwise the logger decides, by its level.
    """
    if isinstance(error, KernError) or not (in_debug_mode or log.isEnabledFor(logging.DEBUG)):
        return
    raised = type(error), error, error.__traceback__
    log.handle(log.makeRecord(log.name, logging.DEBUG, __file__, 0, "the tool %s raised:", (tool,), raised))


def log_failed_run(run_id: str, error: BaseException) -> None:
    """Log a failed run whose error nobody gets; with the traceback if the application's code failed."""
    foreign = isinstance(error, HookError | UsageError) or type(error) in (KernError, ModelError)
    if foreign or not isinstance(error, KernError):
        log.error("run %s failed: %s", run_id, error_text(error), exc_info=error)
    else:
        log.warning("run %s failed: %s", run_id, error_text(error))
