"""Calling the application's functions: sync ones in threads, async ones on the loop, each as a transaction if
it takes a `run_context`.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any, Literal

from kern.errors import AgentSignal
from kern.runtime.run import Run
from kern.state.call import CallState
from kern.state.order import TurnSlot
from kern.state.stepping import step
from kern.state.threads import threads

Kind = Literal["sync", "async", "generator", "async_generator"]


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
) -> Any:
    """Call `function` for `run` and return its value; the pieces of a generator come as a list.

    Args:
        context_parameter: The name of the parameter that gets the `RunContext`; None: it takes none, has no
            transaction, and never waits for the state.
        label: The function's name, for provenance and errors.
        slot: The call's place among those of its turn.
    """
    if context_parameter is None:
        if slot is not None:
            slot.passed()
        if kind == "async":
            return await function(**arguments)
        if kind == "async_generator":
            return await _collect(function(**arguments))
        value = await threads.run(lambda: _pieces(kind, function(**arguments)))
        return await value if inspect.iscoroutine(value) else value
    call = run.call_state(label, tool_call_id, slot)
    arguments = {**arguments, context_parameter: run.context(call)}
    if kind == "async_generator":
        return await _on_loop(call, _collect(function(**arguments)))
    if kind == "async":
        return await _on_loop(call, function(**arguments))
    value = await _in_thread(call, lambda: _pieces(kind, function(**arguments)))
    # A sync function may hand out a coroutine, such as a wrapper round an async one: the call goes on in it.
    return await _on_loop(call, value) if inspect.iscoroutine(value) else value


def _pieces(kind: Kind, value: Any) -> Any:
    return list(value) if kind == "generator" else value


async def _collect(pieces: AsyncIterator[Any]) -> list[Any]:
    return [piece async for piece in pieces]


async def _in_thread(call: CallState, function: Callable[[], Any]) -> Any:
    def body() -> Any:
        with call.thread(), call.active():
            try:
                value = function()
            except BaseException as error:
                call.end(commit=isinstance(error, AgentSignal))
                raise
            if not inspect.iscoroutine(value):
                call.end(commit=True)
            return value

    try:
        return await threads.run(body)
    except asyncio.CancelledError:
        call.void()  # the thread cannot be stopped, but it has the state no longer
        raise


async def _on_loop(call: CallState, coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        with call.active():
            value = await step(call, coroutine)
    except BaseException as error:
        call.end(commit=isinstance(error, AgentSignal))
        raise
    call.end(commit=True)
    return value
