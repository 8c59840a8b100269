"""Calling the application's functions: sync ones in threads, async ones on the loop, each as a transaction if
it takes a `run_context`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from kern._sync.threads import threads
from kern.errors import ToolError
from kern.runtime.run import Run
from kern.state.call import CallState
from kern.state.enclosing import inside
from kern.state.offload import off_loop
from kern.state.order import TurnSlot
from kern.state.stepping import step
from kern.state.transaction import keeps_edits
from kern.tools.result import Pieces
from kern.tools.signature import Kind, kind_of

_CACHED = type(functools.cache(lambda: None))
_USED_UP = (
    "the function has returned a generator that is used up, as a cache round it does; keep "
    "what it yields instead, or use cache_results=True"
)

Listener = Callable[[Any], None]
"""Told of every piece of a generator, at once; called in whatever thread the generator runs."""

Elsewhere = Callable[[Callable[[], Any]], Coroutine[Any, Any, Any]]
"""Runs a sync function in a thread, as a part of its call."""


async def invoke(
    run: Run,
    function: Callable[..., Any],
    kind: Kind,
    arguments: Mapping[str, Any],
    *,
    context_parameter: str | None,
    label: str,
    tool_call_id: str | None = None,
    slot: TurnSlot | None = None,
    listener: Listener | None = None,
) -> Any:
    """Call `function` for `run` and return its value; the pieces of a generator come as `Pieces`.

    Args:
        kind: What it looks like; what it returns says what it is.
        context_parameter: The name of the parameter that gets the `RunContext`; None: it takes none, has no
            transaction, and never waits for the state.
        label: The function's name, for provenance and errors.
        slot: The call's place among those of its turn.
        listener: Told of a generator's pieces as they come.
    """
    function = called_anew(function)
    on_the_loop = kind in ("async", "async_generator")
    if context_parameter is None:
        value = (
            function(**arguments)
            if on_the_loop
            else await threads.run(lambda: ended_here(function(**arguments), listener))
        )
        return await ended(value, listener) if goes_on(value) else value
    call = run.call_state(label, tool_call_id, slot)
    arguments = {**arguments, context_parameter: run.context(call)}
    elsewhere = partial(thread_of, call)
    if on_the_loop:
        return await on_loop(call, called_and_ended(function, arguments, listener, elsewhere))
    value = await in_thread(call, lambda: ended_here(function(**arguments), listener))
    if not goes_on(value):
        return value
    try:
        return await on_loop(call, ended(value, listener, elsewhere))
    finally:
        close_unused(value)


# What a function returns says how it goes on, and not what it looks like: wrappers hide that.


def goes_on(value: Any) -> bool:
    """The function has not ended with this: it is to be awaited, or to be iterated over."""
    if value is None or isinstance(value, str | list | dict):
        return False
    return inspect.isawaitable(value) or isinstance(value, AsyncIterator | Iterator)


def ended_here(value: Any, listener: Listener | None) -> Any:
    """What a sync function has returned, in its thread: an iterator is run to its end."""
    if isinstance(value, str | list | dict) or not isinstance(value, Iterator):
        return value
    return collect(value, listener)


async def ended(
    value: Any,
    listener: Listener | None,
    elsewhere: Elsewhere | None = None,
) -> Any:
    """What a function comes to in the end that has returned `value`, whatever that is.

    Args:
        elsewhere: Runs a sync function in a thread, as a part of the call.
    """
    while goes_on(value):
        if inspect.isawaitable(value):
            value = await value
        elif isinstance(value, AsyncIterator):
            value = await collect_async(value, listener)
        else:
            rest = partial(collect, value, listener)
            value = await (threads.run(rest) if elsewhere is None else elsewhere(rest))
    return value


async def called_and_ended(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    listener: Listener | None,
    elsewhere: Elsewhere,
) -> Any:
    """Call a function on the loop: what it comes to in the end. It is not called before this is begun."""
    return await ended(function(**arguments), listener, elsewhere)


def close_unused(value: Any) -> None:
    """Close a coroutine that was handed out and not begun, since the call was given up: Python would warn."""
    if inspect.iscoroutine(value) and inspect.getcoroutinestate(value) == inspect.CORO_CREATED:
        value.close()


def called_anew(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, without a cache of functools' that keeps what can be run only once."""
    if isinstance(function, functools.partial):
        inner = called_anew(function.func)
        return function if inner is function.func else partial(inner, *function.args, **function.keywords)
    if isinstance(function, types.MethodType):
        below = called_anew(function.__func__)
        return function if below is function.__func__ else types.MethodType(below, function.__self__)
    if isinstance(function, _CACHED) and kind_of(function.__wrapped__) != "sync":
        return function.__wrapped__
    return function


def collect(pieces: Iterable[Any], listener: Listener | None) -> Pieces:
    """Run an iterator to its end."""
    if inspect.isgenerator(pieces) and inspect.getgeneratorstate(pieces) == inspect.GEN_CLOSED:
        raise ToolError(_USED_UP)
    collected = Pieces()
    for piece in pieces:
        collected.append(piece)
        if listener is not None:
            listener(piece)
    return collected


async def collect_async(pieces: AsyncIterator[Any], listener: Listener | None) -> Pieces:
    """Run an async iterator to its end."""
    if inspect.isasyncgen(pieces) and pieces.ag_frame is None:
        raise ToolError(_USED_UP)
    collected = Pieces()
    async for piece in pieces:
        collected.append(piece)
        if listener is not None:
            listener(piece)
    return collected


async def in_thread(call: CallState, function: Callable[[], Any]) -> Any:
    """Run `function` in a thread as the whole of `call`; with what `goes_on` it has not ended yet."""

    def body() -> Any:
        with call.thread(), inside(call):
            try:
                value = function()
            except BaseException as error:
                call.end(commit=keeps_edits(error))
                raise
            if not goes_on(value):
                call.end(commit=True)
            return value

    try:
        return await threads.run(body)
    except asyncio.CancelledError:
        await _give_up(call)
        raise


async def thread_of(call: CallState, function: Callable[[], Any]) -> Any:
    """Run `function` in a thread as a part of `call`, which goes on afterwards."""

    def body() -> Any:
        with call.thread():
            return function()

    try:
        return await threads.run(body)
    except asyncio.CancelledError:
        await _give_up(call)
        raise


async def _give_up(call: CallState) -> None:
    call.void()  # the thread cannot be stopped, but it has the state no longer
    while call.unfinished:  # noqa: ASYNC110  # a thread's, over in an instant, and part of the run's end
        await asyncio.sleep(0.001)


async def on_loop(call: CallState, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run `coroutine` here as the whole of `call`, or as its end."""
    try:
        with inside(call):
            value = await step(call, coroutine)
    except BaseException as error:
        call.end(commit=keeps_edits(error))
        raise
    await off_loop(call.size, lambda: call.end(commit=True))
    return value
