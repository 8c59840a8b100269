"""Events on their way from a run to its consumer, and the stream object that `arun(stream=True)` returns."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self

from typing_extensions import TypeVar

from kern._sync.shield import wait_until_done
from kern._traceback import ShortTraceback
from kern.errors import UsageError
from kern.run.events import Event
from kern.runtime.portal import portal

OutputT = TypeVar("OutputT")
T = TypeVar("T")
ItemT_co = TypeVar("ItemT_co", default=Event, covariant=True)
Start = Callable[["EventBuffer"], Coroutine[Any, Any, OutputT]]

_HIGH_WATER = 256
"""Events that may wait for the consumer before the run waits for it."""


class EventBuffer:
    """The queue between a run and its consumer, filled from any thread, emptied on one loop.

    Putting never waits; a producer that can wait calls `drain` when `full`. Nothing is lost or reordered:
    `seq` is given and the event queued in one step.
    """

    __slots__ = (
        "_begun",
        "_closed",
        "_drained",
        "_loop",
        "_mutex",
        "_ready",
        "abandoned",
        "items",
        "observers",
        "seq",
    )

    def __init__(self) -> None:
        self.items: deque[Event] = deque()
        self.observers: Sequence[Callable[[Event], None]] = ()
        """Told of every event, in order, in whatever thread it comes from: they must be quick."""
        self.abandoned: bool = False
        """The consumer has walked away without closing; the run ends in the background."""
        self._mutex = threading.Lock()
        self.seq: int = 0
        """The number of the newest event."""
        self._closed = False
        self._begun = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: asyncio.Future[None] | None = None
        self._drained: list[asyncio.Future[None]] = []

    def put(self, event: Event, *, deliver: bool = True) -> None:
        """Queue an event; with `deliver` False only observers are told of it."""
        with self._mutex:
            self.seq += 1
            event.seq = self.seq
            if self.observers:
                for observer in self.observers:
                    observer(event)
            if not deliver or self._closed:
                return
            self.items.append(event)
            waiter, self._ready = self._ready, None  # woken once, however much comes before it runs
        if waiter is not None:
            self._wake(waiter)

    def _wake(self, waiter: asyncio.Future[None]) -> None:
        loop = waiter.get_loop()
        if asyncio._get_running_loop() is loop:
            _resolve(waiter)
        else:
            with suppress(RuntimeError):  # it is closed: nobody listens any more
                loop.call_soon_threadsafe(_resolve, waiter)

    @property
    def full(self) -> bool:
        """The consumer is behind."""
        return len(self.items) >= _HIGH_WATER

    @property
    def closed(self) -> bool:
        """No more events are taken: the consumer has left, or the run has ended."""
        return self._closed

    async def drain(self) -> None:
        """Wait until the consumer has caught up."""
        while self.full and not self._closed:
            future = asyncio.get_running_loop().create_future()
            self._drained.append(future)
            await future

    async def ready(self) -> bool:
        """Wait for an event; False when the buffer is closed and empty."""
        while not self.items:
            if self._closed:
                return False
            with self._mutex:
                self._ready = asyncio.get_running_loop().create_future()
                if self.items or self._closed:
                    self._ready.set_result(None)
                waiter = self._ready
            await waiter
        return True

    def pop(self) -> Any:
        """The oldest event; there must be one."""
        event = self.items.popleft()
        if self._drained and len(self.items) <= _HIGH_WATER // 2:
            self._let_producers_go()
        return event

    def begin(self) -> None:
        """The run was not refused: its session is its own, and in use."""
        self._begun.set()

    async def begun(self) -> None:
        """Wait until the run has begun, or has ended without."""
        await self._begun.wait()

    def close(self) -> None:
        """No more events come; those that are queued stay."""
        with self._mutex:
            self._closed = True
            waiter = self._ready
        self._begun.set()
        if waiter is not None:
            self._wake(waiter)
        self._let_producers_go()

    def _let_producers_go(self) -> None:
        waiting, self._drained = self._drained, []
        for future in waiting:
            _resolve(future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class RunStream(Generic[OutputT, ItemT_co]):
    """The events of a run, as they happen: `async for event in agent.arun(..., stream=True)`.

    The run starts with the first event asked for, or with `open()`, which raises what refuses the run. With
    `async with`, or after `aclose()`, or an error or a cancellation inside `__anext__`, the run has ended and
    is committed when control comes back. A bare `break` leaves Python no place to wait: the run is cancelled
    at once and committed in the background, and the next run or accessor of its session waits for that.

    One task reads a stream at a time. A read that is cancelled cancels the run: to wait with a timeout, keep
    `anext(stream)` in a task, and wait for that with `asyncio.wait`.

    An iterator class and no async generator: one of those, with a task group inside, would cancel its
    consumer's task.
    """

    def __init__(
        self,
        start: Start[OutputT],
        buffer: EventBuffer,
        *,
        yield_output: bool = False,
    ) -> None:
        self._start = start
        self._buffer = buffer
        self._yield_output = yield_output
        self._task: asyncio.Task[OutputT] | None = None
        self._finished = False
        self._waiting = False
        self._cut_off = False
        """A read was cancelled, and the run with it."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT_co:
        buffer = self._buffer
        if self._finished:
            self._check_cut_off()
            raise StopAsyncIteration
        if buffer.items:
            event: ItemT_co = buffer.pop()
            return event
        if self._waiting:
            raise UsageError("this stream is already being read by another task; read it in one task only")
        task = self._begin()
        self._waiting = True
        try:
            if await buffer.ready():
                first: ItemT_co = buffer.pop()
                return first
        except BaseException:
            self._cut_off = True
            await self.aclose()
            raise
        finally:
            self._waiting = False
        last: ItemT_co = await self._end(task)
        return last

    def _check_cut_off(self) -> None:
        """See that nobody takes what was read of a run that was cut off for the whole of it.

        Raises:
            UsageError: A read was cancelled before, and somebody reads on.
        """
        if self._cut_off:
            raise UsageError(
                "this stream ended early: a read of it was cancelled, as "
                "asyncio.wait_for(anext(stream)) does, and that cancelled the run. To wait with "
                "a timeout, keep the read in a task: asyncio.wait({task}, timeout=...)"
            )

    async def open(self) -> Self:
        """Start the run, and return once it was not refused: before the model is asked.

        A server can answer with the right status then, which it cannot once the answer has begun. The events
        are read as always; a stream that is read without being opened starts by itself. Checks of the
        application's (`pre_hooks`) are a part of the run: what they refuse comes as its last event, and is
        raised there.

        Raises:
            SessionOwnershipError: The session is another user's.
            SessionBusyError: Another run has the session, and `on_busy` says not to wait for it.
            RunConflictError: The run's id is taken.
            ShutdownError: The service ends.
            UsageError: The call cannot work as it is written.
        """
        if self._finished:
            return self
        task = self._begin()
        try:
            await self._buffer.begun()
            if self._buffer.closed and not self._buffer.items:
                await asyncio.wait([task])
        except BaseException:
            await self.aclose()
            raise
        if task.done() and not self._buffer.items and (task.cancelled() or task.exception() is not None):
            self._finished = True
            task.result()
        return self

    def _begin(self) -> asyncio.Task[OutputT]:
        if self._task is None:
            # The task must not refer to this object, or `__del__` would never run.
            self._task = asyncio.create_task(_drive(self._start, self._buffer))
            self._task.add_done_callback(_observe)
        return self._task

    def take(self) -> list[Event]:
        """The events that are there already, without waiting."""
        return [self._buffer.pop() for _ in range(len(self._buffer.items))]

    async def _end(self, task: asyncio.Task[OutputT]) -> Any:
        """The events are through: the output, if it was asked for, then the run's error or the end."""
        await asyncio.wait([task])
        if self._yield_output:
            self._yield_output = False
            error = None if task.cancelled() else task.exception()
            output = getattr(error, "run_output", None) if error else task.result()
            if output is not None:
                return output
        self._finished = True
        task.result()
        raise StopAsyncIteration

    @property
    def output(self) -> OutputT:
        """The run's output, once the stream is through.

        Raises:
            UsageError: The run goes on, has not begun, or was cancelled with its stream.
            KernError: The run has failed; the output is the error's `run_output`.
        """
        if self._task is None or not self._task.done() or self._task.cancelled():
            state = "was cancelled" if self._task is not None and self._task.done() else "has not ended"
            raise UsageError(
                f"the run {state}, so its stream has no output yet: read `output` after the loop"
            )
        return self._task.result()

    async def aclose(self) -> None:
        """Cancel the run if it still goes on, and wait until its end is committed."""
        self._finished = True
        task = self._task
        if task is None or task.done():
            return
        self._buffer.close()
        task.cancel()
        if (interrupted := await wait_until_done(task)) is not None:
            raise interrupted

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop on which the run goes on; None where none has begun, or it has ended."""
        return None if self._task is None or self._task.done() else self._task.get_loop()

    def abandon(self) -> None:
        """Cancel the run if it still goes on, and wait for nothing; from any thread."""
        task = self._task
        if task is not None and not task.done() and not task.get_loop().is_closed():
            self._buffer.abandoned = True
            task.get_loop().call_soon_threadsafe(_abandon, task, self._buffer)

    def __del__(self) -> None:
        self.abandon()


def _abandon(task: asyncio.Task[Any], buffer: EventBuffer) -> None:
    buffer.close()
    task.cancel()


def _observe(task: asyncio.Task[Any]) -> None:
    """Look at the error, so that asyncio does not report one that no consumer stayed to see."""
    if not task.cancelled():
        task.exception()


async def _drive(start: Start[OutputT], buffer: EventBuffer) -> OutputT:
    try:
        return await start(buffer)
    finally:
        buffer.close()


def iterate(stream: RunStream[Any, T], *, whole: bool) -> Iterator[T]:
    """A run's events for sync code: fetched from the portal's loop in batches, closed on `break`.

    Args:
        whole: An error has its whole traceback; see `ShortTraceback`.
    """

    async def batch() -> list[Any]:
        try:
            first = await anext(stream)
        except StopAsyncIteration:
            return []
        return [first, *stream.take()]

    try:
        while True:
            with ShortTraceback(whole=whole):
                items = portal.call(batch)
            if not items:
                return
            yield from items
    finally:
        _let_go(stream)


def _let_go(stream: RunStream[Any, Any]) -> None:
    """Close a stream of the portal's loop, and wait for it, where that can be.

    An iterator that was left with `break` may be let go of anywhere: at the end of the process, when the
    portal has ended its runs and no thread can be started; in a forked child, where its loop does not run;
    by the garbage collector on the portal's own thread.
    """
    loop = stream.loop
    if loop is None or not portal.drives(loop):
        return
    if portal.running_here:
        stream.abandon()
    else:
        portal.call(stream.aclose)
