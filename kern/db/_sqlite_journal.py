"""The steps of runs that outlive their process, on one set of tables, and the claims to these runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from kern.db._sqlite_cancels import NOW
from kern.db._sqlite_errors import store_errors
from kern.db._sqlite_schema import transaction
from kern.db.journals import ClaimedRun, RunClaim, StepRow
from kern.errors import RunLostError

_SQL = {
    "find_claim": "SELECT owner, attempt, expires_at > {now} FROM {t}_claims WHERE run_id = ?",
    # A claim that has longer left than it was given for: the clock was set back.
    "bound_claim": """
        UPDATE {t}_claims SET expires_at = {now} + seconds
        WHERE run_id = ? AND expires_at > {now} + seconds""",
    "put_claim": """
        INSERT INTO {t}_claims (run_id, owner, attempt, seconds, expires_at) VALUES (?, ?, ?, ?, {now} + ?)
        ON CONFLICT (run_id) DO UPDATE SET
            owner = excluded.owner, attempt = excluded.attempt,
            seconds = excluded.seconds, expires_at = excluded.expires_at""",
    "renew_claim": """
        UPDATE {t}_claims SET seconds = ?, expires_at = {now} + ? WHERE run_id = ? AND owner = ?""",
    "release_claim": "UPDATE {t}_claims SET expires_at = 0 WHERE run_id = ? AND owner = ?",
    "drop_empty_claim": """
        DELETE FROM {t}_claims WHERE run_id = ? AND owner = ?
            AND NOT EXISTS (SELECT 1 FROM {t}_steps WHERE run_id = ?)""",
    "load_steps": "SELECT key, kind, CAST(data AS BLOB) FROM {t}_steps WHERE run_id = ? ORDER BY seq",
    "put_step": "INSERT INTO {t}_steps (run_id, key, kind, data) VALUES (?, ?, ?, CAST(? AS TEXT))",
    "drop_claim": "DELETE FROM {t}_claims WHERE run_id = ? AND owner = ?",
    "drop_steps": "DELETE FROM {t}_steps WHERE run_id = ?",
    "unfinished": """
        SELECT c.run_id FROM {t}_claims AS c WHERE c.expires_at <= {now}
            AND EXISTS (SELECT 1 FROM {t}_steps AS s WHERE s.run_id = c.run_id)
        ORDER BY c.rowid LIMIT ?""",
}


class Journals:
    """The verbs on steps and claims; `run_ended` is part of another transaction.

    Args:
        path: The file, for error messages.
        table: The name of the sessions' table, checked by the caller.
    """

    def __init__(self, path: Path, table: str) -> None:
        self._path = path
        self._sql = {name: text.format(t=table, now=NOW) for name, text in _SQL.items()}

    def claim(self, raw: sqlite3.Connection, run_id: str, owner: str, seconds: float) -> ClaimedRun | None:
        """Give `owner` the run for `seconds`; None if another has it."""
        with transaction(raw, self._path), store_errors(self._path):
            raw.execute(self._sql["bound_claim"], (run_id,))
            found = raw.execute(self._sql["find_claim"], (run_id,)).fetchone()
            before, attempt, held = found or (None, 0, False)
            if held and before != owner:
                return None
            raw.execute(self._sql["put_claim"], (run_id, owner, attempt + 1, seconds, seconds))
            rows = raw.execute(self._sql["load_steps"], (run_id,)).fetchall()
        claim = RunClaim(run_id=run_id, owner=owner, attempt=attempt + 1, before=before)
        return ClaimedRun(claim, [StepRow(key=key, kind=kind, data=data) for key, kind, data in rows])

    def append(
        self, raw: sqlite3.Connection, claim: RunClaim, seconds: float, steps: Sequence[StepRow]
    ) -> bool:
        """Keep the steps and renew the claim; False, and nothing is kept, if it does not hold any more."""
        with transaction(raw, self._path), store_errors(self._path):
            renewed = raw.execute(self._sql["renew_claim"], (seconds, seconds, claim.run_id, claim.owner))
            if renewed.rowcount == 0:
                return False
            rows = [(claim.run_id, step.key, step.kind, step.data) for step in steps]
            raw.executemany(self._sql["put_step"], rows)
            return True

    def release(self, raw: sqlite3.Connection, claim: RunClaim) -> None:
        """Let others have the run; a claim without steps leaves nothing."""
        with transaction(raw, self._path), store_errors(self._path):
            raw.execute(self._sql["drop_empty_claim"], (claim.run_id, claim.owner, claim.run_id))
            raw.execute(self._sql["release_claim"], (claim.run_id, claim.owner))

    def unfinished(self, raw: sqlite3.Connection, limit: int) -> list[str]:
        """The runs with steps on record that no process has."""
        with store_errors(self._path):
            return [run_id for (run_id,) in raw.execute(self._sql["unfinished"], (limit,)).fetchall()]

    def run_ended(self, raw: sqlite3.Connection, claim: RunClaim) -> None:
        """Delete the claim and the steps of a run whose end is committed in this transaction.

        Raises:
            RunLostError: The claim does not hold any more.
        """
        if raw.execute(self._sql["drop_claim"], (claim.run_id, claim.owner)).rowcount == 0:
            raise RunLostError(claim.run_id)
        raw.execute(self._sql["drop_steps"], (claim.run_id,))
