"""Finds the code that waits for a thread, by inspecting stacks, to diagnose runs that wait for each other.

A thread that a function starts itself does not have the function's context variables. But the code that waits
for it has the thread, or the future of its job, in a local variable.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import sys
import threading
from collections.abc import Iterator
from contextvars import Context
from types import FrameType
from typing import Any

_MOST_STEPS = 8
"""The depth of the search, from a job's future and its callbacks to the context of the awaiting task."""

_MOST_OBJECTS = 500


def contexts_of_waiters(thread: threading.Thread) -> Iterator[Context]:
    """Yield the contexts of the code that waits for `thread` or refers to it, as far as they can be found."""
    frames = sys._current_frames()
    jobs = [value for value in _locals(frames.get(thread.ident or 0)) if _is_job(value)]
    for job in jobs:
        yield from _contexts_near(job)
    wanted = {id(thread), *map(id, jobs)}
    for ident, frame in frames.items():
        if ident != thread.ident and any(_holds(value, wanted) for value in _locals(frame)):
            yield from (value for value in _locals(frame) if isinstance(value, Context))


def _locals(frame: FrameType | None) -> Iterator[Any]:
    """Yield the local values of a stack, and the `future` attributes of objects among them."""
    while frame is not None:
        for value in list(frame.f_locals.values()):
            yield value
            if _is_job(future := getattr(value, "__dict__", {}).get("future")):
                yield future
        frame = frame.f_back


def _is_job(value: object) -> bool:
    return isinstance(value, concurrent.futures.Future)


def _holds(value: object, wanted: set[int]) -> bool:
    if id(value) in wanted:
        return True
    return isinstance(value, list | tuple | set | frozenset) and any(
        id(item) in wanted for item in list(value)
    )


def _contexts_near(job: object) -> Iterator[Context]:
    """Yield the contexts of tasks that await a job: its future refers to them after `asyncio.wrap_future`."""
    seen, level = {id(job)}, [job]
    for _ in range(_MOST_STEPS):
        below: list[object] = []
        for thing in gc.get_referents(*level):
            if id(thing) in seen or isinstance(thing, asyncio.AbstractEventLoop | type | type(sys)):
                continue
            seen.add(id(thing))
            if isinstance(thing, Context):
                yield thing
            elif (len(seen) < _MOST_OBJECTS and not isinstance(thing, dict)) or _is_small(thing):
                below.append(thing)
        level = below


def _is_small(thing: object) -> bool:
    """Whether a dict is likely to hold the attributes of an object, not the names of a module."""
    return isinstance(thing, dict) and "__builtins__" not in thing and len(thing) < 20
