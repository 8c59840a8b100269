"""The steps of durable runs, and the claims to these runs, on one set of tables."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from kern.db._rows import step_of
from kern.db._sqlite_cancels import NOW
from kern.db._sqlite_errors import store_errors
from kern.db._sqlite_numbers import part_of, run_key, session_key
from kern.db._sqlite_schema import transaction
from kern.db._sqlite_sql import run_at, session_at
from kern.db.journals import (
    ClaimedRun,
    EventRow,
    OldEvents,
    RunAbout,
    RunClaim,
    RunningRow,
    StepRow,
    SubmittedRow,
    TakenRun,
    attempts,
    run_about,
    running_row,
)
from kern.db.rows import Commit, check_begun
from kern.errors import RunLostError, SessionOwnershipError

_SQL = {
    "find_claim": "SELECT owner, attempt, before, expires_at > {now} FROM {t}_claims WHERE run_id = ?",
    # A claim with more time left than its duration: the clock was set back.
    "bound_claim": """
        UPDATE {t}_claims SET expires_at = {now} + seconds
        WHERE run_id = ? AND expires_at > {now} + seconds""",
    "put_claim": """
        INSERT INTO {t}_claims (run_id, owner, attempt, before, seconds, expires_at)
        VALUES (?, ?, ?, ?, ?, {now} + ?)
        ON CONFLICT (run_id) DO UPDATE SET
            owner = excluded.owner, attempt = excluded.attempt, before = excluded.before,
            seconds = excluded.seconds, expires_at = excluded.expires_at""",
    "renew_claim": """
        UPDATE {t}_claims SET seconds = ?, expires_at = {now} + ? WHERE run_id = ? AND owner = ?""",
    "release_claim": "UPDATE {t}_claims SET expires_at = 0 WHERE run_id = ? AND owner = ?",
    "drop_empty_claim": """
        DELETE FROM {t}_claims WHERE run_id = ? AND owner = ? AND request IS NULL
            AND NOT EXISTS (SELECT 1 FROM {t}_steps WHERE run_id = ?)""",
    "load_steps": "SELECT key, kind, CAST(data AS BLOB) FROM {t}_steps WHERE run_id = ? ORDER BY seq",
    "put_step": "INSERT INTO {t}_steps (run_id, key, kind, data) VALUES (?, ?, ?, CAST(? AS TEXT))",
    "forget": "DELETE FROM {t}_claims WHERE run_id = ? AND owner = coalesce(?, owner)",
    # What is known of a begun or submitted run stays: a call with its id does not change its owner.
    "note_about": """
        UPDATE {t}_claims SET session_id = ?, user_id = ?, runner_id = ?, is_team = ?,
            begun_at = iif(begun_at > 0, begun_at, {now})
        WHERE run_id = ? AND (session_id IS NULL OR request IS NULL
            AND NOT EXISTS (SELECT 1 FROM {t}_steps AS s WHERE s.run_id = {t}_claims.run_id))""",
    "note_begin": """
        UPDATE {t}_claims SET begun_at = iif(begun_at > 0, begun_at, {now})
        WHERE run_id = ?""",
    "load_about": "SELECT session_id, user_id, runner_id, is_team FROM {t}_claims WHERE run_id = ?",
    # Events with a damaged number are skipped: SQLite sorts texts after all numbers.
    "last_seq": """
        SELECT coalesce(max(last_seq), 0) FROM {t}_events
        WHERE run_id = ? AND typeof(last_seq) = 'integer'""",
    "put_events": """
        INSERT OR REPLACE INTO {t}_events (run_id, last_seq, written_at, data)
        VALUES (?, ?, {now}, CAST(? AS TEXT))""",
    "load_events": """
        SELECT last_seq, CAST(data AS BLOB) FROM {t}_events
        WHERE run_id = ? AND last_seq > ? AND typeof(last_seq) = 'integer' ORDER BY last_seq LIMIT ?""",
    # The events of runs that ended long ago: a run that waits for a person has not ended.
    "drop_old_events": """
        DELETE FROM {t}_events WHERE run_id IN (
            SELECT run_id FROM {t}_events AS e WHERE written_at < {now} - ?1
            AND NOT EXISTS (SELECT 1 FROM {t}_claims AS c WHERE c.run_id = e.run_id)
            AND NOT EXISTS (SELECT 1 FROM {t}_runs AS r INDEXED BY {t}_runs_by_status
                WHERE r.run_id = e.run_id AND r.status = 'PAUSED' AND r.status <> 'COMPLETED'
                    AND r.parent_run_id IS NULL)
            AND NOT EXISTS (SELECT 1 FROM {t}_events AS n
                WHERE n.run_id = e.run_id AND n.written_at >= {now} - ?1))""",
    "running": """
        SELECT run_id, session_id, user_id, runner_id, is_team, iif(expires_at > {now}, owner, NULL), attempt,
            begun_at, iif(expires_at > seconds, expires_at - seconds, begun_at)
        FROM {t}_claims AS c
        WHERE session_id IS NOT NULL AND (?1 IS NULL OR run_id = ?1) AND (?2 IS NULL OR session_id = ?2)
            AND (?3 IS NULL OR user_id = ?3)
            AND (?4 IS NULL OR rowid < (SELECT rowid FROM {t}_claims WHERE run_id = ?4))
            AND (request IS NOT NULL OR EXISTS (SELECT 1 FROM {t}_steps AS s WHERE s.run_id = c.run_id))
        ORDER BY rowid DESC LIMIT ?5""",
    "first_of_session": """
        SELECT user_id FROM {t}_claims AS c
        WHERE session_id = ? AND (request IS NOT NULL
            OR EXISTS (SELECT 1 FROM {t}_steps AS s WHERE s.run_id = c.run_id))
        ORDER BY rowid LIMIT 1""",
    "delete_events": """
        DELETE FROM {t}_events WHERE run_id IN (
            SELECT r.run_id FROM {t}_runs_by_age AS a CROSS JOIN {t}_runs AS r ON r.seq = a.place & 4294967295
            WHERE a.place BETWEEN ?3 AND ?4
            UNION SELECT run_id FROM {t}_claims WHERE session_id = ?1 OR user_id = ?2)""",
    "delete_steps": """
        DELETE FROM {t}_steps
        WHERE run_id IN (SELECT run_id FROM {t}_claims WHERE session_id = ?1 OR user_id = ?2)""",
    "delete_claims": "DELETE FROM {t}_claims WHERE session_id = ?1 OR user_id = ?2",
    "drop_claim": "DELETE FROM {t}_claims WHERE run_id = ? AND owner = ?",
    "drop_steps": "DELETE FROM {t}_steps WHERE run_id = ?",
    "unfinished": """
        SELECT c.run_id FROM {t}_claims AS c WHERE c.expires_at <= {now}
            AND (request IS NOT NULL OR EXISTS (SELECT 1 FROM {t}_steps AS s WHERE s.run_id = c.run_id))
        ORDER BY c.rowid LIMIT ?""",
    "submit": """
        INSERT INTO {t}_claims
            (run_id, session_id, user_id, runner_id, is_team, request,
            owner, attempt, seconds, expires_at, begun_at)
        VALUES (?, ?, ?, ?, ?, CAST(? AS TEXT), '', 0, 0, 0, {now}) ON CONFLICT DO NOTHING""",
    # The claim of a process that died before its first step, or of a run without a journal.
    "drop_dead_claim": """
        DELETE FROM {t}_claims WHERE run_id = ? AND request IS NULL AND expires_at <= {now}
            AND NOT EXISTS (SELECT 1 FROM {t}_steps AS s WHERE s.run_id = {t}_claims.run_id)""",
    "run_is_stored": "SELECT 1 FROM {t}_runs WHERE seq = {run_at}",
    "owner": "SELECT user_id FROM {t} WHERE number = {session_at}",
    "load_request": """
        SELECT CAST(coalesce(request, (SELECT data FROM {t}_steps AS s
            WHERE s.run_id = c.run_id AND kind = 'base' ORDER BY seq LIMIT 1)) AS BLOB)
        FROM {t}_claims AS c WHERE run_id = ?""",
    "free": """
        SELECT run_id, CAST(request AS BLOB) FROM {t}_claims
        WHERE request IS NOT NULL AND runner_id IN (SELECT value FROM json_each(?))
            AND (expires_at <= {now} OR expires_at > {now} + seconds)
        ORDER BY rowid LIMIT 1""",
}


class Journals:
    """The operations on steps and claims; `run_ended` is part of another transaction.

    Args:
        path: The file, for error messages.
        table: The name of the table of sessions, checked by the caller.
    """

    def __init__(self, path: Path, table: str) -> None:
        self._path = path
        parts = {"t": table, "now": NOW, "session_at": session_at(table), "run_at": run_at(table)}
        self._sql = {name: text.format(**parts) for name, text in _SQL.items()}
        self._old_events = OldEvents()

    def claim(
        self, raw: sqlite3.Connection, run_id: str, owner: str, seconds: float, about: RunAbout | None
    ) -> ClaimedRun | None:
        """Let `owner` claim the run for `seconds`; None if another owner has it."""
        with transaction(raw, self._path), store_errors(self._path):
            claim = self._claim(raw, run_id, owner, seconds)
            if claim is None:
                return None
            if about is not None:
                known = (about.session_id, about.user_id, about.runner_id, about.is_team)
                raw.execute(self._sql["note_about"], (*known, run_id))
                raw.execute(self._sql["note_begin"], (run_id,))
            raw.execute(self._sql["drop_old_events"], (self._old_events.seconds(),))
            rows = raw.execute(self._sql["load_steps"], (run_id,)).fetchall()
            (last_seq,) = raw.execute(self._sql["last_seq"], (run_id,)).fetchone()
            noted = raw.execute(self._sql["load_about"], (run_id,)).fetchone()
        steps = [step_of(run_id, row) for row in rows]
        return ClaimedRun(claim, steps, last_seq, run_about(*noted))

    def _claim(self, raw: sqlite3.Connection, run_id: str, owner: str, seconds: float) -> RunClaim | None:
        raw.execute(self._sql["bound_claim"], (run_id,))
        found = raw.execute(self._sql["find_claim"], (run_id,)).fetchone()
        known, attempt, before, held = found or (None, 0, None, False)
        if known != owner:
            if held:
                return None
            attempt, before = attempts(attempt) + 1, known or None
        raw.execute(self._sql["put_claim"], (run_id, owner, attempt, before, seconds, seconds))
        return RunClaim(run_id=run_id, owner=owner, attempt=attempt, before=before)

    def submit(self, raw: sqlite3.Connection, run: SubmittedRow) -> bool:
        """Store the request of a run; False if the id is known.

        Raises:
            SessionOwnershipError: The session belongs to another user.
        """
        about = run.about
        with transaction(raw, self._path), store_errors(self._path):
            if raw.execute(self._sql["run_is_stored"], run_key(run.run_id)).fetchone() is not None:
                return False
            whose = raw.execute(self._sql["owner"], session_key(about.session_id)).fetchone()
            whose = whose or raw.execute(self._sql["first_of_session"], (about.session_id,)).fetchone()
            if whose is not None and whose[0] != about.user_id:
                if raw.execute(self._sql["load_about"], (run.run_id,)).fetchone() is not None:
                    return False
                raise SessionOwnershipError(about.session_id)
            who = (about.session_id, about.user_id, about.runner_id, about.is_team)
            values = (run.run_id, *who, run.request)
            raw.execute(self._sql["drop_dead_claim"], (run.run_id,))
            return raw.execute(self._sql["submit"], values).rowcount == 1

    def request(self, raw: sqlite3.Connection, run_id: str) -> bytes | None:
        """The request of the run."""
        with store_errors(self._path):
            found = raw.execute(self._sql["load_request"], (run_id,)).fetchone()
        return None if found is None else found[0]

    def free(self, raw: sqlite3.Connection, runner_ids: Sequence[str]) -> tuple[str, bytes] | None:
        """The oldest submitted run without an owner, and its request."""
        with store_errors(self._path):
            found = raw.execute(self._sql["free"], (json.dumps(list(runner_ids)),)).fetchone()
            return None if found is None else (found[0], found[1])

    def take(
        self, raw: sqlite3.Connection, owner: str, seconds: float, runner_ids: Sequence[str]
    ) -> TakenRun | None:
        """Let `owner` claim the oldest submitted run without an owner."""
        with transaction(raw, self._path):
            found = self.free(raw, runner_ids)
            if found is None:
                return None
            with store_errors(self._path):
                claim = self._claim(raw, found[0], owner, seconds)
        return None if claim is None else TakenRun(claim, found[1])

    def append(
        self,
        raw: sqlite3.Connection,
        claim: RunClaim,
        seconds: float,
        steps: Sequence[StepRow],
        events: Sequence[EventRow],
    ) -> bool:
        """Store steps and events, and renew the claim; if it is lost, store nothing and return False."""
        with transaction(raw, self._path), store_errors(self._path):
            renewed = raw.execute(self._sql["renew_claim"], (seconds, seconds, claim.run_id, claim.owner))
            if renewed.rowcount == 0:
                return False
            rows = [(claim.run_id, step.key, step.kind, step.data) for step in steps]
            raw.executemany(self._sql["put_step"], rows)
            event_rows = [(claim.run_id, row.last_seq, row.data) for row in events]
            raw.executemany(self._sql["put_events"], event_rows)
            return True

    def events(self, raw: sqlite3.Connection, run_id: str, after: int, limit: int) -> list[EventRow]:
        """The events of the run after that number."""
        with store_errors(self._path):
            rows = raw.execute(self._sql["load_events"], (run_id, after, limit)).fetchall()
        return [EventRow(last_seq=last_seq, data=data) for last_seq, data in rows]

    def running(
        self,
        raw: sqlite3.Connection,
        run_id: str | None,
        session_id: str | None,
        user_id: str | None,
        before: str | None,
        limit: int,
    ) -> list[RunningRow]:
        """Runs that have begun and have not ended."""
        with store_errors(self._path):
            values = (run_id, session_id, user_id, before, limit)
            rows = raw.execute(self._sql["running"], values).fetchall()
        return [running_row(*row) for row in rows]

    def deleted(
        self,
        raw: sqlite3.Connection,
        *,
        session_id: str | None = None,
        session_number: int | None = None,
        user_id: str | None = None,
    ) -> None:
        """Delete the events and the steps of the runs of a session, or of a user's unfinished runs.

        Call this before the rows of the ended runs are deleted, which it needs.
        """
        runs = (None, None) if session_number is None else part_of(session_number)
        raw.execute(self._sql["delete_events"], (session_id, user_id, *runs))
        for name in ("delete_steps", "delete_claims"):
            raw.execute(self._sql[name], (session_id, user_id))

    def release(self, raw: sqlite3.Connection, claim: RunClaim) -> None:
        """End the claim, so that another owner can claim the run. A claim without steps is deleted."""
        with transaction(raw, self._path), store_errors(self._path):
            raw.execute(self._sql["drop_empty_claim"], (claim.run_id, claim.owner, claim.run_id))
            raw.execute(self._sql["release_claim"], (claim.run_id, claim.owner))

    def forget(self, raw: sqlite3.Connection, run_id: str, owner: str | None) -> bool:
        """Delete the claim and the steps of a run."""
        with transaction(raw, self._path), store_errors(self._path):
            if raw.execute(self._sql["forget"], (run_id, owner)).rowcount == 0:
                return False
            raw.execute(self._sql["drop_steps"], (run_id,))
            return True

    def unfinished(self, raw: sqlite3.Connection, limit: int) -> list[str]:
        """The recorded or submitted runs without an owner."""
        with store_errors(self._path):
            return [run_id for (run_id,) in raw.execute(self._sql["unfinished"], (limit,)).fetchall()]

    def check_owner(self, raw: sqlite3.Connection, commit: Commit) -> None:
        """Check whether the commit may store a new session.

        Raises:
            SessionOwnershipError: A durable run of another user has begun in it.
        """
        with store_errors(self._path):
            first = raw.execute(self._sql["first_of_session"], (commit.session_id,)).fetchone()
        if first is not None:
            check_begun(commit, first[0])

    def run_ended(self, raw: sqlite3.Connection, claim: RunClaim) -> None:
        """Delete the claim and the steps of a run whose end is committed in this transaction.

        Raises:
            RunLostError: The claim was lost.
        """
        if raw.execute(self._sql["drop_claim"], (claim.run_id, claim.owner)).rowcount == 0:
            raise RunLostError(claim.run_id)
        raw.execute(self._sql["drop_steps"], (claim.run_id,))
