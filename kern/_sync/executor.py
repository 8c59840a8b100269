"""The threads of `loop.run_in_executor(None, ...)`, with the context variables of the submitting code.

Kern finds the run that a tool belongs to through a context variable. Unlike `asyncio.to_thread`, asyncio's
default executor does not copy the context.
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
    """A thread pool whose jobs see the context variables of the code that submits them."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` in a thread, in a copy of the caller's context."""
        context = contextvars.copy_context()
        return super().submit(lambda: context.run(fn, *args, **kwargs))


def carry_context(loop: asyncio.AbstractEventLoop) -> None:
    """Set such an executor on the loop, unless the loop or the application has set one already."""
    # Without the attribute, as in uvloop, there is no way to find out: leave the loop as it is.
    if getattr(loop, "_default_executor", loop) is None:
        loop.set_default_executor(ContextExecutor(thread_name_prefix="asyncio"))
