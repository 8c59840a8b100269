"""Continuing a paused run: the keywords of `continue_run`, and the request for the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import from_json

from kern.budget import Limits, check_limits
from kern.db.journals import JournalDb
from kern.durable.db_journal import DbJournal
from kern.durable.journal import Journal
from kern.errors import SessionOwnershipError, UsageError
from kern.run.output import AnyRunOutput
from kern.run.requirement import RunRequirement
from kern.runner.compile import database_of, request
from kern.runner.definition import Definition
from kern.runner.options import RunOptions, check_id, check_seconds
from kern.runner.schema_types import OutputSchema
from kern.runtime.request import Resume, RunInput
from kern.runtime.run_tree import RunRequest
from kern.runtime.stored_runs import reading


@dataclass(slots=True, frozen=True, kw_only=True)
class Continuation:
    """The keywords of one `continue_run`, checked."""

    run_id: str | None = None
    requirements: Sequence[RunRequirement] | None = None
    stream_events: bool | None = None
    user_id: str | None = None
    dependencies: Mapping[str, Any] | None = None
    output_schema: OutputSchema | None = None
    timeout: float | None = None
    usage_limits: Limits | None = None
    debug_mode: bool | None = None
    journal: Journal | None = None

    def __post_init__(self) -> None:
        check_id("run_id", self.run_id)
        check_id("user_id", self.user_id)
        check_seconds("timeout", self.timeout)
        check_limits("usage_limits", self.usage_limits)
        for answer in self.requirements or ():
            if not isinstance(answer, RunRequirement):
                raise UsageError(
                    f"requirements must hold RunRequirement objects, not {answer!r}; make one from JSON with "
                    "RunRequirement.from_dict(...)"
                )


async def continuation(
    definition: Definition,
    run_id: str,
    run_response: AnyRunOutput | None,
    answers: Sequence[RunRequirement],
    call: Continuation,
) -> RunRequest:
    """Make the request to continue a stored run.

    Args:
        definition: The agent or team.
        run_id: The id of the run.
        run_response: The output of the paused run, if the caller has it.
        answers: The resolved requirements.
        call: The keywords of the call.

    Raises:
        UsageError: There is no such run.
        SessionOwnershipError: The run belongs to another user.
    """
    db = database_of(definition)
    row = await db.load_run(run_id)
    if row is None:
        raise UsageError(
            f"no run {run_id!r} is stored in this db; continue a run with the db that it was started with"
        )
    with reading(row):
        stored = from_json(row.data)
        owner, journaled = stored.get("user_id"), stored.get("journaled") is True
    journal = call.journal or definition.journal
    if journal is None and journaled and isinstance(db, JournalDb):
        journal = DbJournal(db)  # as for `astart`, so that followers get the run to its end
    user_id = call.user_id
    if user_id is None and run_response is not None:
        user_id = run_response.user_id
    options = RunOptions.of(
        {
            "run_id": run_id,
            "session_id": row.session_id,
            "user_id": user_id,
            "dependencies": call.dependencies,
            "output_schema": call.output_schema,
            "timeout": call.timeout,
            "usage_limits": call.usage_limits,
            "debug_mode": call.debug_mode,
            "journal": journal,
        }
    )
    asked = request(definition, RunInput(value=None, messages=[]), options)
    if asked.user_id != owner:  # checked before the run is noted: another user must not block the id
        raise SessionOwnershipError(row.session_id)
    return replace(asked, resume=Resume(answers), on_duplicate=None, fingerprint=None)
