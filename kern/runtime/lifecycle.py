"""A top-level run from its start to its commit: load the session, drive the engine, commit the result however
the run ends, and only then emit the terminal event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final

from kern._error_text import message_of
from kern._json import json_bytes
from kern._log import named
from kern._sync.offload import off_loop
from kern._sync.shield import start, wait_until_done
from kern.db.base import RunRow
from kern.errors import KernError, RunDeadlineExceeded, RunLostError, StoreError, UsageError
from kern.run.events import RunCompletedEvent, SessionStateConflictEvent
from kern.run.output import AnyRunOutput, RunStatus
from kern.runtime.active_runs import ActiveRun, RunStopped, active_runs
from kern.runtime.audience import Listen
from kern.runtime.deadline import NO_DEADLINE, Deadline
from kern.runtime.duplicates import RunStored, wait_for
from kern.runtime.engine import drive, end_run
from kern.runtime.guarded import drive_guarded, drive_in_time
from kern.runtime.identity import end_output
from kern.runtime.journaled import Installed, end_steps, release_run, why_not_ended, with_journal, with_record
from kern.runtime.lease import Lease
from kern.runtime.not_stored import NotStored, written_anyway
from kern.runtime.one_process import OnRecord
from kern.runtime.pause import row_extras
from kern.runtime.run_ends import current_started_runs
from kern.runtime.run_events import announce, announce_state, terminal_event
from kern.runtime.run_start import RunStart, begun, seed
from kern.runtime.run_tree import Run, RunRequest, RunTree
from kern.runtime.session import LiveSession, live_sessions
from kern.runtime.stream import EventBuffer
from kern.state.call_state import CallState
from kern.state.codec import decode
from kern.state.enclosing_calls import enclosing_calls
from kern.state.merge import Conflict
from kern.state.shared_state import Change
from kern.state.stepping import Ungated

log: Final = named("kern")

COMMIT_SECONDS = 10.0
"""How many seconds a cancelled run waits for its commit."""

Output = AnyRunOutput
_NONE: Final = type(None)


async def execute(
    request: RunRequest, buffer: EventBuffer | None = None, listen: Listen = Listen.nothing
) -> Output:
    """Carry out a run and commit its result.

    Args:
        request: The run.
        buffer: The queue for its events; None if nothing reads them.
        listen: Which events the reader of the buffer gets.

    Returns:
        The output, which is committed.

    Raises:
        KernError: The run failed; the error's `run_output` is committed.
        StoreError: The result could not be committed.
        CancelledError: The calling task was cancelled; the result is committed.
    """
    if not enclosing_calls.get():
        return await _active(request, buffer, listen)
    async with Ungated():  # inside a tool: the run must not wait for the tool's own turn with the state
        return await _active(request, buffer, listen)


async def _active(request: RunRequest, buffer: EventBuffer | None, listen: Listen) -> Output:
    deadline = NO_DEADLINE if request.timeout is None else Deadline(request.timeout)
    caller = current_started_runs.get()
    if request.journal is not None or (caller is None and Installed.journal is not None):
        request = with_journal(request, nested=caller is not None)
    active = ActiveRun(request)
    if caller is not None and not caller.add(active):
        raise asyncio.CancelledError("the call that starts this run was cancelled or timed out")
    try:
        while (other := active_runs.enter(active, nested=caller is not None)) is not None:
            await wait_for(other, request, deadline)
        try:
            return await _in_session(active, deadline, buffer, listen)
        except OnRecord as error:
            on_record = error
        # Nothing has begun. The run goes on in its journal, which only one process can have.
        active.request, active.opens = with_record(request, on_record), True
        return await _in_session(active, deadline, buffer, listen)
    finally:
        active_runs.leave(active)
        if (tree := active.tree) is not None and tree.committed:
            for run in tree.runs:  # break the reference cycles: the runs are freed now, not by the collector
                run.children.clear()
                run.paused.clear()
            tree.runs.clear()


async def _in_session(
    active: ActiveRun, deadline: Deadline, buffer: EventBuffer | None, listen: Listen
) -> Output:
    """Carry out the run, with its session in use."""
    request = active.request
    session = live_sessions.enter(request.db, request.session_id)
    session_run = session.register_run(request.run_id, active.done, buffer)
    try:
        outer = enclosing_calls.get().get(session.key)
        if outer is not None and not outer.has_state():
            outer = None
        start = RunStart(active, session, session_run, outer, buffer, listen)
        try:
            try:
                try:
                    run, leases = await begun(active, start, deadline)
                except RunStored as stored:
                    run = start.already_ended(stored.output)
                    if buffer is not None:  # the one event that every consumer gets
                        buffer.put(terminal_event(run, None))
                    return run.output
                except (RunStopped, RunDeadlineExceeded) as error:
                    early = error
                else:
                    if buffer is not None:
                        buffer.begin()
                    if run.tree.steps is not None:
                        deadline.count(run.tree.steps.age)
                    return await _run_and_commit(active, run, outer, leases, deadline)
            finally:
                await start.release()
            async with start.ended_early(early) as run:
                failure = None if isinstance(early, RunStopped) else early
                _note(run, asyncio.CancelledError() if failure is None else failure)
                return await _finish(run, outer, failure)
        finally:
            if request.journal is not None:
                await start.close_journal()
    finally:
        session.unregister_run(session_run)
        live_sessions.leave(session)


async def _run_and_commit(
    active: ActiveRun, run: Run, outer: CallState | None, leases: Sequence[Lease], deadline: Deadline
) -> Output:
    tree = run.tree
    failure: BaseException | None = None
    listener: Callable[[Change], None] | None = None
    run.cancel_token.enter()
    try:
        try:
            if tree.request.session_state is not None:
                await seed(tree, run)
            if run.out.wants_events and outer is None:
                listener = announce_state(run)
            elif run.out.wants_events:
                announce(run)
            if leases:
                await drive_guarded(run, leases, deadline)
            elif deadline is NO_DEADLINE:
                await drive(run)
            else:
                await drive_in_time(run, deadline)
            if run.output.status is RunStatus.paused:
                await _check_before_pause(active)
            if tree.steps is not None:
                await end_steps(run, tree.steps)
        except BaseException as error:  # noqa: BLE001 - raised again below, once the end is committed
            if (gone := await why_not_ended(active, run, error)) is not None:
                if listener is not None:  # what is undone here stays on record
                    tree.session.state.unsubscribe(listener)
                await release_run(run)
                raise gone from None
            _note(run, error)
            failure = error
            if (
                isinstance(error, asyncio.CancelledError)
                and run.cancel_token.entered
                and run.cancel_token.stopped
            ):
                failure = error if run.cancel_token.cancelled_from_outside else None
        run.cancel_token.leave()
        return await _finish(run, outer, failure)
    finally:
        if listener is not None:
            tree.session.state.unsubscribe(listener)


async def _finish(run: Run, outer: CallState | None, failure: BaseException | None) -> Output:
    """Commit the result of the run, and then emit the terminal event and return or raise the result."""
    tree = run.tree
    failure = await end_run(run, failure)
    not_stored = None
    for each in tree.runs:
        if tree.enclosed or each.output.metadata or type(each.output.content) not in (str, _NONE):
            not_stored = NotStored(tree)
            failure = failure or not_stored.error
            break
    if tree.audience.recorded is not None:
        end = terminal_event(run, failure)
        end.seq = tree.audience.number_after(1)
        run.output.events += [*tree.audience.recorded, end]
    try:
        await _end(tree, outer, failure)
        tree.committed = outer is None
    except BaseException as error:  # noqa: BLE001 - raised again below
        failure = error
    if not_stored is not None:
        not_stored.put_back()
    if run.output.events and isinstance(last := run.output.events[-1], RunCompletedEvent):
        last.session_state = run.output.session_state  # known only after the commit
    if tree.audience.follows:
        tree.audience.put(terminal_event(run, failure))
    if failure is not None:
        if isinstance(failure, KernError):
            failure.run_output = run.output
        raise failure
    return run.output


async def _check_before_pause(active: ActiveRun) -> None:
    """Cancel instead of pausing if another process asked to cancel the run."""
    try:
        await active.check_cancel_requests()
    except StoreError as error:  # the process that continues the run looks again
        log.warning("could not read the cancel requests of other processes: %s", error)


def _note(run: Run, error: BaseException) -> None:
    """Make the output say how the run ended, before or inside the engine."""
    output = run.output
    lost = output.status is RunStatus.cancelled and isinstance(error, KernError)
    if output.status is not RunStatus.running and not lost:
        return
    end_output(output, error)


def _unsaved(run: Run, error: BaseException, failure: BaseException | None) -> BaseException:
    """Return the error to raise for a run whose result is not in the database."""
    log.error("the result of run %s was not saved: %s", run.run_id, message_of(error))
    if run.output.session_state is None:
        run.output.session_state = run.tree.state()
    if isinstance(failure, asyncio.CancelledError):
        failure.__context__ = error
        return failure
    end_output(run.output, error)
    if failure is not None:
        error.__context__ = failure
    return error


async def _end(tree: RunTree, outer: CallState | None, failure: BaseException | None) -> None:
    """Commit the result of the run. A cancellation of this task does not reach the commit."""
    if outer is not None:
        outer.owner.enclosed.append(tree)
        try:
            tree.top.output.session_state = tree.state()
        except UsageError:  # the calling function was cancelled meanwhile, and its copy is void
            if failure is None:
                raise
        return

    top = tree.runs[0]

    def rows(conflicts: Sequence[Conflict]) -> list[RunRow]:
        if conflicts or top.output.state_conflicts:
            top.output.state_conflicts = [conflict.to_dict() for conflict in conflicts]
        return rows_of(tree)

    def take_note(state: bytes) -> None:  # so that the application can save it in another way
        top.output.session_state = decode(state)

    cancelled = failure if isinstance(failure, asyncio.CancelledError) else None
    claim = None if tree.steps is None else tree.steps.claim
    if tree.steps is not None:
        await tree.steps.end()
    committing = partial(tree.session.commit, rows, unsaved=take_note, claim=claim)
    while True:
        try:
            commit, waiter = await _committing(tree.session, committing)
        except asyncio.CancelledError as error:
            cancelled = error
            commit, waiter = start(committing)
        if not commit.done():
            time = None if cancelled is None else COMMIT_SECONDS
            cancelled = await wait_until_done(commit, waiter, seconds=time, grace=COMMIT_SECONDS) or cancelled
        if not commit.done():
            commit.add_done_callback(_log_late_end)
            late = StoreError(
                f"the result of the run was not committed within {COMMIT_SECONDS:g} s; the "
                "database still works on the commit, so the result may be saved later"
            )
            raise _unsaved(top, late, cancelled)
        if not commit.cancelled():
            break
        # `asyncio.run` cancels all tasks when it ends, also the commit: write it again.
    if (unsaved := commit.exception()) is not None:
        if isinstance(unsaved, RunLostError) and tree.steps is not None:
            unsaved = await tree.steps.why_lost()
        raise _unsaved(top, unsaved, cancelled or failure)
    for conflict in commit.result():
        top.out.event(SessionStateConflictEvent(top.source, **conflict.to_dict()))
    session = tree.session
    # Usually this run is the last user of the session, and may take the parsed state without a copy.
    state = session.state.take_tree() if session.users == 1 else None
    if state is None:
        state = await off_loop(len(session.state.text), tree.state)
    top.output.session_state = state
    if cancelled is not None and cancelled is not failure:
        cancelled.__context__ = failure
        raise cancelled


async def _committing(
    session: LiveSession, committing: Callable[[], Coroutine[Any, Any, Sequence[Conflict]]]
) -> tuple[asyncio.Future[Sequence[Conflict]], asyncio.Future[None] | None]:
    """Start the commit in a task, or await it here if the database never waits.

    Returns:
        The commit, which is done already in the second case, and the `waiter` for it.

    Raises:
        CancelledError: The commit had to wait for another one; nothing is written.
    """
    if not session.commits_at_once:
        return start(committing)
    ended: asyncio.Future[Sequence[Conflict]] = asyncio.get_running_loop().create_future()
    try:
        ended.set_result(await committing())
    except Exception as error:  # noqa: BLE001 - the future has it, as a task would
        ended.set_exception(error)
    return ended, None


def _log_late_end(commit: asyncio.Future[Any]) -> None:
    if commit.cancelled():
        return
    error = commit.exception()
    if error is not None:
        log.error("a late commit failed: %s", message_of(error))


_STORED_ELSEWHERE: Final = (
    *("session_state", "member_responses"),
    *("run_id", "session_id", "parent_run_id", "status", "created_at"),
)
"""What the row of an output does not hold as JSON."""


def rows_of(tree: RunTree) -> list[RunRow]:
    """Make the rows of all runs of the tree, and of runs that are nested in its calls."""
    rows = []
    for run in tree.runs:
        output = run.output
        media: dict[str, bytes] = {}
        try:
            data = json_bytes(_row_json(run, media))
        except Exception as error:  # noqa: BLE001 - the log says so: a run that was paid for is not lost for it
            data = written_anyway(output, partial(_row_json, run, media), error)
        rows.append(
            RunRow(
                run_id=run.run_id,
                session_id=output.session_id,
                runner_id=run.spec.id,
                parent_run_id=output.parent_run_id,
                status=output.status.value,
                generation=run.generation,
                data=data,
                created_at=output.created_at,
                media=media,
            )
        )
    for nested in tree.enclosed:
        rows += rows_of(nested)
    return rows


def _row_json(run: Run, media: dict[str, bytes]) -> dict[str, Any]:
    """Return the output as JSON for its row, without what is stored elsewhere: the state, the runs of
    members, and what has a column of its own.

    Args:
        run: The run.
        media: Receives the bytes of media; the row refers to them by their hashes.
    """
    data = run.output.to_dict(media)
    for name in _STORED_ELSEWHERE:
        data.pop(name, None)
    if run.output.status is RunStatus.paused or run.spec.stores_children:
        data |= row_extras(run, media)
    if run.parent is None and (fingerprint := run.tree.request.fingerprint) is not None:
        data["fingerprint"] = fingerprint
    return data
