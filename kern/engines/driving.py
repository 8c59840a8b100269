"""What all engines share: turning a run into plain data, and driving it to its end."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

from kern.agent import Agent
from kern.db.base import Db
from kern.durable.db_journal import DbJournal, deltas_of
from kern.durable.fingerprint import check_same_input, fingerprint
from kern.durable.submission import Submission
from kern.errors import KernError, RunMismatch, SessionOwnershipError, ShutdownError, UsageError
from kern.messages import Audio, File, Image, Message, Video
from kern.run.output import AnyRunOutput, RunOutput, RunStatus, TeamRunOutput
from kern.runner.access import use
from kern.runner.compile import database_of
from kern.runner.definition import id_of
from kern.runner.input_schema import Input
from kern.runner.options import RunKeywords, RunOptions, is_message, run_input
from kern.runner.schema_types import OutputSchema
from kern.runtime.answer_schema import answer_schema
from kern.runtime.debug import log_failed_run
from kern.runtime.duplicates import known_fingerprint
from kern.team import Team

Runner: TypeAlias = Agent | Team

_HERE = (RunStatus.completed, RunStatus.error, RunStatus.cancelled, RunStatus.paused)
"""The statuses of runs that no process needs to go on with: they have ended, or wait for a person."""


def submission(
    runner: Runner,
    input: Input,
    *,
    session_id: str,
    run_id: str | None = None,
    user_id: str | None = None,
    session_state: Mapping[str, Any] | None = None,
    images: Sequence[Image] | None = None,
    audio: Sequence[Audio] | None = None,
    videos: Sequence[Video] | None = None,
    files: Sequence[File] | None = None,
    metadata: Mapping[str, Any] | None = None,
    dependencies: Mapping[str, Any] | None = None,
    output_schema: OutputSchema | None = None,
    timeout: float | None = None,
) -> Submission:
    """Make the data of a run for an engine. The run gets a random id if none is given.

    The arguments are those of `arun`. Files of media are read when the run is handed over. A class as
    `output_schema` is handed over as its JSON schema, so the content of the output is plain data.

    Raises:
        UsageError: A value is not JSON, is nested too deeply, or `arun` would refuse it; or the agent has no
            id that is the same in other processes.
        InputCheckError: The input does not fit the `input_schema`.
    """
    media = {"images": images, "audio": audio, "videos": videos, "files": files}
    given: dict[str, Any] = {name: items for name, items in media.items() if items}
    others = {
        "run_id": run_id,
        "session_id": session_id,
        "user_id": user_id,
        "timeout": timeout,
    }
    checked = {name: value for name, value in others.items() if value is not None}
    asked = run_input(input, runner.input_schema, RunOptions.of(cast("RunKeywords", {**given, **checked})))
    messages = _messages(input)
    return Submission.of(
        run_id=run_id or str(uuid.uuid4()),
        runner_id=known_id(runner),
        is_team=isinstance(runner, Team),
        session_id=session_id,
        input=asked.value,
        messages=[message.to_dict() for message in messages] or None,
        media={name: [item.to_dict() for item in items] for name, items in given.items()} or None,
        user_id=runner.user_id if user_id is None else user_id,
        session_state=session_state,
        metadata=metadata,
        dependencies=dependencies,
        output_schema=None if output_schema is None else _schema(output_schema),
        timeout=timeout,
        fingerprint=fingerprint(asked.value, asked.messages),
    )


def _messages(input: Input) -> list[Message]:
    """The input, if it consists of `Message` objects, whose media are part of it."""
    if isinstance(input, Message):
        return [input]
    items: Sequence[Any] = input if isinstance(input, Sequence) and not isinstance(input, str) else ()
    if not any(isinstance(item, Message) for item in items):
        return []
    if not all(isinstance(item, Message) or is_message(item) for item in items):
        return []
    return [item if isinstance(item, Message) else Message.from_dict(item) for item in items]


def _schema(declared: OutputSchema) -> dict[str, Any]:
    if declared is str:
        raise UsageError("output_schema=str cannot be handed to a worker: use an agent without a schema")
    schema = answer_schema(declared)
    return {"type": "json_schema", "json_schema": {"name": schema.name, "schema": schema.schema}}


async def submit(runner: Runner, run: Submission) -> bool:
    """Store a run, for a worker to begin it.

    Args:
        runner: The agent or team. The run is stored in its database.
        run: The result of `submission`.

    Returns:
        False if the run was submitted or begun before, or has ended.

    Raises:
        UsageError: A file of its input cannot be read.
        SessionOwnershipError: The session, or the run of that id, belongs to another user.
        RunMismatch: The id belongs to a run with other values.
        StoreError: It could not be stored.
    """
    run = await run.with_files()
    if await check_known(runner, run):
        return False
    if await journal_of(runner).submit(run):
        return True
    await check_known(runner, run)  # it was submitted meanwhile, by somebody else perhaps, and may have ended
    return False


async def check_known(runner: Runner, run: Submission) -> bool:
    """Check that the run may have its session and its id. Return whether a run of that id is stored.

    Raises:
        SessionOwnershipError: The session, or the id, belongs to another user.
        RunMismatch: The id belongs to a run with other values.
        StoreError: The database failed.
    """
    journal = journal_of(runner)
    await journal.check_known(run)  # before it is looked for among the stored ones: it may end meanwhile
    row = await journal.db.load_run(run.run_id)
    for session_id in {run.session_id, run.session_id if row is None else row.session_id}:
        async with use(runner, session_id, None) as session:
            if session.exists and session.row.user_id != run.user_id:
                raise SessionOwnershipError(session_id)
    if row is None:
        return False
    if row.session_id != run.session_id:
        raise RunMismatch(run.run_id, "session")
    if row.runner_id != run.runner_id:
        raise RunMismatch(run.run_id, "agent or team")
    check_same_input(run.run_id, known_fingerprint(row), run.fingerprint)
    return True


def known_id(runner: Runner) -> str:
    """The id of the agent or team, if it is the same in all processes.

    Raises:
        UsageError: It has neither an id nor a name, so its id is random.
    """
    if not (runner.id or runner.name):
        raise UsageError(f"{runner!r} has no id that other processes know: give it an id=")
    return id_of(runner)


def journal_of(runner: Runner, claim_seconds: float | None = None) -> DbJournal:
    """The journal for the durable runs of an agent or team.

    Raises:
        UsageError: Other processes cannot open its database, or the database cannot store steps.
    """
    if claim_seconds is None and isinstance(runner.journal, DbJournal):
        return runner.journal
    db: Db = database_of(runner)
    if not db.shared:
        raise UsageError(f"{runner!r} has no db that other processes see: give it a SqliteDb or a PostgresDb")
    deltas = deltas_of(runner.journal)
    if claim_seconds is None:
        return DbJournal(db, deltas=deltas)
    return DbJournal(db, claim_seconds=claim_seconds, deltas=deltas)


def by_id(runners: Sequence[Runner]) -> dict[str, Runner]:
    """The agents and teams by id.

    Raises:
        UsageError: There is none, or two have the same id.
    """
    found: dict[str, Runner] = {}
    for runner in runners:
        if not isinstance(runner, Agent | Team):
            raise UsageError(f"an engine takes agents and teams, not {runner!r}")
        if found.setdefault(known_id(runner), runner) is not runner:
            raise UsageError(f"two agents or teams have the id {known_id(runner)!r}: change one's id=")
    if not found:
        raise UsageError("an engine needs an agent or a team to drive")
    return found


async def drive(runner: Runner, run: Submission, journal: DbJournal) -> AnyRunOutput:
    """Begin the run, or go on with it, until it has ended or waits for a person; return its output.

    A run that has failed has ended; its output has status ERROR.

    Raises:
        UsageError: The run can never begin.
        KernError: It has not ended, or cannot begin now.
    """
    messages, media = run.asked()
    input: Input = run.input
    if messages:
        input = messages[0] if isinstance(run.input, dict) else messages
    stream = runner.arun(
        input,
        stream=True,
        stream_events=True,  # for those who follow the run
        run_id=run.run_id,
        session_id=run.session_id,
        user_id=run.user_id,
        session_state=run.session_state,
        metadata=run.metadata,
        dependencies=run.dependencies,
        output_schema=run.output_schema,
        timeout=run.timeout,
        on_duplicate="return",
        journal=journal,
        images=media.get("images"),
        audio=media.get("audio"),
        videos=media.get("videos"),
        files=media.get("files"),
    )
    try:
        async with stream:
            async for _ in stream:
                pass
        return stream.output
    except ShutdownError:
        raise
    except RunMismatch as error:
        raise UsageError(f"it never can begin: {error}") from error
    except KernError as error:
        output = error.run_output
        if isinstance(output, RunOutput | TeamRunOutput) and output.status in _HERE:
            stored = await runner.aget_run_output(run.run_id)
            if stored is not None and stored.status in _HERE:
                if stored.status is RunStatus.error:
                    log_failed_run(run.run_id, error)
                return stored
        raise
