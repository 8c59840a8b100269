"""What every engine does with a run: hand it over as plain data, and drive it to its end."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from kern.agent import Agent
from kern.db.base import Db
from kern.durable.db_journal import DbJournal
from kern.durable.submission import Submission
from kern.errors import KernError, ShutdownError, UsageError
from kern.run.output import AnyRunOutput, RunOutput, RunStatus, TeamRunOutput
from kern.runner.definition import database_of, id_of
from kern.team import Team

Runner: TypeAlias = Agent | Team

_HERE = (RunStatus.completed, RunStatus.error, RunStatus.cancelled, RunStatus.paused)
"""Nobody has to go on with a run that stands there: it has ended, or waits for a person."""


def submission(
    runner: Runner,
    input: Any,
    *,
    session_id: str,
    run_id: str | None = None,
    user_id: str | None = None,
    session_state: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    dependencies: Mapping[str, Any] | None = None,
    timeout: float | None = None,
) -> Submission:
    """A run as an engine gets it: plain data, with an id of its own if none is given.

    Raises:
        UsageError: A value is no JSON, or the agent has no id that other processes know.
    """
    return Submission.of(
        run_id=run_id or str(uuid.uuid4()),
        runner_id=known_id(runner),
        is_team=isinstance(runner, Team),
        session_id=session_id,
        input=input,
        user_id=user_id,
        session_state=session_state,
        metadata=metadata,
        dependencies=dependencies,
        timeout=timeout,
    )


async def submit(runner: Runner, run: Submission) -> bool:
    """Store a run for a worker to begin it; False if it was submitted, or begun, before.

    Args:
        runner: The agent or team that is asked, whose database has the run.
        run: What `submission` made.

    Raises:
        StoreError: It could not be stored.
    """
    return await journal_of(runner).submit(run)


def known_id(runner: Runner) -> str:
    """The id by which other processes know the agent or team.

    Raises:
        UsageError: It has none: without an id and a name each process makes up another one.
    """
    if not (runner.id or runner.name):
        raise UsageError(f"{runner!r} has no id that other processes know: give it an id=")
    return id_of(runner)


def journal_of(runner: Runner, claim_seconds: float | None = None) -> DbJournal:
    """Where the steps of its durable runs are kept.

    Raises:
        UsageError: Its database is of this process only, or keeps no steps.
    """
    if claim_seconds is None and isinstance(runner.journal, DbJournal):
        return runner.journal
    db: Db = database_of(runner)
    if not db.shared:
        raise UsageError(f"{runner!r} has no db that other processes see: give it a SqliteDb or a PostgresDb")
    return DbJournal(db) if claim_seconds is None else DbJournal(db, claim_seconds=claim_seconds)


def by_id(runners: Sequence[Runner]) -> dict[str, Runner]:
    """The agents and teams by their ids.

    Raises:
        UsageError: There is none, or two have one id.
    """
    found: dict[str, Runner] = {}
    for runner in runners:
        if not isinstance(runner, Agent | Team):
            raise UsageError(f"an engine takes agents and teams, not {runner!r}")
        if found.setdefault(known_id(runner), runner) is not runner:
            raise UsageError(f"two agents or teams have the id {known_id(runner)!r}: give one another id=")
    if not found:
        raise UsageError("an engine needs an agent or a team to drive")
    return found


async def drive(runner: Runner, run: Submission, journal: DbJournal) -> AnyRunOutput:
    """Begin the run, or go on with it; its output once it has ended or waits for a person.

    A run that has failed has ended: its output is returned, with status ERROR.

    Raises:
        KernError: It has not ended, or cannot begin. `UsageError` says that it never can.
    """
    stream = runner.arun(
        run.input,
        stream=True,
        stream_events=True,  # for those who follow the run
        run_id=run.run_id,
        session_id=run.session_id,
        user_id=run.user_id,
        session_state=run.session_state,
        metadata=run.metadata,
        dependencies=run.dependencies,
        timeout=run.timeout,
        on_duplicate="return",
        journal=journal,
    )
    try:
        async with stream:
            async for _ in stream:
                pass
        return stream.output
    except ShutdownError:
        raise
    except KernError as error:
        output = error.run_output
        if isinstance(output, RunOutput | TeamRunOutput) and output.status in _HERE:
            stored = await runner.aget_run_output(run.run_id)
            if stored is not None and stored.status in _HERE:
                return stored
        raise
