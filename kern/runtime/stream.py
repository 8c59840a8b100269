"""The queue of events between a run and its consumer, and the stream that `arun(stream=True)` returns."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self

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
"""How many events may be queued before the run waits for the consumer."""


class EventBuffer:
    """The queue between a run and its consumer. Any thread may put events; one event loop takes them.

    `put` never waits. A producer that can wait calls `drain` when the buffer is `full`. Events are never lost
    or reordered: an event gets its `seq` and its place in the queue in one step.
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
        """Called with every event, in order, in the thread that emits it: they must be fast."""
        self.abandoned: bool = False
        """The consumer left the stream without closing it; the run ends in the background."""
        self._mutex = threading.Lock()
        self.seq: int = 0
        """The `seq` of the newest event."""
        self._closed = False
        self._begun = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: asyncio.Future[None] | None = None
        self._drained: list[asyncio.Future[None]] = []

    def put(self, event: Event, *, deliver: bool = True) -> None:
        """Queue an event and call the observers; with `deliver=False` only call the observers."""
        with self._mutex:
            self.seq += 1
            event.seq = self.seq
            if self.observers:
                for observer in self.observers:
                    observer(event)
            if not deliver or self._closed:
                return
            self.items.append(event)
            waiter, self._ready = self._ready, None  # wake the consumer once, not for each event
        if waiter is not None:
            self._wake(waiter)

    def _wake(self, waiter: asyncio.Future[None]) -> None:
        loop = waiter.get_loop()
        if asyncio._get_running_loop() is loop:
            _resolve(waiter)
        else:
            with suppress(RuntimeError):  # the loop of the consumer is closed
                loop.call_soon_threadsafe(_resolve, waiter)

    @property
    def full(self) -> bool:
        """Whether the consumer is behind."""
        return len(self.items) >= _HIGH_WATER

    @property
    def closed(self) -> bool:
        """Whether the buffer takes no more events: the consumer has left, or the run has ended."""
        return self._closed

    async def drain(self) -> None:
        """Wait until the consumer has caught up."""
        while self.full and not self._closed:
            future = asyncio.get_running_loop().create_future()
            self._drained.append(future)
            await future

    async def ready(self) -> bool:
        """Wait for an event. Return False when the buffer is closed and empty."""
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
        """Take the oldest event; there must be one."""
        event = self.items.popleft()
        if self._drained and len(self.items) <= _HIGH_WATER // 2:
            self._wake_producers()
        return event

    def begin(self) -> None:
        """Note that the run was accepted: it has its session."""
        self._begun.set()

    async def begun(self) -> None:
        """Wait until the run has begun, or has ended without beginning."""
        await self._begun.wait()

    def close(self) -> None:
        """Take no more events. Queued events can still be read."""
        with self._mutex:
            self._closed = True
            waiter = self._ready
        self._begun.set()
        if waiter is not None:
            self._wake(waiter)
        self._wake_producers()

    def _wake_producers(self) -> None:
        waiting, self._drained = self._drained, []
        for future in waiting:
            _resolve(future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


_A_STREAM = "the stream of events that arun(..., stream=True) returns"
_READ_IT = "write `async for event in agent.arun(..., stream=True)`"


class RunStream(Generic[OutputT, ItemT_co]):
    """The events of a run, as they happen: `async for event in agent.arun(..., stream=True)`.

    The run starts with the first read, or with `open()`, which raises the error if the run is refused. After
    `async with`, after `aclose()`, and after an error or a cancellation inside `__anext__`, the run has ended
    and is committed. After a bare `break` Python gives no place to wait: the run is cancelled at once and
    committed in the background, and the next run or accessor of its session waits for that.

    Only one task may read a stream at a time. Cancelling a read cancels the run: to read with a timeout, keep
    `anext(stream)` in a task, and wait for the task with `asyncio.wait`.

    This is an iterator class, not an async generator: a generator with a task group inside could cancel the
    task of its consumer.
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
        """Check that no read was cancelled, so that a partial stream is not mistaken for the whole.

        Raises:
            UsageError: A read was cancelled before.
        """
        if self._cut_off:
            raise UsageError(
                "this stream ended early: a read of it was cancelled, as "
                "asyncio.wait_for(anext(stream)) does, and that cancelled the run. To wait with "
                "a timeout, keep the read in a task: asyncio.wait({task}, timeout=...)"
            )

    async def open(self) -> Self:
        """Start the run, and return when it has been accepted, before the model is asked.

        A web server can then still respond with the right status code. Read the events as usual afterwards; a
        stream that is not opened starts with its first read. The application's own checks (`pre_hooks`) are a
        part of the run: if they refuse the input, the error is the last event, and is raised by that read.

        Raises:
            SessionOwnershipError: The session belongs to another user.
            SessionBusyError: Another run uses the session, and `on_busy` is "reject".
            RunConflictError: The run id is taken.
            ShutdownError: `kern.shutdown()` is in progress.
            UsageError: An argument is invalid.
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
        """Take all queued events, without waiting."""
        return [self._buffer.pop() for _ in range(len(self._buffer.items))]

    async def _end(self, task: asyncio.Task[OutputT]) -> Any:
        """End the stream after the last event: with the output, if asked for, then the error or the end."""
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
        """The output of the run, after the last event.

        Raises:
            UsageError: The run has not ended, or was cancelled together with its stream.
            KernError: The run failed; the output is the error's `run_output`.
        """
        if self._task is None or not self._task.done():
            raise UsageError("the run has not ended: read the `output` of its stream after the loop")
        if self._task.cancelled():
            raise UsageError(
                "the run was cancelled together with its stream, which has no output therefore: "
                "get_run_output(run_id) returns what was stored of the run"
            )
        return self._task.result()

    async def aclose(self) -> None:
        """Cancel the run if it is in progress, and wait until its result is committed."""
        self._finished = True
        task = self._task
        if task is None or task.done():
            return
        self._buffer.close()
        task.cancel()
        if (interrupted := await wait_until_done(task)) is not None:
            raise interrupted

    if not TYPE_CHECKING:  # type checkers report the mistake themselves

        def __await__(self) -> NoReturn:
            raise TypeError(f"{_A_STREAM} cannot be awaited: {_READ_IT}, or await a run without stream=True")

        def __iter__(self) -> NoReturn:
            raise TypeError(f"{_A_STREAM} needs `async for`: {_READ_IT}, or in sync code use run()")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop of the run; None if the run has not begun or has ended."""
        return None if self._task is None or self._task.done() else self._task.get_loop()

    def abandon(self) -> None:
        """Cancel the run if it is in progress, without waiting. May be called from any thread."""
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
    """Retrieve the error, so that asyncio does not report it when the consumer has left."""
    if not task.cancelled():
        task.exception()


async def _drive(start: Start[OutputT], buffer: EventBuffer) -> OutputT:
    try:
        return await start(buffer)
    finally:
        buffer.close()


def iterate(stream: RunStream[Any, T], *, whole: bool) -> Iterator[T]:
    """Iterate over a run's events in sync code: read from the portal's loop in batches, closed on `break`.

    Args:
        stream: The stream.
        whole: Errors keep their whole traceback; see `ShortTraceback`.
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
        _close_in_portal(stream)


def _close_in_portal(stream: RunStream[Any, Any]) -> None:
    """Close a stream of the portal's loop, and wait for its end if possible.

    An iterator that was left with `break` may be finalized anywhere: when the process exits, after the portal
    has ended its runs and no thread can be started; in a forked child, where the loop does not run; by the
    garbage collector in the portal's own thread.
    """
    loop = stream.loop
    if loop is None or not portal.drives(loop):
        return
    if portal.running_here:
        stream.abandon()
    else:
        portal.call(stream.aclose)
