"""Runs with a journal: which journal a run has, how it is opened, and whether a run that stops has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Protocol

from kern._error_text import leaf_errors
from kern._json import jsonable
from kern.db.base import Db
from kern.db.journals import JournalDb
from kern.durable.db_journal import DbJournal, Taken
from kern.durable.journal import Journal, Playback, RunAsked
from kern.durable.outbox import AHEAD, Outbox
from kern.errors import KernError, ShutdownError, UsageError
from kern.run.events import RunContinuedEvent
from kern.runtime.active_runs import ActiveRun
from kern.runtime.duplicates import in_another_process
from kern.runtime.one_process import OnRecord
from kern.runtime.request import Resume
from kern.runtime.run_tree import Run, RunRequest
from kern.runtime.steps import JournalSignal, Steps
from kern.runtime.tail import last_event


class InstalledJournal(Journal, Protocol):
    """A journal for all runs of the process."""

    db: Db | None
    """The database to use meanwhile; None: those of the agents and teams."""

    replays: bool
    """Whether it has answers of models on record, so that a run may need no API key."""


class Installed:
    """The journal of all runs without a journal of their own, for tests that record and replay."""

    journal: InstalledJournal | None = None


def with_journal(request: RunRequest, *, nested: bool) -> RunRequest:
    """Return the request with its journal: its own, or the installed one; unchanged if there is none.

    A run with a journal needs exclusive use of its session, so that its commits are in one order.

    Args:
        request: The request.
        nested: The run starts inside another run, and is a part of that run's steps.
    """
    journal: Journal | None = request.journal
    if journal is None and not nested:
        journal = Installed.journal
    if journal is None:
        return request
    on_busy = "queue" if request.on_busy == "share" else request.on_busy
    return replace(request, journal=journal, run_id=journal.run_id(_asked(request)), on_busy=on_busy)


def with_record(request: RunRequest, known: OnRecord) -> RunRequest:
    """Return a request without a journal with the one in which its run is on record.

    Raises:
        SessionError: The request has a recording as its journal.
    """
    if request.journal is not None:
        raise in_another_process(request)
    assert isinstance(request.db, JournalDb)
    journal = Taken(DbJournal(request.db), known.run)
    return with_journal(replace(request, journal=journal), nested=False)


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
    """Open the journal of a run inside the block.

    Raises:
        RunConflictError: Another process has the run; with `on_duplicate="return"` a `SessionBusyError`.
        UsageError: The journal is in another database than the session.
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
    """Restore the session as it was when the run began, or record that the run begins now.

    Raises:
        KernError: The journal cannot be read or written, or the session has another state.
    """
    request, tree = active.request, run.tree
    if steps.resumes or isinstance(request.journal, Taken):
        await active.check_cancel_requests()  # a cancel request may have come while no process had the run
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
    if outbox is not None and (outbox.last_seq or steps.resumes):
        # Above the numbers of all events that may have been sent live without being recorded.
        about["told"] = outbox.last_seq
        if request.resume is not None and not steps.resumes:
            await _emit_pause(request, outbox)
        tree.audience.continue_after(max(tree.audience.number_after(0), outbox.last_seq + AHEAD))

    def lost(error: KernError) -> None:
        steps.lost = error
        active.cancel()

    await steps.begin(tree.session, about, lost)
    tree.steps = steps
    if outbox is not None and steps.resumes:
        await _emit_stored(run, steps, outbox)
    if request.resume is None:
        run.output.created_at = int(steps.line.since)


def continued(request: RunRequest, steps: Steps) -> RunRequest:
    """Return the request with the recorded answers, if it resumes a continuation whose process died.

    The recorded answers remain valid, since calls may have been made because of them. The answers of this
    request to other requirements are added.

    Raises:
        StoreError: The recorded answers cannot be read.
    """
    answers = steps.line.answers
    if answers is None or steps.playback is not Playback.resume:
        return request
    if request.resume is None and request.on_duplicate != "return":
        return request  # it will be refused: the stored run is paused
    given = () if request.resume is None else request.resume.requirements
    known = {answer.id for answer in answers}
    answers += [answer for answer in given if answer.id not in known]
    return replace(request, resume=Resume(answers, given), on_duplicate=None, session_state=None)


async def _emit_pause(request: RunRequest, outbox: Outbox) -> None:
    """Store the event of the pause: until now followers got it from the stored run itself."""
    row = await request.db.load_run(request.run_id)
    before = await outbox.read_stored(outbox.last_seq - 1)
    if row is not None and before:
        paused = await last_event(request.db, row)
        paused.seq, paused.created_at = outbox.last_seq + 1, before[-1].created_at
        outbox.put(paused)


async def _emit_stored(run: Run, steps: Steps, outbox: Outbox) -> None:
    """Send followers the event that the run is resumed, and do not repeat stored events."""
    audience, line = run.tree.audience, steps.line
    kept = await outbox.read_stored(line.recorded_seq)
    state, revision = line.recorded_state()
    continued = RunContinuedEvent(run.source, state, revision)
    continued.seq = audience.number_after(1)
    audience.continue_after(continued.seq)
    outbox.resume(continued, kept)


async def end_steps(run: Run, steps: Steps) -> None:
    """Record the commits that belong to no step.

    Raises:
        JournalSignal: The journal cannot be written, or a strict replay has unused recorded steps.
    """
    steps.check_unclear()
    steps.ended(run)
    await steps.flush()


async def why_not_ended(active: ActiveRun, run: Run, error: BaseException) -> BaseException | None:
    """Return the error to raise for a run that stops here but may be resumed by another process.

    Returns None for a run that has ended with `error`.
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


async def release_run(run: Run) -> None:
    """Release the run: undo its counts, cancel the runs that it started, and take unsaved changes back."""
    session, own = run.tree.session, {one.run_id for one in run.tree.runs}
    if run.tree.ledger is not None:
        run.tree.ledger.release()
    if run.started_runs is not None:
        await run.started_runs.give_up()
    session.state.take_back(
        session.row.state, session.row.revision, lambda change: change.author.run_id in own
    )
