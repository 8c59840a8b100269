"""Reads stored runs. A row is data from outside: it may be damaged, or written by a newer version."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any, Final

from pydantic_core import from_json

from kern._log import named
from kern.db.base import Db, RunRow
from kern.errors import StoreError, UsageError
from kern.messages import Media
from kern.run.output import AnyRunOutput, TeamRunOutput, output_from_dict
from kern.usage import Metrics

log: Final = named("kern")

UNREADABLE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    UsageError,
)
"""The errors that reading JSON of an unexpected shape may raise."""

Output = AnyRunOutput


@contextmanager
def reading(row: RunRow) -> Iterator[None]:
    """Wrap the reading of a row, whose JSON may be damaged.

    Raises:
        StoreError: The row cannot be read.
    """
    try:
        yield
    except UNREADABLE as error:
        raise StoreError(
            f"the stored run {row.run_id!r} cannot be read; it is damaged, or a newer version of "
            f"Kern wrote it: {type(error).__name__}: {error}"
        ) from error


def row_json(row: RunRow) -> dict[str, Any]:
    """The JSON of a stored run, with what has a column of its own. Rows of versions before 0.2.0 hold both.

    Raises:
        ValueError: It is not that of a run.
    """
    data = from_json(row.data)
    if not isinstance(data, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - of what is stored, not of a program
    if "agent_id" not in data and "team_id" not in data:
        raise ValueError("it names neither an agent nor a team")
    columns: dict[str, Any] = {"run_id": row.run_id, "session_id": row.session_id, "status": row.status}
    columns["created_at"] = int(row.created_at)
    if row.parent_run_id is not None:
        columns["parent_run_id"] = row.parent_run_id
    return columns | data


async def load_output(db: Db, row: RunRow) -> Output:
    """Read the output in a row, with the bytes of its media.

    Raises:
        StoreError: The row cannot be read.
    """
    with reading(row):
        output = output_from_dict(row_json(row))
    await fill_media(db, row, media_of(output))
    return output


def load_metrics(rows: Iterable[RunRow]) -> list[Metrics]:
    """Read the usage of the runs in `rows`. Rows that cannot be read are logged and left out."""
    found = []
    for row in rows:
        try:
            with reading(row):
                found.append(Metrics.from_dict(from_json(row.data).get("metrics", {})))
        except StoreError as error:
            log.warning("%s; it is not counted", error)
    return found


def media_of(output: Output) -> list[Media]:
    """Return all media of an output, with those of its messages and of its members' outputs."""
    media = [*output.media, *(media for message in output.messages for media in message.media)]
    if isinstance(output, TeamRunOutput):
        media += [media for member in output.member_responses for media in media_of(member)]
    return media


async def fill_media(db: Db, row: RunRow, media: Iterable[Media]) -> None:
    """Load the bytes of media that were read from a row.

    A row of an older version may have the path of a file. It is not read: it may be another file by now.
    """
    lacking = [item for item in media if item.content is None]
    if hashes := {item.sha256 for item in lacking if item.sha256 is not None}:
        stored = await db.load_media(row.session_id, sorted(hashes))
        for item in lacking:
            item.content = stored.get(item.sha256 or "")
        if len(stored) < len(hashes):
            log.warning(
                "run %s: media files missing in the database: %d",
                row.run_id,
                len(hashes) - len(stored),
            )
    for item in lacking:
        if item.filepath is not None:
            log.warning("run %s: the file %s was not stored with it", row.run_id, item.filepath)
            item.name, item.filepath = item.name or PurePath(item.filepath).name, None


async def load_outputs(db: Db, rows: Iterable[RunRow]) -> list[Output]:
    """Read the outputs in `rows`. Rows that cannot be read are logged and left out."""
    outputs = []
    for row in rows:
        try:
            outputs.append(await load_output(db, row))
        except StoreError as error:
            log.warning("%s; it is left out", error)
    return outputs
