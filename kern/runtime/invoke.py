"""Calling the application's functions: sync ones in threads, async ones on the loop, each as a transaction if
it takes a `run_context`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from typing import Any, Literal

from kern._told import sole
from kern.errors import AgentSignal
from kern.runtime.run import Run
from kern.state.call import CallState
from kern.state.enclosing import inside
from kern.state.large import off_loop
from kern.state.order import TurnSlot
from kern.state.stepping import step
from kern.state.threads import threads
from kern.tools.result import Pieces

Kind = Literal["sync", "async", "generator", "async_generator"]
Listener = Callable[[Any], None]
"""Told of every piece of a generator, at once; called in whatever thread the generator runs."""


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
        context_parameter: The name of the parameter that gets the `RunContext`; None: it takes none, has no
            transaction, and never waits for the state.
        label: The function's name, for provenance and errors.
        slot: The call's place among those of its turn.
        listener: Told of a generator's pieces as they come.
    """
    if context_parameter is None:
        if slot is not None:
            slot.passed()
        if kind == "async":
            return await function(**arguments)
        if kind == "async_generator":
            return await collect_async(function(**arguments), listener)
        value = await threads.run(lambda: _value(kind, function(**arguments), listener))
        return await value if inspect.iscoroutine(value) else value
    call = run.call_state(label, tool_call_id, slot)
    arguments = {**arguments, context_parameter: run.context(call)}
    if kind == "async_generator":
        return await on_loop(call, collect_async(function(**arguments), listener))
    if kind == "async":
        return await on_loop(call, function(**arguments))
    value = await in_thread(call, lambda: _value(kind, function(**arguments), listener))
    # A sync function may hand out a coroutine, such as a wrapper round an async one: the call goes on in it.
    return await on_loop(call, value) if inspect.iscoroutine(value) else value


def _value(kind: Kind, value: Any, listener: Listener | None) -> Any:
    return collect(value, listener) if kind == "generator" else value


def collect(pieces: Iterable[Any], listener: Listener | None) -> Pieces:
    """Run a generator to its end."""
    collected = Pieces()
    for piece in pieces:
        collected.append(piece)
        if listener is not None:
            listener(piece)
    return collected


async def collect_async(pieces: AsyncIterator[Any], listener: Listener | None) -> Pieces:
    """Run an async generator to its end."""
    collected = Pieces()
    async for piece in pieces:
        collected.append(piece)
        if listener is not None:
            listener(piece)
    return collected


async def in_thread(call: CallState, function: Callable[[], Any]) -> Any:
    """Run `function` in a thread as the whole of `call`; one that returns a coroutine has not ended yet."""

    def body() -> Any:
        with call.thread(), inside(call):
            try:
                value = function()
            except BaseException as error:
                call.end(commit=isinstance(sole(error), AgentSignal))
                raise
            if not inspect.iscoroutine(value):
                call.end(commit=True)
            return value

    try:
        return await threads.run(body)
    except asyncio.CancelledError:
        call.void()  # the thread cannot be stopped, but it has the state no longer
        while call.unfinished:  # noqa: ASYNC110  # a thread's, over in an instant, and part of the run's end
            await asyncio.sleep(0.001)
        raise


async def on_loop(call: CallState, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run `coroutine` here as the whole of `call`, or as its end."""
    try:
        with inside(call):
            value = await step(call, coroutine)
    except BaseException as error:
        call.end(commit=isinstance(sole(error), AgentSignal))
        raise
    await off_loop(call.size, lambda: call.end(commit=True))
    return value
