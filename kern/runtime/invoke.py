"""Calling the application's functions: sync ones in threads, async ones on the loop, each as a transaction if
it takes a `run_context`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Literal

from kern.errors import AgentSignal
from kern.runtime.run import Run
from kern.runtime.threads import threads
from kern.state.call import CallState
from kern.state.stepping import step

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
) -> Any:
    """Call `function` for `run` and return its value; the pieces of a generator come as a list.

    Args:
        context_parameter: The name of the parameter that gets the `RunContext`; None: it takes none, has no
            transaction, and never waits for the state.
        label: The function's name, for provenance and errors.
    """
    if context_parameter is None:
        if kind == "async":
            return await function(**arguments)
        if kind == "async_generator":
            return [piece async for piece in function(**arguments)]
        return await threads.run(lambda: _pieces(kind, function(**arguments)))
    call = run.call_state(label, tool_call_id)
    arguments = {**arguments, context_parameter: run.context(call)}
    if kind in ("sync", "generator"):
        return await _in_thread(call, lambda: _pieces(kind, function(**arguments)))
    return await _on_loop(call, function, kind, arguments)


def _pieces(kind: Kind, value: Any) -> Any:
    return list(value) if kind == "generator" else value


async def _in_thread(call: CallState, function: Callable[[], Any]) -> Any:
    def body() -> Any:
        with call.thread(), call.active():
            try:
                value = function()
            except BaseException as error:
                call.end(commit=isinstance(error, AgentSignal))
                raise
            call.end(commit=True)
            return value

    try:
        return await threads.run(body)
    except asyncio.CancelledError:
        call.void()  # the thread cannot be stopped, but it has the state no longer
        raise


async def _on_loop(call: CallState, function: Callable[..., Any], kind: Kind, arguments: Any) -> Any:
    async def pieces() -> list[Any]:
        return [piece async for piece in function(**arguments)]

    coroutine = pieces() if kind == "async_generator" else function(**arguments)
    try:
        with call.active():
            value = await step(call, coroutine)
    except BaseException as error:
        call.end(commit=isinstance(error, AgentSignal))
        raise
    call.end(commit=True)
    return value
