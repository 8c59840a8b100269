"""Errors in words, for the model, for people and for the log: what happened, and not that something did."""

from __future__ import annotations

import re
from collections.abc import Iterator

_MOST = 8
_GENERIC = "unhandled errors in a TaskGroup"  # what asyncio and anyio call every group of theirs


def counted(number: float, things: str) -> str:
    """A number with its noun, which is passed as a plural: "1 tool call", "2 tool calls"."""
    return f"{number:,} {_PLURAL.sub('', things, count=1) if number == 1 else things}"


_PLURAL = re.compile(r"s\b")


def error_text(error: BaseException) -> str:
    """The error's class and its text; of a group, those of the errors in it, however deep."""
    if isinstance(error, BaseExceptionGroup):
        return message_of(error)
    text = message_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def message_of(error: BaseException) -> str:
    """The error's text: never raises, though a `__str__` of the application may."""
    if not isinstance(error, BaseExceptionGroup):
        try:
            return str(error)
        except Exception as failure:  # noqa: BLE001 - whatever it raises
            return f"(its __str__ raises {type(failure).__name__})"
    leaves = list(dict.fromkeys(error_text(leaf) for leaf in leaf_errors(error)))
    shown = "; ".join(leaves[:_MOST])
    if len(leaves) > _MOST:
        shown += f"; and {len(leaves) - _MOST} more"
    message = str(error.message)
    return shown if not message or message.startswith(_GENERIC) else f"{message}: {shown}"


def leaf_errors(error: BaseException) -> Iterator[BaseException]:
    """The errors in a group, and in the groups in it, in order; an error that is no group is its own."""
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(reversed(one.exceptions))
        else:
            yield one


def only_error(error: BaseException) -> BaseException:
    """The one error in a group, however deep: a task group puts one round whatever its tasks raise."""
    leaves = list(leaf_errors(error))
    return leaves[0] if len(leaves) == 1 else error


def is_failure(error: BaseException) -> bool:
    """Application code failed, including by `sys.exit`; Ctrl-C and cancellations do not count."""
    return all(isinstance(leaf, Exception | SystemExit) for leaf in leaf_errors(error))
