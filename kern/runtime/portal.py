"""The way from sync code into an event loop: a daemon thread whose loop lives as long as the process.

A new loop for each call would lose what belongs to a loop: HTTP connections, locks, database threads.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextvars
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from contextvars import ContextVar
from functools import lru_cache
from types import FrameType
from typing import Any, Final, TypeVar

from kern._sync.fork import after_fork_in_child
from kern._sync.loops import in_event_loop
from kern._sync.shield import retrieve_error, wait_until_done
from kern._sync.threads import thread_place_released
from kern.errors import UsageError
from kern.runtime.debug import warn
from kern.state.enclosing_calls import enclosing_calls

T = TypeVar("T")

_INTERRUPT_SECONDS = 12.0
"""How many seconds Ctrl-C waits for the commit of the cancelled run, which has its own deadline."""


_calling: ContextVar[threading.Thread | None] = ContextVar("kern_calling", default=None)


def calling_thread() -> threading.Thread:
    """Return the thread that waits for the running code, if that serves a sync call; else the current one."""
    return _calling.get() or threading.current_thread()


def _warn_of_stopped_loop() -> None:
    """Log a call that stops the event loop, once for each place in the application."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("kern."):
        frame = frame.f_back
    if frame is not None:
        _warn_of_call(frame.f_code.co_filename, frame.f_lineno)


@lru_cache(maxsize=1024)
def _warn_of_call(file: str, line: int) -> None:
    warn(
        "%s:%d: a sync method such as run() is called in async code, and stops the event loop until it "
        "returns; await the async method instead (arun, aprint_response, aget_session_state, ...)",
        file,
        line,
    )


class Portal:
    """Runs coroutines on its own event loop, for callers that have none or cannot await."""

    def __init__(self) -> None:
        self._reset()
        after_fork_in_child(self._reset)
        atexit.register(self.close)

    def _reset(self) -> None:
        self._mutex = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def running_here(self) -> bool:
        """Whether the caller runs in the portal's own thread."""
        return threading.current_thread() is self._thread

    def drives(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether `loop` is the portal's running loop."""
        return loop is self._loop

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Await `function()` on the portal's loop and return its result; the calling thread waits.

        The coroutine sees the caller's context variables. Ctrl-C cancels the coroutine and waits for its end;
        then `KeyboardInterrupt` is raised.

        Raises:
            UsageError: Called from async code that runs on the portal's own loop.
        """
        if self.running_here:
            raise UsageError(
                "a sync method such as run() was called from async code that runs inside another "
                "sync method; await the async method instead (arun, aprint_response, "
                "aget_session_state, ...)"
            )
        if in_event_loop() and "ipykernel" not in sys.modules:  # a notebook waits for its cell in any case
            _warn_of_stopped_loop()
        job = _Job(function)
        with thread_place_released(), ExitStack() as given_up:
            # If the run of the calling tool is cancelled, this job is cancelled, too.
            for call in enclosing_calls.get().values():
                given_up.enter_context(call.dependents.cancelled_by(job.cancel))
            self._running_loop().call_soon_threadsafe(job.start)
            result: T = job.wait()
        return result

    async def acall(self, function: Callable[[], Awaitable[T]]) -> T:
        """The same for a task of another loop, whose thread does not block. Cancelling it cancels the job."""
        job = _Job(function)
        self._running_loop().call_soon_threadsafe(job.start)
        result: T = await job.wait_in_task()
        return result

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._mutex:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run_loop, args=(self._loop,), name="kern-portal", daemon=True
                )
                self._thread.start()
            return self._loop

    def close(self) -> None:
        """Cancel all tasks, close the loop's resources, and end the thread. Called when the process exits."""
        with self._mutex:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        try:
            asyncio.run_coroutine_threadsafe(_shut_down(), loop).result(_INTERRUPT_SECONDS)
        except concurrent.futures.TimeoutError:
            return  # a task does not end; the thread is a daemon, so the process can exit
        loop.call_soon_threadsafe(loop.stop)
        thread.join(1.0)
        if not thread.is_alive():
            loop.close()


class _Job:
    """One call: runs its coroutine as a task on the portal's loop, and hands the result to the waiter."""

    def __init__(self, function: Callable[[], Awaitable[Any]]) -> None:
        self._function = function
        self._context = contextvars.copy_context()
        self._context.run(_calling.set, threading.current_thread())
        self._result: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._task: asyncio.Task[Any] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._cancelled = False

    def start(self) -> None:
        """Create the task. Called on the portal's loop."""
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._main(), context=self._context)
        self._task.add_done_callback(self._done)
        if self._cancelled:
            self._task.cancel()

    async def _main(self) -> Any:
        return await self._function()

    def _done(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._result.set_exception(concurrent.futures.CancelledError())
        elif (error := task.exception()) is not None:
            self._result.set_exception(error)
        else:
            self._result.set_result(task.result())

    def cancel(self) -> None:
        """Cancel the task, from any thread."""
        self._cancelled = True
        if self._loop is not None and self._task is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._task.cancel)

    async def wait_in_task(self) -> Any:
        """Wait for the result in a task of another loop."""
        waiter = asyncio.wrap_future(self._result)
        cancelled = await wait_until_done(waiter, grace=_INTERRUPT_SECONDS, on_cancel=self.cancel)
        if cancelled is not None:
            retrieve_error(waiter)
            raise cancelled
        return waiter.result()

    def wait(self) -> Any:
        """Wait for the result in a thread."""
        try:
            return self._result.result()
        except KeyboardInterrupt:
            self.cancel()
            concurrent.futures.wait([self._result], timeout=_INTERRUPT_SECONDS)
            raise


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    while True:
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt):  # raised by a task: its waiter gets it, the others go on
            continue
        return


async def _shut_down() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()


portal: Final = Portal()
