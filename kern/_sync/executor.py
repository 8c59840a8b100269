"""The threads of `loop.run_in_executor(None, ...)`, with the context variables of the code that starts a job.

Kern finds the run that a tool belongs to by a context variable. asyncio's own default executor does not carry
these over, as `asyncio.to_thread` does.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class ContextExecutor(ThreadPoolExecutor):
    """A thread pool whose jobs see the context variables of those who submit them."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` in a thread, in a copy of the caller's context."""
        context = contextvars.copy_context()
        return super().submit(lambda: context.run(fn, *args, **kwargs))


def carry_context(loop: asyncio.AbstractEventLoop) -> None:
    """Give the loop such an executor, unless it has one already: its own, or the application's choice."""
    # Where the attribute is missing, as in uvloop, nobody can tell: the loop is left alone.
    if getattr(loop, "_default_executor", loop) is None:
        loop.set_default_executor(ContextExecutor(thread_name_prefix="asyncio"))
