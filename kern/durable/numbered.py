"""The steps of a run carry consecutive numbers, so that a missing row of a damaged database is noticed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from kern.db.journals import StepRow
from kern.durable.journal import Entry
from kern.errors import StoreError

_NUMBER: Final = re.compile(rb',\s*"number":\s*(\d+)\s*\}\s*\Z')


def numbered(entries: Sequence[Entry], first: int | None) -> tuple[list[StepRow], int | None]:
    """Make the rows of entries, and the number of the next one.

    Args:
        entries: The entries, whose data are JSON objects that are not empty.
        first: The number of the first; None: it is not known how many rows are stored, so they have none.
    """
    if first is None:
        return [StepRow(key=entry.key, kind=entry.kind, data=entry.data) for entry in entries], None
    rows = [
        StepRow(key=entry.key, kind=entry.kind, data=b'%b,"number":%d}' % (entry.data[:-1], number))
        for number, entry in enumerate(entries, first)
    ]
    return rows, first + len(rows)


def check_numbers(run_id: str, steps: Sequence[StepRow]) -> None:
    """Check that no recorded step of a run is missing. Rows without a number are of an older version.

    Raises:
        StoreError: One is missing.
    """
    for place, step in enumerate(steps):
        found = _NUMBER.search(step.data[-40:])
        if found is not None and int(found[1]) != place:
            raise StoreError(
                f"a recorded step of run {run_id!r} is missing: the number of {step.key} is {int(found[1])}, "
                f"and {place} rows come before it. The table of steps is damaged: restore it, or give the "
                f"run up with DbJournal(db).forget({run_id!r})"
            )
