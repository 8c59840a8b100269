"""A commit to Postgres: one statement that writes only if the session is still the one it was resolved with.

This is optimistic concurrency control: on a conflict the session is read and resolved again, and after
several conflicts it is locked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import from_json

from kern._sync.offload import off_loop
from kern.db._postgres_errors import TryAgainError
from kern.db._postgres_pool import Link, Pool, Row
from kern.db._rows import session_of
from kern.db.base import Commit, Committed, RunRow, SessionRow, StateWrite
from kern.db.rows import applied, check_begun, check_commit
from kern.errors import RunLostError, StoreError

_MOST_TRIES = 5
"""How often other commits may come first. Then the session is locked, so that a slow merge succeeds, too."""

_NOT_NULL = "23502"
"""not_null_violation: raised by the statement if a run of another session has just taken the id of a run."""


@dataclass(slots=True, frozen=True)
class _Found:
    """What the database holds at the time of a commit.

    Args:
        session: The stored session, or None.
        repeated: The commit was made before.
    """

    session: SessionRow | None
    repeated: bool


class Committer:
    """Makes commits to one set of tables.

    Args:
        pool: The connections.
        sql: The statements, by name.
        wait: Seconds that a statement may take, repetitions included.
    """

    def __init__(self, pool: Pool, sql: Mapping[str, str], wait: float) -> None:
        self._pool = pool
        self._sql = sql
        self._wait = wait

    async def commit(self, commit: Commit) -> Committed:
        """Write all of `commit`, or nothing. Errors of `commit.resolve` are passed on unchanged.

        Raises:
            SessionOwnershipError: The stored session belongs to another user.
            SessionDeletedError: The session that the caller knows was deleted.
            RunLostError: Another process has the run that ends.
            StoreError: It could not be written.
        """
        known = commit.known
        if known is None or (known.user_id == commit.user_id and known.position):
            done = await self._write(commit, known, commit.resolve(known))
            if done is not None:
                return done
        for _ in range(_MOST_TRIES):
            done = await self._read_and_write(commit)
            if done is not None:
                return done
        return await self._pool.transaction(lambda link: self._commit_in_turn(commit, link), wait=self._wait)

    async def _commit_in_turn(self, commit: Commit, link: Link) -> Committed:
        """Make the commit while the session is locked."""
        await link.fetch(self._sql["lock_session"], commit.session_id)
        done = await self._read_and_write(commit, link)
        if done is None:  # the session did not exist, so there was nothing to lock, and was created just now
            raise TryAgainError(f"session {commit.session_id!r} was changed by others at every attempt")
        return done

    async def _read_and_write(self, commit: Commit, link: Link | None = None) -> Committed | None:
        found = await self._read_stored(commit, link)
        stored = found.session
        if found.repeated and stored is not None:
            return Committed(stored, repeated=True)
        claim = commit.claim
        if claim is not None and not await self._fetch("has_claim", link, claim.run_id, claim.owner):
            raise RunLostError(claim.run_id)
        size = 0 if stored is None else len(stored.state)
        write = await off_loop(size, lambda: commit.resolve(stored))
        return await self._write(commit, stored, write, link)

    async def _read_stored(self, commit: Commit, link: Link | None) -> _Found:
        runs = [run.run_id for run in commit.runs]
        after = 0 if commit.known is None else commit.known.revision
        row = (await self._fetch("read_for_commit", link, commit.session_id, runs, after, commit.id))[0]
        *session, known_runs, logged, begun = row
        stored = None if session[0] is None else session_of(tuple(session))
        check_commit(stored, commit)
        if begun is not None:  # by a durable run, in a session that is not stored yet
            check_begun(commit, from_json(begun)[0])
        repeated = logged or (stored is not None and stored.generation == commit.id)
        return _Found(stored, _runs_are_known(commit.runs, known_runs) if runs else repeated)

    async def _write(
        self, commit: Commit, stored: SessionRow | None, write: StateWrite, link: Link | None = None
    ) -> Committed | None:
        """Write on top of `stored`. Returns None, and writes nothing, if the session has changed since."""
        row = applied(stored, commit, write)
        runs = _once_each(commit.runs if write.runs is None else write.runs)
        media = {name: data for run in runs for name, data in run.media.items()}
        values = _values(commit, row, stored, write, runs)
        name = "update"
        if stored is None:
            name = "insert"
            values += [row.user_id, row.generation, row.created_at]
        if media:
            name += "_with_media"
            values += [list(media), list(media.values())]
        if commit.claim is not None:
            name += "_claimed"
            values += [commit.claim.run_id, commit.claim.owner]
        try:
            rows = await self._fetch(name, link, *values)
        except StoreError as error:
            if getattr(error.__cause__, "sqlstate", None) != _NOT_NULL:
                raise
            if link is None:
                return None
            raise TryAgainError(str(error)) from error
        if not rows:
            return None
        position, described, summary = rows[0]
        return Committed(replace(row, position=position, name=described, summary=summary))

    async def _fetch(self, name: str, link: Link | None, *values: object) -> Sequence[Row]:
        if link is not None:
            return await link.fetch(self._sql[name], *values)
        return await self._pool.fetch(self._sql[name], *values, wait=self._wait)


def _values(
    commit: Commit, row: SessionRow, stored: SessionRow | None, write: StateWrite, runs: Sequence[RunRow]
) -> list[Any]:
    """The parameters that the statements for new and for existing sessions have in common."""
    first = commit.runs[0] if commit.runs else None
    changes = write.changes
    return [
        row.session_id,
        None if stored is None else stored.position,
        row.updated_at,
        row.revision,
        row.version,
        row.state_version,
        None if commit.summary is None else shown(row.summary),
        write.state,
        [run.run_id for run in runs],
        None if first is None else first.run_id,
        None if first is None else first.generation,
        [run.runner_id for run in runs],
        [run.parent_run_id for run in runs],
        [run.status for run in runs],
        [run.generation for run in runs],
        [run.created_at for run in runs],
        [run.data for run in runs],
        [run.run_id for run in runs if run.ended],
        [change.revision for change in changes],
        [change.run_id for change in changes],
        [shown(change.tool) for change in changes],
        [shown(change.tool_call_id) for change in changes],
        [change.agent_path for change in changes],
        [change.created_at for change in changes],
        [change.patch for change in changes],
        None if runs else commit.id,
    ]


def shown(text: str | None) -> str | None:
    """A text for people without the character NUL, which Postgres cannot store."""
    return text if text is None or "\0" not in text else text.replace("\0", "\ufffd")


def _once_each(runs: Iterable[RunRow]) -> Sequence[RunRow]:
    """The row of the latest generation of each run, since one statement may write a row only once."""
    latest: dict[str, RunRow] = {}
    for run in runs:
        known = latest.get(run.run_id)
        if known is None or known.generation < run.generation:
            latest[run.run_id] = run
    return list(latest.values())


def _runs_are_known(runs: Sequence[RunRow], stored: bytes | None) -> bool:
    """Whether the first of the runs is stored with its generation or a later one.

    Raises:
        StoreError: A run's id is taken by a run of another session.
    """
    known = {
        run_id: (session_id, generation) for run_id, session_id, generation in from_json(stored or b"[]")
    }
    for run in runs:
        if run.run_id in known and known[run.run_id][0] != run.session_id:
            raise StoreError(f"run_id {run.run_id!r} belongs to a run of another session")
    first = known.get(runs[0].run_id)
    return first is not None and bool(first[1] >= runs[0].generation)
