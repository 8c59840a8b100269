"""Background runs: `astart` starts one, and `follow` reads its events from any process."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from concurrent.futures import Future
from typing import Any, Final, Generic, TypeVar, Unpack, cast
from weakref import WeakValueDictionary

from kern._ids import check_given_id
from kern._log import named
from kern._numbers import check_seconds
from kern._traceback import ShortTraceback
from kern.db.base import Db
from kern.durable.db_journal import DbJournal, deltas_of
from kern.durable.deltas import DeltaStream
from kern.errors import KernError, SessionBusyError, StoreError
from kern.run.cancel import CancelResult
from kern.run.events import Event
from kern.run.output import AnyRunOutput
from kern.runner.compile import database_of, new_id, request
from kern.runner.input_schema import Input
from kern.runner.options import ContinueKeywords, RunKeywords, RunOptions, check_id, run_input
from kern.runner.running import Running
from kern.runtime.active_runs import ActiveRun, active_runs
from kern.runtime.audience import Listen
from kern.runtime.debug import log_failed_run
from kern.runtime.duplicates import OPENING_SECONDS, check_joins
from kern.runtime.following import follow
from kern.runtime.lifecycle import execute
from kern.runtime.portal import portal
from kern.runtime.run_ends import current_started_runs
from kern.runtime.run_tree import RunRequest
from kern.runtime.stream import EventBuffer, RunStream

OutputT = TypeVar("OutputT", bound=AnyRunOutput)
T = TypeVar("T")

log: Final = named("kern")

STAND_BY_SECONDS = 1.0
"""The longest time between two looks at a run of another process, which may die."""

_tasks: Final[set[asyncio.Task[Any]]] = set()
"""The tasks of background runs. An event loop holds only weak references to its tasks."""

_standing_by: Final[WeakValueDictionary[Hashable, asyncio.Task[Any]]] = WeakValueDictionary()
"""The tasks that wait for runs of other processes, by event loop, database and run id."""


class _Ended(Future[OutputT]):
    """Resolves to the output of a background run, or to its error."""

    waited_for: bool = False
    """Whether somebody waits for it, or has waited. Else the error is logged, since nobody gets it."""


class RunHandle(Generic[OutputT]):
    """A run in the background: it does not depend on the call that started it.

    Args:
        running: The agent or team.
        run_id: The id of the run.
        user_id: The owner of the run, for whom the handle follows and cancels it.
        ended: Resolves to the output of the run, or to its error.
        deltas: Where the run's events between two steps are sent; None: they are stored in the database.
    """

    def __init__(
        self,
        running: Running[OutputT],
        run_id: str,
        user_id: str | None,
        ended: _Ended[OutputT],
        deltas: DeltaStream | None = None,
    ) -> None:
        self.run_id: str = run_id
        self._user_id = user_id
        self._running = running
        self._ended = ended
        self._deltas = deltas

    async def result(self) -> OutputT:
        """Wait until the run has ended or is paused, and return its output. Cancelling this does not cancel
        the run.

        Raises:
            KernError: The run failed; the error's `run_output` is committed.
            ShutdownError: `kern.shutdown()` released the run before it ended.
        """
        self._ended.waited_for = True
        return await asyncio.shield(asyncio.wrap_future(self._ended))

    def wait(self, timeout: float | None = None) -> OutputT:
        """`result` for sync code.

        Args:
            timeout: How many seconds to wait; None: without a limit.

        Raises:
            TimeoutError: The run did not end within `timeout`.
            UsageError: `timeout` is not a number of seconds.
        """
        if timeout is not None:
            check_seconds("timeout", timeout, zero=True, endless=False)
        self._ended.waited_for = True
        with ShortTraceback():
            return self._ended.result(timeout)

    def follow(self, *, after: int = 0) -> AsyncIterator[Event]:
        """Iterate over the events of the run; see `Agent.follow`."""
        return follow(self._db, self.run_id, after=after, user_id=self._user_id, deltas=self._deltas)

    async def cancel(self) -> CancelResult:
        """Cancel the run; see `acancel_run`."""
        return await self._running.acancel_run(self.run_id, user_id=self._user_id)

    @property
    def _db(self) -> Db:
        return database_of(self._running)

    def __repr__(self) -> str:
        return f"RunHandle({self.run_id!r})"


class Detached(Running[OutputT]):
    """Starts runs in the background, and follows runs by their ids."""

    __slots__ = ()

    async def astart(self, input: Input, **options: Unpack[RunKeywords]) -> RunHandle[OutputT]:
        """Start a run in the background; return as soon as its start is stored, before the model is asked.

        The run has a journal: a `DbJournal` in the `db` of the agent or team, unless you pass another. The
        run goes on after the caller has ended. It ends by itself, by `cancel_run`, or by its `timeout`;
        `kern.shutdown()` releases it.

        Call it again with the same `run_id` to be sure of the run, in whatever process: if the run is in
        progress, this returns a handle of it; if its process dies, this process resumes it once its claim has
        expired.

        Args:
            input: As for `arun`.
            options: The run's keywords, such as `session_id`; see `kern.runner.options.RunOptions`.

        Returns:
            A handle that waits for the run, follows it, or cancels it.

        Raises:
            KernError: The run was refused.
        """
        if (journal := options.get("journal")) is None:
            journal = self.journal
        if journal is None:
            options["journal"] = journal = DbJournal(database_of(self))
        if options.get("run_id") is None:
            options["run_id"] = new_id()
        chosen = RunOptions.of(options)
        asked = request(self, run_input(input, self.input_schema, chosen), chosen)
        other = await _in_progress(asked)
        if other is not None:
            check_joins(other, asked)

        def run(buffer: EventBuffer) -> Coroutine[Any, Any, Any]:
            return execute(asked, buffer, Listen.everything)

        def stream() -> RunStream[OutputT, Event]:
            return RunStream(run, EventBuffer())

        # Requests that differ do not wait together: each finds out by itself that it is another run's.
        whose = asked.user_id, asked.session_id, asked.spec.id, asked.fingerprint
        begun, ended = _detached(asked.run_id, stream, (asked.db.identity, asked.run_id, *whose))
        if other is None:  # otherwise the run is in progress already, and has begun
            await asyncio.shield(begun)
        return RunHandle(self, asked.run_id, asked.user_id, ended, deltas_of(journal))

    async def astart_continuation(
        self, run_response: AnyRunOutput | None = None, **options: Unpack[ContinueKeywords]
    ) -> RunHandle[OutputT]:
        """Continue a paused run in the background, like a run that `astart` started.

        Args:
            run_response: The paused run's output, its `requirements` resolved.
            options: As for `acontinue_run`.

        Raises:
            KernError: The run is not paused, is being continued already, or the answers do not fit it.
        """
        if (journal := options.get("journal")) is None:
            journal = self.journal
        if journal is None:
            options["journal"] = journal = DbJournal(database_of(self))
        options["stream_events"] = True

        def stream() -> RunStream[OutputT, Event]:
            made: RunStream[OutputT, Event] = self.acontinue_run(run_response, stream=True, **options)
            return made

        run_id, user_id = options.get("run_id"), options.get("user_id")
        if run_response is not None:
            run_id = run_response.run_id if run_id is None else run_id
            user_id = run_response.user_id if user_id is None else user_id
        assert run_id is not None  # acontinue_run has refused that
        begun, ended = _detached(run_id, stream, None)
        await asyncio.shield(begun)
        user_id = self.user_id if user_id is None else user_id
        return RunHandle(self, run_id, user_id, ended, deltas_of(journal))

    def start_continuation(
        self, run_response: AnyRunOutput | None = None, **options: Unpack[ContinueKeywords]
    ) -> RunHandle[OutputT]:
        """`astart_continuation` for sync code."""

        def begin() -> Coroutine[Any, Any, RunHandle[OutputT]]:
            return self.astart_continuation(run_response, **options)

        with ShortTraceback(whole=self._debugs(options)):
            return portal.call(begin)

    def start(self, input: Input, **options: Unpack[RunKeywords]) -> RunHandle[OutputT]:
        """`astart` for sync code."""

        def begin() -> Coroutine[Any, Any, RunHandle[OutputT]]:
            return self.astart(input, **options)

        with ShortTraceback(whole=self._debugs(options)):
            return portal.call(begin)

    def follow(self, run_id: str, *, after: int = 0, user_id: str | None = None) -> AsyncIterator[Event]:
        """Read the events of a run with a journal in any process: `async for event in team.follow(run_id)`.

        The last event is the one that ends the run, or `RunPaused`. Text deltas that came in quick succession
        are joined to one, with the `seq` of the last. If another process resumes the run, its `RunContinued`
        event voids every turn that had not completed; see docs/following.md.

        Args:
            run_id: The id of the run.
            after: Return only events with a `seq` above this: the `seq` of the last event that you received.
            user_id: The user who asks, who must own the run's session. None is trusted code: no check.

        Raises:
            UsageError: There is no such run.
            SessionOwnershipError: The run belongs to another user.
        """
        check_given_id("run_id", run_id)
        check_id("user_id", user_id)
        return follow(database_of(self), run_id, after=after, user_id=user_id, deltas=deltas_of(self.journal))


async def _in_progress(asked: RunRequest) -> ActiveRun | None:
    """The user's own run with that id here; first wait for one that may still be refused itself."""
    while True:
        other = active_runs.own(asked.db, asked.run_id, asked.user_id)
        if other is None or not (other.opens and other.loop.is_running()):
            return other
        await asyncio.sleep(OPENING_SECONDS)


def _detached(
    run_id: str, stream: Callable[[], RunStream[OutputT, Event]], key: Hashable
) -> tuple[asyncio.Future[None], _Ended[OutputT]]:
    """Drive the run in a task of its own.

    Args:
        run_id: The id of the run.
        stream: Makes the stream of the run.
        key: Names the run among all that other processes may have; None: this run is begun here, or refused.

    Returns:
        A future that resolves when the run has begun, and one that resolves to its output or error.
    """
    # Inside a run's tool, an empty context: the new run is not part of that call, nor of its transaction.
    nested = current_started_runs.get() is not None
    context = contextvars.Context() if nested else contextvars.copy_context()
    begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    ended: _Ended[OutputT] = _Ended()
    _in_background(_drained(run_id, stream, key, begun, ended), context)
    return begun, ended


def _in_background(work: Coroutine[Any, Any, T], context: contextvars.Context) -> asyncio.Task[T]:
    task = asyncio.get_running_loop().create_task(work, context=context)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task


async def _drained(
    run_id: str,
    stream: Callable[[], RunStream[OutputT, Event]],
    key: Hashable,
    begun: asyncio.Future[None],
    ended: _Ended[OutputT],
) -> None:
    """Drive a background run to its end. Its followers read the events from the database."""
    try:
        run = await _opened(stream(), None if key is None else run_id)
        if not begun.done():
            begun.set_result(None)
        ended.set_result(await (_end_elsewhere(run_id, stream, key) if run is None else _end_of(run)))
    except BaseException as error:
        lost = isinstance(error, KernError) and error.run_output is None  # no stored output says so
        if lost or (begun.done() and not ended.waited_for and not isinstance(error, asyncio.CancelledError)):
            log_failed_run(run_id, error)
        if not begun.done():
            begun.set_exception(error)
            begun.exception()  # asyncio warns about an exception that nobody retrieves
        ended.set_exception(error)
        if isinstance(error, asyncio.CancelledError):
            raise


async def _opened(
    stream: RunStream[OutputT, Event], elsewhere: str | None
) -> RunStream[OutputT, Event] | None:
    """Open the stream; None if the run with the id `elsewhere` is in progress in another process.

    Raises:
        KernError: The run was refused.
    """
    try:
        await stream.open()
    except SessionBusyError as error:
        if elsewhere is None or error.run_id != elsewhere:
            raise
        return None
    return stream


async def _end_of(stream: RunStream[OutputT, Event]) -> OutputT:
    async for _ in stream:
        pass
    return stream.output


async def _end_elsewhere(
    run_id: str, stream: Callable[[], RunStream[OutputT, Event]], key: Hashable
) -> OutputT:
    """Wait for the end of a run of another process. All who wait here ask the database once."""
    place = (asyncio.get_running_loop(), key)
    waiting = _standing_by.get(place)
    if waiting is None:
        waiting = _in_background(_stood_by(run_id, stream), contextvars.copy_context())
        _standing_by[place] = waiting
    return cast("OutputT", await asyncio.shield(waiting))


async def _stood_by(run_id: str, stream: Callable[[], RunStream[OutputT, Event]]) -> OutputT:
    """Wait until a run of another process has ended; if that process dies, resume the run here."""
    while True:
        await asyncio.sleep(STAND_BY_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        try:
            run = await _opened(stream(), run_id)
        except StoreError as error:
            log.warning("cannot read run %s of another process: %s", run_id, error)
            continue
        if run is not None:
            return await _end_of(run)
