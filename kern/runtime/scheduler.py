"""A top-level run from its session's first row to its commit: resolve the state, drive the engine, write the
end however it ends, and only then tell the consumer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from kern._told import text_of
from kern.db.base import RunRow
from kern.errors import KernError, RunDeadlineExceeded, StoreError, UsageError
from kern.run.events import SessionStateConflictEvent
from kern.run.output import RunOutput, RunStatus, TeamRunOutput
from kern.runtime.control import active_runs
from kern.runtime.engine import announce, drive, terminal_event
from kern.runtime.lease import Lease, turn
from kern.runtime.resume import claimed, restore, row_extras
from kern.runtime.run import Run, Tree
from kern.runtime.session import live_sessions
from kern.runtime.spec import RunRequest
from kern.runtime.stream import EventBuffer, Listen
from kern.state.block import Handle
from kern.state.call import CallState
from kern.state.codec import decode
from kern.state.enclosing import enclosing_call
from kern.state.large import off_loop
from kern.state.merge import Conflict
from kern.state.scope import Writer
from kern.state.stepping import OffTurn

log = logging.getLogger("kern")

COMMIT_SECONDS = 10.0
"""How long a cancelled run waits for its commit."""

Output = RunOutput | TeamRunOutput


async def execute(
    request: RunRequest, buffer: EventBuffer | None = None, listen: Listen = Listen.nothing
) -> Output:
    """Run what the application asked for and commit it.

    Raises:
        KernError: The run failed; the error has the output, which is committed.
        StoreError: The end could not be committed.
        CancelledError: The calling task was cancelled; the end is committed.
    """
    async with OffTurn():  # a tool that runs this must not make it wait for the tool's own turns
        return await _in_session(request, buffer, listen)


async def _in_session(request: RunRequest, buffer: EventBuffer | None, listen: Listen) -> Output:
    """The run, for which its session is in use."""
    session = live_sessions.enter(request.db, request.session_id)
    ending = session.expect(buffer)
    try:
        outer = enclosing_call(session.key)
        if outer is None or not outer.has_state():
            await session.settled(ending)
            outer = None
        on_busy = request.on_busy if outer is None else "share"
        async with (
            turn(session, ending, on_busy, request.run_id) as lease,
            session.loaded(request.state, request.user_id),
        ):
            if outer is None:
                await session.settle(request.state)
            elif request.resume is not None:  # its rows would say that it waits until that call's run ends
                raise UsageError(
                    f"run {request.run_id!r} is of the session whose state the calling function has: "
                    "continue it before the function touches session_state, or outside of it"
                )
            else:
                session.check_settled(request.state)
            scope = session.state if outer is None else outer.enclosed_scope()
            tree = Tree(request, session, scope, buffer, listen)
            leases = [lease] if lease is not None else []
            async with AsyncExitStack() as held:
                if request.resume is None:
                    run = Run(tree, request.spec, request.input, request.run_id)
                else:
                    leases.append(await held.enter_async_context(claimed(request.db, request.run_id)))
                    run = await restore(tree)
                with active_runs.register(tree):
                    return await _run_and_commit(tree, run, outer, leases)
    finally:
        session.ended(ending)
        live_sessions.leave(session)


async def _run_and_commit(tree: Tree, run: Run, outer: CallState | None, leases: Sequence[Lease]) -> Output:
    failure: BaseException | None = None
    listening, subscribed = run.hears_all and outer is None, False
    run.task = task = asyncio.current_task()
    try:
        await _seed(tree, run)
        if listening:
            tree.session.state.subscribe(
                tree.state_changed, lambda text, revision: announce(run, decode(text), revision)
            )
            subscribed = True
        else:
            announce(run)
        async with AsyncExitStack() as guards:
            for lease in leases:
                await guards.enter_async_context(lease.guard())
            await _drive_in_time(run, tree.request.timeout)
    except BaseException as error:  # noqa: BLE001 - raised again below, once the end is committed
        _note(run, error)
        stopped = isinstance(error, asyncio.CancelledError) and task is not None and run.stopped(task)
        failure = None if stopped else error
    finally:
        run.task = None
    if tree.record is not None:
        run.output.events += [*tree.record.events, terminal_event(run, failure)]
    try:
        await _end(tree, outer, failure)
    except BaseException as error:  # noqa: BLE001 - raised again below
        failure = error
    finally:
        if subscribed:
            tree.session.state.unsubscribe(tree.state_changed)
    if tree.listen is not Listen.nothing:
        tree.put(terminal_event(run, failure))
    if failure is not None:
        if isinstance(failure, KernError):
            failure.run_output = run.output
        raise failure
    return run.output


async def _drive_in_time(run: Run, seconds: float | None) -> None:
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            run.deadline = deadline
            await drive(run)
    except TimeoutError as error:
        if not deadline.expired():
            raise
        run.output.status = RunStatus.error
        failure = RunDeadlineExceeded(f"the run took longer than {seconds:g} s")
        run.output.error, run.output.error_type = text_of(failure), type(failure).__name__
        raise failure from error


def _note(run: Run, error: BaseException) -> None:
    """The run ended before or inside the engine: see that its output says so."""
    output = run.output
    lost = output.status is RunStatus.cancelled and isinstance(error, KernError)
    if output.status is not RunStatus.running and not lost:
        return
    output.status = RunStatus.cancelled if isinstance(error, asyncio.CancelledError) else RunStatus.error
    if output.status is RunStatus.error:
        output.error, output.error_type = text_of(error), type(error).__name__


def _unsaved(run: Run, error: BaseException, failure: BaseException | None) -> BaseException:
    """What to raise for a run whose end is not in the database."""
    log.error("run %s is not saved: %s", run.run_id, text_of(error))
    run.output.session_state = run.tree.state()
    if isinstance(failure, asyncio.CancelledError):
        failure.__context__ = error
        return failure
    run.output.status = RunStatus.error
    run.output.error, run.output.error_type = text_of(error), type(error).__name__
    if failure is not None:
        error.__context__ = failure
    return error


async def _seed(tree: Tree, run: Run) -> None:
    """Merge the run's own `session_state=` into the session, as a transaction."""
    request = tree.request
    given = request.session_state
    if given is None:
        return
    writer = Writer(run.run_id, run.source.path, "session_state")
    call = CallState(tree.scope, writer, session=tree.session.key, owner=tree)
    handle = Handle(call)
    async with handle.transaction() as state:
        base = request.state.default() if request.overwrite_state else state
        handle.assign(request.state.shape.lay_over(base, given))
    call.end(commit=False)


async def _end(tree: Tree, outer: CallState | None, failure: BaseException | None) -> None:
    """Write the end of the run, in a task of its own that no cancellation of this one reaches."""
    if outer is not None:
        outer.owner.enclosed.append(tree)
        try:
            tree.top.output.session_state = tree.state()
        except UsageError:  # the caller was given up meanwhile, and its copy is gone
            if failure is None:
                raise
        return

    def rows(conflicts: Sequence[Conflict]) -> list[RunRow]:
        tree.top.output.state_conflicts = [conflict.to_dict() for conflict in conflicts]
        return _rows(tree)

    commit = asyncio.create_task(tree.session.commit(rows))
    cancelled = failure if isinstance(failure, asyncio.CancelledError) else None
    deadline = time.monotonic() + COMMIT_SECONDS if cancelled is not None else None
    while not commit.done() or commit.cancelled():
        if commit.cancelled():  # by `asyncio.run`, which cancels every task at its end, this one too
            commit = asyncio.create_task(tree.session.commit(rows))
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            commit.add_done_callback(_log_late_end)
            late = StoreError(f"the end of the run was not committed within {COMMIT_SECONDS:g} s")
            raise _unsaved(tree.top, late, cancelled)
        try:
            await asyncio.wait([commit], timeout=left)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and tree.top.stopped(task):
                continue  # `cancel_run` came when the run was over
            cancelled = error
            deadline = deadline or time.monotonic() + COMMIT_SECONDS
    if (unsaved := commit.exception()) is not None:
        raise _unsaved(tree.top, unsaved, cancelled or failure)
    for conflict in commit.result():
        tree.top.emit(SessionStateConflictEvent(tree.top.source, **conflict.to_dict()))
    tree.top.output.session_state = await _last_state(tree)
    if cancelled is not None and cancelled is not failure:
        cancelled.__context__ = failure
        raise cancelled


async def _last_state(tree: Tree) -> dict[str, Any]:
    """The session state for the output: as a rule this run was the last one to use the session."""
    session = tree.session
    state = session.state.given_away() if session.users == 1 else None
    return await off_loop(len(session.state.text), tree.state) if state is None else state


def _log_late_end(commit: asyncio.Task[Any]) -> None:
    if commit.cancelled():
        return
    error = commit.exception()
    if error is not None:
        log.error("a late commit failed: %s", text_of(error))


def _rows(tree: Tree) -> list[RunRow]:
    rows = [_row(run) for run in tree.runs]
    for nested in tree.enclosed:
        rows += _rows(nested)
    return rows


def _row(run: Run) -> RunRow:
    output = run.output
    media: dict[str, bytes] = {}
    return RunRow(
        run_id=run.run_id,
        session_id=output.session_id,
        runner_id=run.spec.id,
        parent_run_id=output.parent_run_id,
        status=output.status.value,
        generation=run.generation,
        data=output.to_row(media, **row_extras(run, media)),
        created_at=output.created_at,
        media=media,
    )
