"""Runs with a journal: which journal a run has, how it is opened, and when a run that stops has not ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Protocol

from kern._error_text import leaf_errors
from kern._json import jsonable
from kern.db.base import Db
from kern.durable.db_journal import DbJournal, Taken
from kern.durable.journal import Journal, Playback, RunAsked
from kern.durable.outbox import AHEAD, Outbox
from kern.errors import KernError, ShutdownError, UsageError
from kern.run.events import RunContinuedEvent
from kern.runtime.active_runs import ActiveRun
from kern.runtime.duplicates import in_another_process
from kern.runtime.request import Resume
from kern.runtime.run_tree import Run, RunRequest
from kern.runtime.steps import JournalSignal, Steps
from kern.runtime.tail import last_event


class InstalledJournal(Journal, Protocol):
    """A journal of all runs of the process."""

    db: Db | None
    """Where sessions are meanwhile; None: where the agents and teams have them."""


class Installed:
    """The journal of all runs of the process that are given none: for tests that record and replay."""

    journal: InstalledJournal | None = None


def with_journal(request: RunRequest, *, nested: bool) -> RunRequest:
    """The request with the journal that it is to have, if any.

    A run with a journal has its session to itself: its commits are one line.

    Args:
        nested: The run is started inside of another one: it is a part of that one's steps.
    """
    journal: Journal | None = request.journal
    if journal is None and not nested:
        journal = Installed.journal
    if journal is None:
        return request
    on_busy = "queue" if request.on_busy == "share" else request.on_busy
    return replace(request, journal=journal, run_id=journal.run_id(_asked(request)), on_busy=on_busy)


def _asked(request: RunRequest) -> RunAsked:
    continued = request.resume is not None
    return RunAsked(
        run_id=request.run_id,
        runner_id=request.spec.id,
        input=None if continued else jsonable(request.input.value),
        continued=continued,
        session_id=request.session_id,
        user_id=request.user_id,
        is_team=request.spec.is_team,
        unnamed=request.spec.unnamed,
        messages=() if continued else request.input.messages,
        fingerprint=request.fingerprint,
    )


@asynccontextmanager
async def opened(request: RunRequest) -> AsyncIterator[Steps]:
    """The steps of a run with a journal, as long as it is driven here.

    Raises:
        RunConflictError: Another process has the run; with `on_duplicate="return"` a `SessionBusyError`.
        UsageError: The journal is in another database.
    """
    assert request.journal is not None
    if isinstance(request.journal, DbJournal) and request.journal.db.identity != request.db.identity:
        raise UsageError(
            f"the journal uses {request.journal.db!r}, but the session uses {request.db!r}: a run is stored "
            "in one transaction with its journal, so pass the same db to both"
        )
    journal = await request.journal.open(_asked(request))
    if journal is None:
        raise in_another_process(request)
    try:
        steps = Steps(journal)
    except BaseException:
        await journal.close()
        raise
    try:
        yield steps
    finally:
        await steps.close()


async def begin(active: ActiveRun, run: Run, steps: Steps) -> None:
    """Make the session what it was when the run began, and note the beginning if it is now.

    Raises:
        KernError: That cannot be done.
    """
    request, tree = active.request, run.tree
    if steps.goes_on or isinstance(request.journal, Taken):
        await active.look()  # a request to cancel it may have come while no process had it
    about = {
        "run_id": request.run_id,
        "runner": request.spec.id,
        "input": jsonable(request.input.value),
        "continued": request.resume is not None,
        "fingerprint": tree.request.fingerprint,
    }
    if request.resume is not None:
        about["answers"] = [answer.to_dict() for answer in request.resume.requirements]
    outbox = steps.outbox
    if outbox is not None and (outbox.last_seq or steps.goes_on):
        # Above all that may have been told live, and that is not on record.
        about["told"] = outbox.last_seq
        if request.resume is not None and not steps.goes_on:
            await _told_pause(request, outbox)
        tree.audience.go_on_after(max(tree.audience.number_after(0), outbox.last_seq + AHEAD))

    def lost(error: KernError) -> None:
        steps.lost = error
        active.cancel()

    await steps.begin(tree.session, about, lost)
    tree.steps = steps
    if outbox is not None and steps.goes_on:
        await _told_before(run, steps, outbox)
    if request.resume is None:
        run.output.created_at = int(steps.line.since)


def continued(request: RunRequest, steps: Steps) -> RunRequest:
    """The request, which goes on with a continuation that has died: with the answers that are on record.

    The answers on record stand, since calls may have been made by them. Those that this call gives to other
    requirements are added.

    Raises:
        StoreError: The answers on record cannot be read.
    """
    answers = steps.line.answers
    if answers is None or steps.playback is not Playback.resume:
        return request
    if request.resume is None and request.on_duplicate != "return":
        return request  # which is refused: the run is stored as a paused one
    given = () if request.resume is None else request.resume.requirements
    known = {answer.id for answer in answers}
    answers += [answer for answer in given if answer.id not in known]
    return replace(request, resume=Resume(answers, given), on_duplicate=None, session_state=None)


async def _told_pause(request: RunRequest, outbox: Outbox) -> None:
    """Keep the event that ended the part before the pause: until now the stored run itself has told it."""
    row = await request.db.load_run(request.run_id)
    before = await outbox.told(outbox.last_seq - 1)
    if row is not None and before:
        paused = await last_event(request.db, row)
        paused.seq, paused.created_at = outbox.last_seq + 1, before[-1].created_at
        outbox.put(paused)


async def _told_before(run: Run, steps: Steps, outbox: Outbox) -> None:
    """Tell those who follow the run that it goes on, and nothing again that they have heard."""
    audience, line = run.tree.audience, steps.line
    kept = await outbox.told(line.told)
    state, revision = line.recorded_state()
    continued = RunContinuedEvent(run.source, state, revision)
    continued.seq = audience.number_after(1)
    audience.go_on_after(continued.seq)
    outbox.go_on(continued, kept)


async def end_steps(run: Run, steps: Steps) -> None:
    """Keep what no step has brought.

    Raises:
        JournalSignal: That cannot be done, or a strict replay has not come to the end of its record.
    """
    steps.ended(run)
    await steps.flush()


async def why_not_ended(active: ActiveRun, run: Run, error: BaseException) -> BaseException | None:
    """What is raised for a run that stops here and has not ended: another process goes on with it.

    None for one that has ended by `error`.
    """
    steps = run.tree.steps
    if steps is None:
        return None
    for leaf in leaf_errors(error):
        if isinstance(leaf, JournalSignal):
            if steps.lost is not None:
                await active.take_cancellation_back()
            return leaf.error
    cancelled = isinstance(error, asyncio.CancelledError)
    if await steps.is_lost() if not cancelled else steps.lost is not None:
        await active.take_cancellation_back()
        return steps.lost
    if not cancelled or steps.claim is None or run.cancel_token.stopped:
        return None
    if active.released:
        await active.take_cancellation_back()
        return ShutdownError(
            f"run {run.run_id!r} was released by kern.shutdown() before it ended: repeat the same call to "
            "resume it"
        )
    return error


async def let_go(run: Run) -> None:
    """Leave nothing of the run in this process, and nothing of it in the session that is not stored."""
    session, own = run.tree.session, {one.run_id for one in run.tree.runs}
    if run.tree.ledger is not None:
        run.tree.ledger.let_go()
    if run.started_runs is not None:
        await run.started_runs.give_up()
    session.state.take_back(
        session.row.state, session.row.revision, lambda change: change.author.run_id in own
    )
