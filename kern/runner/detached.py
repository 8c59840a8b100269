"""Runs that outlive the call that starts them: `astart`, and `follow` from any process."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import Future
from typing import Any, Final, Generic, TypeVar, Unpack

from kern._log import named
from kern._traceback import ShortTraceback
from kern.db.base import Db
from kern.durable.db_journal import DbJournal, deltas_of
from kern.durable.deltas import DeltaStream
from kern.errors import KernError
from kern.run.cancel import CancelResult
from kern.run.events import Event
from kern.run.output import AnyRunOutput
from kern.runner.compile import database_of, new_id, request
from kern.runner.input_schema import Input
from kern.runner.options import ContinueKeywords, RunKeywords, RunOptions, check_id, run_input
from kern.runner.running import Running
from kern.runtime.active_runs import active_runs
from kern.runtime.audience import Listen
from kern.runtime.duplicates import check_joins
from kern.runtime.following import follow
from kern.runtime.lifecycle import execute
from kern.runtime.portal import portal
from kern.runtime.run_ends import current_started_runs
from kern.runtime.stream import EventBuffer, RunStream

OutputT = TypeVar("OutputT", bound=AnyRunOutput)

log: Final = named("kern")

_tasks: Final[set[asyncio.Task[None]]] = set()
"""The runs that no call awaits: an event loop itself keeps no task alive."""


class RunHandle(Generic[OutputT]):
    """A run that goes on by itself.

    Args:
        running: The agent or team.
        run_id: The run.
        user_id: Whose run it is: the handle follows and cancels no one else's.
        ended: Its output, or its error, once it has ended.
        deltas: Where what it tells between steps is; None: in the database.
    """

    def __init__(
        self,
        running: Running[OutputT],
        run_id: str,
        user_id: str | None,
        ended: Future[OutputT],
        deltas: DeltaStream | None = None,
    ) -> None:
        self.run_id: str = run_id
        self._user_id = user_id
        self._running = running
        self._ended = ended
        self._deltas = deltas

    async def result(self) -> OutputT:
        """The output, once the run has ended or waits for a person. A cancellation leaves the run alone.

        Raises:
            KernError: The run has failed; the error has the output, which is committed.
            ShutdownError: `kern.shutdown()` has let go of it.
        """
        return await asyncio.shield(asyncio.wrap_future(self._ended))

    def wait(self, timeout: float | None = None) -> OutputT:
        """`result` for sync code.

        Raises:
            TimeoutError: The run has not ended within so many seconds.
        """
        with ShortTraceback():
            return self._ended.result(timeout)

    def follow(self, *, after: int = 0) -> AsyncIterator[Event]:
        """What the run tells; see `Agent.follow`."""
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
    """Starts runs that no call owns, and follows runs by their ids."""

    __slots__ = ()

    async def astart(self, input: Input, **options: Unpack[RunKeywords]) -> RunHandle[OutputT]:
        """Start a run that goes on by itself; back once it is on record, before the model is asked.

        The run has a journal: `DbJournal` of the agent's or team's `db`, unless another one is given. It
        ends with no call, only by itself, by `cancel_run`, or by its `timeout`; `kern.shutdown()` lets go of
        it. If this process dies, another one goes on with it: by `arun` with the same `run_id`.

        Args:
            input: As for `arun`.
            options: See `RunOptions`.

        Raises:
            KernError: The run was refused.
        """
        journal = options.get("journal") or self.journal
        if journal is None:
            options["journal"] = journal = DbJournal(database_of(self))
        if options.get("run_id") is None:
            options["run_id"] = new_id()
        chosen = RunOptions.of(options)
        asked = request(self, run_input(input, self.input_schema, chosen), chosen)
        other = active_runs.own(asked.db, asked.run_id, asked.user_id)
        if other is not None:
            check_joins(other, asked)

        def run(buffer: EventBuffer) -> Coroutine[Any, Any, Any]:
            return execute(asked, buffer, Listen.everything)

        begun, ended = _detached(asked.run_id, RunStream(run, EventBuffer()))
        if other is None:  # one that goes on already is not waited for
            await asyncio.shield(begun)
        return RunHandle(self, asked.run_id, asked.user_id, ended, deltas_of(journal))

    async def astart_continuation(
        self, run_response: AnyRunOutput | None = None, **options: Unpack[ContinueKeywords]
    ) -> RunHandle[OutputT]:
        """Go on with a paused run, which then goes on by itself, as one that `astart` has started.

        Args:
            run_response: The paused run's output, its `requirements` resolved.
            options: As for `acontinue_run`.

        Raises:
            KernError: The run was refused: it does not wait, goes on already, or the answers do not fit.
        """
        journal = options.get("journal") or self.journal
        if journal is None:
            options["journal"] = journal = DbJournal(database_of(self))
        options["stream_events"] = True
        stream: RunStream[OutputT, Event] = self.acontinue_run(run_response, stream=True, **options)
        run_id, user_id = options.get("run_id"), options.get("user_id")
        if run_response is not None:
            run_id, user_id = run_id or run_response.run_id, user_id or run_response.user_id
        assert run_id is not None  # acontinue_run has refused that
        begun, ended = _detached(run_id, stream)
        await asyncio.shield(begun)
        return RunHandle(self, run_id, user_id or self.user_id, ended, deltas_of(journal))

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
        """What a run with a journal tells, from any process: `async for event in team.follow(run_id)`.

        Ends with the event that ends the run, or with `RunPaused`. Pieces of a text that came shortly after
        each other are one piece, under the number of the last. If the run goes on in another process, its
        `RunContinued` voids every turn that had not completed; see docs/following.md.

        Args:
            run_id: The run.
            after: Only events with a `seq` above this: that of the last one that was heard.
            user_id: Who asks, and has to be the owner of the run's session; None is trusted code, unchecked.

        Raises:
            UsageError: There is no such run.
            SessionOwnershipError: The run is another user's.
        """
        check_id("run_id", run_id)
        check_id("user_id", user_id)
        return follow(database_of(self), run_id, after=after, user_id=user_id, deltas=deltas_of(self.journal))


def _detached(run_id: str, stream: RunStream[OutputT, Event]) -> tuple[asyncio.Future[None], Future[OutputT]]:
    """Have the run driven by a task of its own: what says that it has begun, and what says how it ends."""
    # It belongs to nobody: neither to a call that starts it, nor to that call's state.
    nested = current_started_runs.get() is not None
    context = contextvars.Context() if nested else contextvars.copy_context()
    loop = asyncio.get_running_loop()
    begun: asyncio.Future[None] = loop.create_future()
    ended: Future[OutputT] = Future()
    task = loop.create_task(_drained(run_id, stream, begun, ended), context=context)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return begun, ended


async def _drained(
    run_id: str, stream: RunStream[OutputT, Event], begun: asyncio.Future[None], ended: Future[OutputT]
) -> None:
    """Drive a run whose events are read from the database."""
    try:
        await stream.open()
        if not begun.done():
            begun.set_result(None)
        async for _ in stream:
            pass
        ended.set_result(stream.output)
    except BaseException as error:
        if isinstance(error, KernError) and error.run_output is None:
            log.warning("run %s, started by itself: %s", run_id, error)  # no stored output says so
        if not begun.done():
            begun.set_exception(error)
            begun.exception()  # a run that had begun before is not waited for
        ended.set_exception(error)
        if isinstance(error, asyncio.CancelledError):
            raise
