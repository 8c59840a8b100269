"""Whoever names the id of a run that was begun goes on with it only if it is his, and the same one."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from kern._json import json_bytes
from kern.db.journals import ClaimedRun
from kern.durable.journal import RunAsked
from kern.errors import RunConflictError, SessionOwnershipError, StoreError


def check_same_run(asked: RunAsked, found: ClaimedRun) -> None:
    """See that a run that was begun, or submitted, is the one that is asked for.

    Args:
        asked: The run that is about to begin here.
        found: What is kept under its id, which nobody else has now.

    Raises:
        SessionOwnershipError: It is another user's.
        RunConflictError: It is in another session, of another agent or team, or has another input.
        StoreError: Its beginning cannot be read.
    """
    about = found.about
    if about is not None:
        if about.user_id != asked.user_id:
            raise SessionOwnershipError(about.session_id)
        if about.session_id != asked.session_id:
            raise RunConflictError(
                f"run_id {asked.run_id!r} belongs to a run of another session; choose another run_id"
            )
        if about.runner_id != asked.runner_id and not asked.unnamed:
            raise RunConflictError(
                f"run {asked.run_id!r} was begun by {about.runner_id!r}, and {asked.runner_id!r} cannot "
                "go on with it; choose another run_id"
            )
    base = next((step for step in found.steps if step.kind == "base"), None)
    if base is None or asked.continued:
        return
    try:
        begun: Any = from_json(base.data)
        same = bool(begun["continued"]) or begun["input"] == _plain(asked.input)
    except (ValueError, TypeError, LookupError) as error:
        raise StoreError(
            f"the recorded beginning of run {asked.run_id!r} cannot be read: {error!r}"
        ) from error
    if not same:
        raise RunConflictError(
            f"run {asked.run_id!r} was begun with another input; pass the same one, or choose another run_id"
        )


def _plain(value: Any) -> Any:
    """As it comes back once it is stored."""
    return from_json(json_bytes(value))
