"""The start of a run: it waits for its session, and a deadline or `cancel_run` ends the wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from kern.db.base import RunRow
from kern.db.journals import JournalDb, RunClaim
from kern.durable.db_journal import Taken
from kern.errors import RunDeadlineExceeded, RunMismatch, UsageError
from kern.messages import Message
from kern.run.output import AnyRunOutput, RunStatus, TeamRunOutput
from kern.runtime.active_runs import ActiveRun, RunStopped, active_runs
from kern.runtime.audience import NOBODY, Audience, Listen
from kern.runtime.deadline import NO_DEADLINE, Deadline
from kern.runtime.duplicates import EarlierAttempt, earlier_attempt, in_another_process
from kern.runtime.journaled import begin, continued, opened
from kern.runtime.lease import Lease, exclusive_session
from kern.runtime.one_process import OnRecord, claimed, reserved
from kern.runtime.resume import continue_attempt, restore
from kern.runtime.run_ends import SessionRun
from kern.runtime.run_tree import Run, RunTree
from kern.runtime.session import LiveSession
from kern.runtime.steps import Steps
from kern.runtime.stream import EventBuffer
from kern.state.call_state import CallState
from kern.state.shared_state import Author
from kern.state.transaction_block import CallStateHandle

T = TypeVar("T")


@dataclass(slots=True)
class RunStart:
    """Acquires what a run needs: the session, leases, the journal.

    Args:
        active: The entry of the run in this process.
        session: The session, in use.
        session_run: The entry of the run in its session.
        outer: The call whose copy of the state the run works on, if it starts inside one.
        buffer, listen: The queue of its events, and which events its reader gets.
    """

    active: ActiveRun
    session: LiveSession
    session_run: SessionRun
    outer: CallState | None
    buffer: EventBuffer | None
    listen: Listen
    _held: AsyncExitStack | None = None
    """The leases and claims that `release` releases, if there are any."""
    _journal: AsyncExitStack | None = None
    """Keeps the journal open, until `close_journal`: so no other process begins a run that is being ended."""
    _steps: Steps | None = None
    """The steps of the run, if it has a journal."""
    _loaded: bool = False
    """Whether `release` has to unload the session."""

    async def begin(self) -> tuple[Run, list[Lease]]:
        """Wait for the session. Return the run, ready to be driven, and its leases, held until `release`."""
        request, session, outer = self.active.request, self.session, self.outer
        if outer is None and self.session_run.beside:
            await session.wait_for_abandoned_runs(self.session_run)
        steps: Steps | None = None
        if request.journal is not None:
            if outer is not None:
                raise UsageError(
                    "a run with a journal needs its session exclusively, but the calling function holds the "
                    "session state: start the run before the function touches session_state, or in another "
                    "session"
                )
            steps = await self._opened()
            self.active.request = request = continued(request, steps)
            if steps.resumes or isinstance(request.journal, Taken):
                self.active.since = None  # a request to cancel it may have come while no process had it
            self.active.opens = False
        claim = None if steps is None else steps.claim
        on_busy = request.on_busy if outer is None else "share"
        leases: list[Lease] = []
        attempt: EarlierAttempt | None = None
        looked_up = claim is not None and await self._is_stored()
        if looked_up:  # no need to wait for the session
            attempt = await self._looked_up(leases, claim)
        if on_busy != "share" and not session.has_exclusive_use:
            own = exclusive_session(session, self.session_run, on_busy, request.run_id, claim)
            leases.append(await self._hold(own))
        if request.on_duplicate is None:
            await self._load()
        elif not looked_up:
            attempt = await self._looked_up(leases, claim)
        if outer is None:
            if not request.state.takes_anything:
                await session.migrate(request.state)
        elif request.resume is not None:  # its rows would be written only when the calling run ends
            raise UsageError(
                f"run {request.run_id!r} cannot be continued here: the calling function holds the "
                "state of its session. Continue it before the function touches session_state, or "
                "outside of the function"
            )
        else:
            session.check_migrated(request.state)
        if request.resume is None:
            run = self._new(attempt)
            if attempt is not None:
                await continue_attempt(run, attempt.output)
        else:
            if claim is None:
                leases.append(await self._hold(claimed(request.db, request.run_id)))
            await (
                self.active.check_cancel_requests()
            )  # a cancel request must stop the calls that a person has confirmed
            tree = self._tree()
            run = await restore(tree, request.spec)
            self.active.tree = tree
        if steps is not None:
            await begin(self.active, run, steps)
        return run, leases

    async def _opened(self) -> Steps:
        """The steps in the journal, which stays open until `close_journal`."""
        if self._steps is None:
            self._journal = AsyncExitStack()
            self._steps = await self._journal.enter_async_context(opened(self.active.request))
        return self._steps

    async def close_journal(self) -> None:
        """Close the journal, if it is open: from then on another process may have the run."""
        if self._journal is not None:
            await self._journal.aclose()

    async def release(self) -> None:
        """Release the leases and the session."""
        try:
            if self._held is not None:
                await self._held.aclose()
        finally:
            if self._loaded:
                self.session.unload()

    async def _load(self, run_id: str | None = None) -> RunRow | None:
        """Load the session, and the row of a run in the same read."""
        request = self.active.request
        found = await self.session.load(request.state, request.user_id, run_id=run_id)
        if self._held is None:
            self._loaded = True
        else:
            self._held.callback(self.session.unload)
        return found

    async def _hold(self, held: AbstractAsyncContextManager[T]) -> T:
        if self._held is None:
            self._held = AsyncExitStack()
        return await self._held.enter_async_context(held)

    @asynccontextmanager
    async def ended_early(self, why: RunStopped | RunDeadlineExceeded) -> AsyncIterator[Run]:
        """Make a run that ended before it began, to be stored with that result.

        Raises:
            RunDeadlineExceeded: The run is paused, and stays paused.
            SessionError: Another process has the run, or it is on record with a journal.
        """
        request = self.active.request
        if request.resume is not None and isinstance(why, RunDeadlineExceeded):
            raise why
        async with self.session.loaded(request.state, request.user_id), AsyncExitStack() as held:
            steps: Steps | None = None
            if request.journal is not None:  # what is on record of it goes with its end
                steps = await self._opened()
            chosen = request.on_duplicate is not None or request.resume is not None
            if chosen and (steps is None or steps.claim is None):
                own = reserved if request.resume is None else claimed
                try:
                    lease = await held.enter_async_context(own(request.db, request.run_id))
                except OnRecord:
                    lease = None
                if lease is None:
                    raise in_another_process(request)
            run = self._new() if request.resume is None else await restore(self._tree(), request.spec)
            run.tree.steps = steps
            yield run

    async def _is_stored(self) -> bool:
        """Whether a run with the id that the caller chose is stored: it has ended, or is paused."""
        request = self.active.request
        if request.resume is not None or request.on_duplicate is None:
            return False
        return await request.db.load_run(request.run_id) is not None

    async def _looked_up(self, leases: list[Lease], claim: RunClaim | None) -> EarlierAttempt | None:
        """Load the session, and check that the id that the caller chose is free."""
        request = self.active.request
        row = await self._load(request.run_id)
        # The owner is checked by now, so another user cannot block the id.
        if not active_runs.claim(self.active):
            raise RunMismatch(request.run_id, "session")
        if claim is not None:  # other processes cannot have changed the run since the claim was granted
            row = await request.db.load_run(request.run_id)
        elif request.db.shared or isinstance(request.db, JournalDb):
            lease = await self._hold(reserved(request.db, request.run_id))
            if lease is None:
                raise in_another_process(request)
            leases.append(lease)
            row = await request.db.load_run(request.run_id)  # another process may have ended it meanwhile
        return await earlier_attempt(request, row)

    def already_ended(self, output: AnyRunOutput) -> Run:
        """Make a run from its stored output, which is returned as it is.

        Raises:
            RunMismatch: The stored answer does not fit the `output_schema` of this request.
        """
        self._steps = None  # events go to this caller only: those of the run itself are stored
        run = self._new()
        typed = run.spec.typed
        if typed is not None and output.status is RunStatus.completed and output.content is not None:
            try:
                output.content = typed(output.content, _messages_of(output)).content
            except ValueError as error:
                raise RunMismatch(run.run_id, "output_schema") from error
        elif typed is None and output.status is RunStatus.completed and output.content_type != "str":
            raise RunMismatch(run.run_id, "output_schema")
        run.output = output
        output.session_state = run.tree.state()
        return run

    def _new(self, attempt: EarlierAttempt | None = None) -> Run:
        request = self.active.request
        self.active.tree = tree = self._tree()
        run = Run(tree, request.spec, request.input, request.run_id)
        if attempt is not None:
            run.earlier, run.generation = attempt.output, attempt.generation + 1
        return run

    def _tree(self) -> RunTree:
        shared_state = self.session.state if self.outer is None else self.outer.nested_state()
        request = self.active.request
        buffer = self.buffer
        if self._steps is not None and self._steps.outbox is not None:
            buffer = buffer or EventBuffer()
            buffer.observers = (*buffer.observers, self._steps.outbox.put)
        audience = NOBODY
        if buffer is not None or request.skip_events is not None:
            audience = Audience(buffer, self.listen, request.skip_events)
        return RunTree(request, self.session, shared_state, audience, self.active.cancel_token)


async def begun(active: ActiveRun, start: RunStart, deadline: Deadline) -> tuple[Run, list[Lease]]:
    """Wait for the session and begin the run. A cancellation or the deadline ends the wait.

    Raises:
        RunStopped: `cancel_run` was called before the run had begun.
        RunDeadlineExceeded: The deadline passed before the run had begun.
    """
    token = active.cancel_token
    token.enter()
    try:
        if deadline is NO_DEADLINE:
            made = await start.begin()
        else:
            async with deadline.inside():
                made = await start.begin()
        if token.stopped:
            raise RunStopped
        return made
    except asyncio.CancelledError as error:
        if not token.cancelled_from_outside and token.stopped:
            raise RunStopped from error
        raise
    finally:
        token.leave()


def _messages_of(output: AnyRunOutput) -> list[Message]:
    """The messages of a run and, before them, those of its members' runs, one of which may have answered."""
    below = output.member_responses if isinstance(output, TeamRunOutput) else []
    return [*(message for member in below for message in _messages_of(member)), *output.messages]


async def seed(tree: RunTree, run: Run) -> None:
    """Merge the `session_state=` of the run into the session, as a transaction."""
    request = tree.request
    given = request.session_state
    if given is None:
        return
    author = Author(run.run_id, run.source.path, "session_state")
    if tree.steps is not None and tree.steps.line.made(author):
        return
    call = CallState(tree.shared_state, author, session=tree.session.key, owner=tree)
    handle = CallStateHandle(call)
    async with handle.transaction() as state:
        base = request.state.default() if request.overwrite_state else state
        handle.assign(request.state.state_type.lay_over(base, given))
    call.end(commit=False)
