"""Checks that a call with the id of a known run has the same user, session, agent and input."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from kern.db.journals import ClaimedRun, RunAbout
from kern.durable.fingerprint import check_same_input
from kern.durable.journal import RunAsked
from kern.durable.submission import Submission
from kern.errors import RunMismatch, SessionOwnershipError, StoreError


def check_same_run(asked: RunAsked, found: ClaimedRun) -> None:
    """Check that the recorded or submitted run with this id is the one that this process is about to begin.

    Args:
        asked: The run that is about to begin here.
        found: The record with the same id; this process has claimed it.

    Raises:
        SessionOwnershipError: The recorded run belongs to another user.
        RunMismatch: It is in another session, of another agent or team, or has another input.
        StoreError: The first step of the record cannot be read.
    """
    if found.about is not None:
        check_about(asked.run_id, found.about, about_of(asked, found.about))
    base = next((step for step in found.steps if step.kind == "base"), None)
    if base is None or asked.continued:
        return
    check_same_input(asked.run_id, known_fingerprint(asked.run_id, base.data), asked.fingerprint)


def known_fingerprint(run_id: str, data: bytes) -> str | None:
    """The fingerprint of the input in a submitted request, or in the first step of a run.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        asked: Any = from_json(data)
        known = asked.get("fingerprint")
        if not isinstance(known, str | None):
            raise ValueError("its fingerprint is not text")  # noqa: TRY004 - wrong JSON, not a wrong argument
    except (ValueError, AttributeError) as error:
        raise StoreError(
            f"the request of run {run_id!r}, its first recorded step, cannot be read: {error!r}"
        ) from error
    return known


def about_of(asked: RunAsked, known: RunAbout | None = None) -> RunAbout:
    """The facts about a requested run that a known run must share.

    Args:
        asked: The requested run.
        known: The known run that it is compared with: an agent without a name matches any.
    """
    return RunAbout(
        session_id=asked.session_id,
        user_id=asked.user_id,
        runner_id=known.runner_id if known is not None and asked.unnamed else asked.runner_id,
        is_team=asked.is_team,
    )


def check_about(run_id: str, known: RunAbout, asked: RunAbout) -> None:
    """Check that a known run is in the same session, and of the same agent or team.

    Raises:
        SessionOwnershipError: The known run belongs to another user.
        RunMismatch: It is in another session, or of another agent or team.
    """
    if known.user_id != asked.user_id:
        raise SessionOwnershipError(known.session_id)
    if known.session_id != asked.session_id:
        raise RunMismatch(run_id, "session")
    if (known.runner_id, known.is_team) != (asked.runner_id, asked.is_team):
        raise RunMismatch(run_id, "agent or team")


def check_same_submission(known: Submission, asked: Submission) -> None:
    """Check that the run that an engine knows by an id is the requested one.

    Raises:
        SessionOwnershipError: The known run belongs to another user.
        RunMismatch: It is in another session, of another agent or team, or has another input.
    """
    check_about(asked.run_id, known.row().about, asked.row().about)
    check_same_input(asked.run_id, known.fingerprint, asked.fingerprint)
