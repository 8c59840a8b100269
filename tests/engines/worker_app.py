"""The application of workers that are killed: a team whose effects go into a ledger, signed."""

from __future__ import annotations

import os
from pathlib import Path

from kern.durable import DbJournal
from tests.durable.desk import Ledger, desk
from tests.durable.victim import database


class SignedLedger(Ledger):
    """A ledger that tells whose lines follow."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._signed = False

    def add(self, *words: object) -> None:
        if not self._signed:
            self._signed = True
            super().add("by", os.getpid())
        super().add(*words)


FOLDER = os.environ.get("KERN_TEST_FOLDER", ".")
CLAIM_SECONDS = float(os.environ.get("KERN_TEST_CLAIM", "0.5"))
ledger = SignedLedger(Path(FOLDER) / "ledger")
db = database(os.environ.get("KERN_TEST_DB", "kern.db"), ledger)
team = desk(ledger, db, DbJournal(db, claim_seconds=CLAIM_SECONDS), pace=0.02)
