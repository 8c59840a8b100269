"""A coroutine stepped by hand, so that no other call comes between its first touch of the state and its end.

Before the first touch, a step is taken only while this call has the state's lock; a step that ends untouched
lets the lock go again, so that I/O before the touch runs beside other calls. A step that touched keeps it
until the call ends. A cancellation or timeout never waits for the lock: it is thrown into the coroutine at
once, which then runs without its turn, and may touch the state only if nobody has it.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, TypeVar

from kern.state.call_state import CallState, Holder
from kern.state.enclosing_calls import active_calls

T = TypeVar("T")


@types.coroutine
def _suspend(awaited: Any) -> Generator[Any, Any, Any]:
    """Hand to the event loop what the coroutine waits for; returns what the loop sends back."""
    return (yield awaited)


async def step(call: CallState, coroutine: Coroutine[Any, Any, T]) -> T:
    """Drive `coroutine` for `call` to its end; the caller then ends the call."""
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
                elif call.try_lock():  # it is not kept waiting
                    call.holder = Holder.step
            except BaseException as error:  # noqa: BLE001 - all of it is the coroutine's to see
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
    """Wrap Kern's own coroutines that a tool awaits, such as nested runs: the state lock must not gate them.

    While an untouched function takes its turns, whatever it awaits goes on only when nobody has the state.
    Kern's own code must not: it has locks of its own, and it is what the one with the state may wait for.
    """

    __slots__ = ("_calls",)

    async def __aenter__(self) -> None:
        self._calls = [call for call in active_calls() if call.steps_current_task() and not call.keeps_lock()]
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
            await asyncio.sleep(0)  # back to the stepper's gate
