"""Drives an async function step by step, so that it holds the state's lock whenever it may touch the state.

A step is the code between two awaits. Before the first touch, the call takes the lock for each step and
releases it after a step that did not touch the state: I/O before the touch runs in parallel with other calls.
A step that touches the state keeps the lock until the call ends. A cancellation or timeout never waits for
the lock: it is thrown into the coroutine at once, which then runs without the lock and may touch the state
only if nobody holds it.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, TypeVar

from kern.state.call_state import CallState, Holder
from kern.state.enclosing_calls import enclosing_calls

T = TypeVar("T")


@types.coroutine
def _suspend(awaited: Any) -> Generator[Any, Any, Any]:
    """Yield what the coroutine waits for to the event loop; return what the loop sends back."""
    return (yield awaited)


async def step(call: CallState, coroutine: Coroutine[Any, Any, T]) -> T:
    """Drive the coroutine of `call` to its end. The caller then ends the call."""
    with call.stepped():
        return await _stepped(call, coroutine)


async def _stepped(call: CallState, coroutine: Coroutine[Any, Any, T]) -> T:
    lock = call.shared_state.lock
    resume: Callable[[Any], Any] = coroutine.send
    value: Any = None
    while True:
        if not call.may_step():
            try:
                if not isinstance(value, asyncio.CancelledError):
                    await call.wait_in_task()
                    call.holder = Holder.step
                elif call.try_lock():  # a cancellation is delivered at once, with or without the lock
                    call.holder = Holder.step
            except BaseException as error:  # noqa: BLE001 - the coroutine sees every error of its wait
                resume, value = coroutine.throw, error
        try:
            awaited = resume(value)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            if call.holder is Holder.step:
                call.holder = Holder.nobody
                lock.release()
            if call.slot is not None:
                call.slot.mark_passed()
        try:
            value = await _suspend(awaited)
            resume = coroutine.send
        except BaseException as error:  # noqa: BLE001
            resume, value = coroutine.throw, error


class Ungated:
    """Wraps Kern's own coroutines that a tool awaits, such as nested runs, so that they run without the lock.

    Until a function touches the state, each of its steps waits for the lock, also the steps of what it
    awaits. Kern's own coroutines must not wait: they have locks of their own, and the call that holds the
    state's lock may itself be waiting for them, which would be a deadlock.
    """

    __slots__ = ("_calls",)

    async def __aenter__(self) -> None:
        calls = enclosing_calls.get().values()
        self._calls = [call for call in calls if call.steps_current_task() and not call.keeps_lock()]
        for call in self._calls:
            call.ungated += 1
            if call.holder is Holder.step:
                call.holder = Holder.nobody
                call.shared_state.lock.release()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for call in self._calls:
            call.ungated -= 1
        if self._calls and (error is None or isinstance(error, Exception)):
            await asyncio.sleep(0)  # ends this step, so that the next one takes the lock again
