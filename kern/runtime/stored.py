"""Rows of runs, read back. A row is data from outside: it may be damaged, or a newer version's."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pydantic_core import from_json

from kern.db.base import Db, RunRow
from kern.errors import StoreError, UsageError
from kern.run.output import RunOutput, TeamRunOutput, output_from_dict

log = logging.getLogger("kern")

_UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    UsageError,
)
"""What reading JSON that is not what it should be ends in."""

Output = RunOutput | TeamRunOutput


async def load_output(db: Db, row: RunRow) -> Output:
    """The output that a row holds.

    Raises:
        StoreError: The row cannot be read.
    """
    try:
        return output_from_dict(from_json(row.data))
    except _UNREADABLE as error:
        raise StoreError(
            f"the stored run {row.run_id!r} cannot be read, it is damaged or of a newer version: "
            f"{type(error).__name__}: {error}"
        ) from error


async def load_outputs(db: Db, rows: Iterable[RunRow]) -> list[Output]:
    """The outputs of those rows that can be read; the others are logged and left out."""
    outputs = []
    for row in rows:
        try:
            outputs.append(await load_output(db, row))
        except StoreError as error:
            log.warning("%s; it is left out", error)
    return outputs
