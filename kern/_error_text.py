"""Describes errors for models, people and the log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath

_MOST = 8
NOBODY_CANCELLED = "the application's code, or a library, raised it though nobody has cancelled the run"
_GENERIC = "unhandled errors in a TaskGroup"  # the message of every group of asyncio and anyio


def counted(number: float, things: str) -> str:
    """A number with its noun, which is passed as a plural: "1 tool call", "2 tool calls"."""
    return f"{number:,} {_PLURAL.sub('', things, count=1) if number == 1 else things}"


_PLURAL = re.compile(r"s\b")


def error_text(error: BaseException) -> str:
    """The class and the text of an error; for a group, those of all errors in it, at any depth."""
    if isinstance(error, BaseExceptionGroup):
        return message_of(error)
    text = message_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def message_of(error: BaseException) -> str:
    """The text of an error. Never raises, even if a `__str__` of the application does."""
    if not isinstance(error, BaseExceptionGroup):
        try:
            return str(error)
        except Exception as failure:  # noqa: BLE001 - a `__str__` may raise anything
            return f"(its __str__ raises {type(failure).__name__})"
    leaves = list(dict.fromkeys(error_text(leaf) for leaf in leaf_errors(error)))
    shown = "; ".join(leaves[:_MOST])
    if len(leaves) > _MOST:
        shown += f"; and {len(leaves) - _MOST} more"
    message = str(error.message)
    return shown if not message or message.startswith(_GENERIC) else f"{message}: {shown}"


def leaf_errors(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group and in its nested groups, in order; the error itself if it is not a group."""
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(reversed(one.exceptions))
        else:
            yield one


def only_error(error: BaseException) -> BaseException:
    """The only error in a group, at any depth, since task groups wrap single errors; else the group."""
    leaves = list(leaf_errors(error))
    return leaves[0] if len(leaves) == 1 else error


def is_failure(error: BaseException) -> bool:
    """Whether application code failed, `sys.exit` included; Ctrl-C and cancellations do not count."""
    return all(isinstance(leaf, Exception | SystemExit) for leaf in leaf_errors(error))


def raised_by(error: Exception) -> str:
    """What a validator of the application raised in place of a ValueError, for the text of another error."""
    at = "a validator"
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if not {"pydantic", "kern"} & set(PurePath(code.co_filename).parts[-3:-1]):
            at = code.co_qualname
        trace = trace.tb_next
    return f"{at} raised {error_text(error)}; a validator refuses a value by a ValueError"
