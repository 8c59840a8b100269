"""The final value of an application's function. What the function returns decides how to proceed, not its
signature, which decorators may hide.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import opcode
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from functools import partial
from typing import Any

from kern.errors import ToolError
from kern.tools.result import Chunks
from kern.tools.signature import kind_of

_CACHED = type(functools.cache(lambda: None))
_USED_UP = (
    "the function returned a generator that was consumed before, as a cache around it does; cache "
    "the yielded values instead, or use cache_results=True"
)

Listener = Callable[[Any], None]
"""Called with every chunk of a generator, in the thread that runs the generator."""

InThread = Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]]
"""Runs a sync function in a thread, as a part of the tool call."""


def runs_through(function: Callable[..., Any]) -> bool:
    """Whether a function is an async one that never waits, by its code, so that nothing can cancel it."""
    function = getattr(function, "__func__", function)  # of a method
    if not isinstance(function, types.FunctionType):
        return False
    code = function.__code__
    return bool(code.co_flags & inspect.CO_COROUTINE) and _SUSPEND not in code.co_code[::2]


_SUSPEND = opcode.opmap["YIELD_VALUE"]
"""Every `await`, `async for` and `async with` has this instruction."""


def in_own_context(function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """Make a sync function of one that `runs_through`. It has a copy of the context, as a task has."""

    def run(**arguments: Any) -> Any:
        return contextvars.copy_context().run(_run_through, function(**arguments))

    return run


def _run_through(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise RuntimeError(f"{coroutine!r} was suspended")


def is_unfinished(value: Any) -> bool:
    """Whether the function goes on after it returned `value`: the value must be awaited or iterated over."""
    if value is None or isinstance(value, str | list | dict):
        return False
    return inspect.isawaitable(value) or isinstance(value, AsyncIterator | Iterator)


def ended_here(value: Any, listener: Listener | None) -> Any:
    """Return what a sync function returned, in its thread; an iterator is run to its end first."""
    if isinstance(value, str | list | dict) or not isinstance(value, Iterator):
        return value
    return collect(value, listener)


async def ended(value: Any, listener: Listener | None, in_thread: InThread) -> Any:
    """Await `value`, or iterate over it, until there is a final value."""
    while is_unfinished(value):
        if isinstance(value, AsyncIterator):  # first: a stream of a run refuses to be awaited
            value = await collect_async(value, listener)
        elif inspect.isawaitable(value):
            value = await value
        else:
            value = await in_thread(partial(collect, value, listener))
    return value


def close_unused(value: Any) -> None:
    """Close a coroutine that was never awaited because the call was cancelled: Python would warn."""
    if inspect.iscoroutine(value) and inspect.getcoroutinestate(value) == inspect.CORO_CREATED:
        value.close()


def without_cache(function: Callable[..., Any]) -> Callable[..., Any]:
    """Remove a functools cache from a function that returns a coroutine or generator: these run once."""
    if isinstance(function, functools.partial):
        inner = without_cache(function.func)
        return function if inner is function.func else partial(inner, *function.args, **function.keywords)
    if isinstance(function, types.MethodType):
        below = without_cache(function.__func__)
        return function if below is function.__func__ else types.MethodType(below, function.__self__)
    if isinstance(function, _CACHED) and kind_of(function.__wrapped__) != "sync":
        return function.__wrapped__
    return function


def collect(pieces: Iterable[Any], listener: Listener | None) -> Chunks:
    """Run an iterator to its end."""
    if inspect.isgenerator(pieces) and inspect.getgeneratorstate(pieces) == inspect.GEN_CLOSED:
        raise ToolError(_USED_UP)
    collected = Chunks()
    for piece in pieces:
        collected.append(piece)
        if listener is not None:
            listener(piece)
    return collected


async def collect_async(pieces: AsyncIterator[Any], listener: Listener | None) -> Chunks:
    """Run an async iterator to its end."""
    if inspect.isasyncgen(pieces) and pieces.ag_frame is None:
        raise ToolError(_USED_UP)
    collected = Chunks()
    async for piece in pieces:
        collected.append(piece)
        if listener is not None:
            listener(piece)
    return collected
