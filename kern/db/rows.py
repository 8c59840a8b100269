"""The rows that a database stores, and the commits that write them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kern.db.journals import RunClaim
from kern.errors import SessionDeletedError, SessionOwnershipError
from kern.run.output import RunStatus


@dataclass(slots=True, frozen=True, kw_only=True)
class SessionRow:
    """A session as it is stored.

    Args:
        session_id: The session.
        user_id: The owner; None if it has none.
        state: The session state as JSON text (UTF-8).
        state_version: The number of the application's migrations that the state has seen.
        revision: The number of commits to the state.
        version: How often the state was written to this row. Optimistic writers compare it.
        name: A name for people.
        summary: The summary of the conversation.
        created_at, updated_at: Seconds since the epoch, by the clock of the writing process; for people only.
            Nothing is ordered by them, since a clock may be set back.
        generation: Differs from that of an earlier, deleted session with the same id. Set by the first
            commit.
        position: The session's place in the order of last commits, if the database uses it to recognise a
            row; otherwise 0.
    """

    session_id: str
    user_id: str | None
    state: bytes = b"{}"
    state_version: int = 0
    revision: int = 0
    version: int = 0
    name: str | None = None
    summary: str | None = None
    created_at: float = 0.0
    updated_at: float = 0.0
    generation: str = field(default="", compare=False)
    position: int = field(default=0, compare=False)


@dataclass(slots=True, frozen=True, kw_only=True)
class SessionInfo:
    """A session as a listing shows it: without the state, which may be large.

    Args:
        session_id: The session.
        user_id: Its owner; None if it has none.
        name: A name for people.
        summary: The summary of the conversation.
        created_at, updated_at: Seconds since the epoch, by the clock of the writing process; for people only.
        position: Its place in the order of last commits; pass it as `before=` to get the next page. It rises
            with every commit to the session, and no two sessions have the same one.
    """

    session_id: str
    user_id: str | None = None
    name: str | None = None
    summary: str | None = None
    created_at: float = 0.0
    updated_at: float = 0.0
    position: int = 0


@dataclass(slots=True, frozen=True, kw_only=True)
class RunRow:
    """A run as it is stored.

    Args:
        run_id: The run.
        session_id: Its session.
        runner_id: The id of the agent or team that ran.
        parent_run_id: The run that delegated to this one; None for a run that the application started.
        status: A `RunStatus` value.
        generation: 0 for the first write of a run. It rises by one each time a paused run is continued, or a
            failed one is tried again. If the row is already stored with this generation or a later one, the
            whole commit is a repetition and writes nothing.
        data: The output as JSON text (UTF-8).
        created_at: Seconds since the epoch, by the clock of the process that ran it; for people only. The
            runs of a session are in the order in which they were first stored.
        media: Bytes of images and other files, by their SHA-256 in hex, to which `data` refers. Each is
            stored once per session and loaded by `load_media`; a row that was loaded has none.
    """

    run_id: str
    session_id: str
    runner_id: str
    parent_run_id: str | None = None
    status: str
    generation: int = 0
    data: bytes
    created_at: float
    media: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)

    @property
    def ended(self) -> bool:
        """Whether the run has ended: it is not paused, waiting for a person."""
        return self.status != RunStatus.paused.value


@dataclass(slots=True, frozen=True, kw_only=True)
class ChangeRow:
    """One commit to a session's state: who changed what.

    Args:
        session_id: The session.
        revision: The revision that the commit made.
        patch: JSON text: a list of RFC 6902 operations, each with the value that it replaced as "old".
        agent_path: JSON text: a list of the names from the top-level run down.
        run_id: The run that wrote; None for the application itself.
        tool: The tool or function that wrote.
        tool_call_id: The model's id of that call.
        created_at: Seconds since the epoch.
    """

    session_id: str
    revision: int
    patch: bytes
    agent_path: bytes
    run_id: str | None
    tool: str | None
    tool_call_id: str | None
    created_at: float


@dataclass(slots=True, frozen=True)
class StateWrite:
    """What the resolver of a commit decides to write.

    Args:
        state: The new state as JSON text (UTF-8); None leaves the stored state and its version as they are.
        revision: The state's revision after this commit.
        state_version: As in `SessionRow`.
        changes: Rows for the log, with their final revisions.
        runs: Replacement rows for the commit's runs, if conflicts that the resolver found must be stored in
            them; None writes the commit's own rows.
    """

    state: bytes | None
    revision: int
    state_version: int = 0
    changes: Sequence[ChangeRow] = ()
    runs: Sequence[RunRow] | None = None


StateResolver = Callable[[SessionRow | None], StateWrite]
"""A pure function of the stored session that decides what a commit writes. A database calls it inside the
transaction, on the event loop or in a thread, and again whenever it tries the commit again; the last call
counts. A database may first call it with `Commit.known` instead of the stored session, if it then writes only
on condition that the stored session is still the known one."""


@dataclass(slots=True, frozen=True, kw_only=True)
class Commit:
    """What one transaction writes: the end of a run, or a change from outside of runs.

    Args:
        session_id: The session.
        user_id: Its owner. A stored session of another user refuses the commit.
        resolve: Decides what is written, given the stored row. This is where the changes of several processes
            are merged.
        runs: The rows of the run and of its members' runs; the first is the top-level run.
        summary: The new summary of the conversation; None leaves the stored one.
        summary_bases: The summaries that it goes on from. Another one that is stored is kept before it.
        known: The session as the caller last saw it; None if it was not stored. The commit applies to that
            generation of the session only. A database may write on the basis of it without reading first.
        id: Identifies a commit without runs, so that a repetition of it is recognised. A commit with runs is
            recognised by its first run.
        claim: The claim to the run that ends, if it has a journal; see `kern.db.journals`.
        now: Seconds since the epoch, by the clock of this process.
    """

    session_id: str
    user_id: str | None
    resolve: StateResolver
    runs: Sequence[RunRow] = field(default=())
    summary: str | None = None
    summary_bases: frozenset[str | None] = frozenset()
    known: SessionRow | None = None
    id: str = field(default_factory=lambda: os.urandom(16).hex())
    claim: RunClaim | None = None
    now: float


@dataclass(slots=True, frozen=True)
class Committed:
    """What a commit did.

    Args:
        row: The session as it is stored now.
        repeated: The commit had been made before; nothing was written.
    """

    row: SessionRow
    repeated: bool = False


def check_commit(stored: SessionRow | None, commit: Commit) -> None:
    """Check whether `commit` may be made on the stored row. Every database calls this.

    Raises:
        SessionDeletedError: The session that the caller knows was deleted.
        SessionOwnershipError: The session belongs to another user.
    """
    known = commit.known
    if known is not None and (stored is None or stored.generation != known.generation):
        raise SessionDeletedError(commit.session_id)
    if stored is not None and stored.user_id != commit.user_id:
        raise SessionOwnershipError(commit.session_id)


def check_begun(commit: Commit, owner: str | None) -> None:
    """Check whether `commit` may store a new session in which a durable run has begun, or was submitted.

    A session is stored with the end of its first run. Until then it belongs to the user of the oldest durable
    run in it that has not ended.

    Args:
        commit: The commit.
        owner: The user of that run.

    Raises:
        SessionOwnershipError: The run belongs to another user.
    """
    if owner != commit.user_id:
        raise SessionOwnershipError(commit.session_id)


def applied(stored: SessionRow | None, commit: Commit, write: StateWrite) -> SessionRow:
    """The session's row after the commit. Every database calls this.

    Args:
        stored: The row as it is stored; None for a new session.
        commit: The commit.
        write: What its resolver decided.
    """
    row = stored or SessionRow(
        session_id=commit.session_id,
        user_id=commit.user_id,
        created_at=commit.now,
        version=0,
        generation=commit.id,
    )
    summary = row.summary if commit.summary is None else _summary(commit.summary, stored, commit)
    if write.state is None:
        return replace(row, updated_at=commit.now, revision=write.revision, summary=summary)
    return replace(
        row,
        updated_at=commit.now,
        revision=write.revision,
        summary=summary,
        state=write.state,
        state_version=write.state_version,
        version=row.version + 1,
    )


def _summary(new: str, stored: SessionRow | None, commit: Commit) -> str:
    """The new summary, behind one of another process that it does not go on from."""
    old = None if stored is None else stored.summary
    return new if old is None or old == new or old in commit.summary_bases else f"{old}\n\n{new}"
