"""Converts between the rows of SQL databases and the row classes of the port.

A row may be damaged: SQLite takes a value of any type in any column. There is a reader per row class, so that
type checkers see which column becomes which field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from kern._log import named
from kern.db.base import ChangeRow, RunRow, SessionInfo, SessionRow
from kern.db.journals import StepRow, seconds
from kern.errors import StoreError

log = named("kern")

T = TypeVar("T")

_Values = tuple[str | bytes | int | float | None, ...]


def session_of(values: tuple[Any, ...]) -> SessionRow:
    """The session in a row: the eleven columns of `SessionRow` before `position`, and `position` if it is
    selected.

    Raises:
        StoreError: A column holds a value of the wrong type.
    """
    session_id, user_id, state, state_version, revision, version = values[:6]
    name, summary, created_at, updated_at, generation, *more = values[6:]
    position = more[0] if more else 0
    what = f"session {session_id!r}"
    _check(what, (session_id, generation), str)
    _check(what, (state,), str, bytes)
    _check(what, (user_id,), str, type(None))
    _check(what, (state_version, revision, version, position), int)
    return SessionRow(
        session_id=session_id,
        user_id=user_id,
        state=state,
        state_version=state_version,
        revision=revision,
        version=version,
        name=_words(name),
        summary=_words(summary),
        created_at=seconds(created_at),
        updated_at=seconds(updated_at),
        generation=generation,
        position=position,
    )


def info_of(values: tuple[Any, ...]) -> SessionInfo:
    """The session in a row of a listing, which has no state.

    Raises:
        StoreError: A column holds a value of the wrong type.
    """
    session_id, user_id, name, summary, created_at, updated_at, position = values
    what = f"session {session_id!r}"
    _check(what, (session_id,), str)
    _check(what, (user_id,), str, type(None))
    _check(what, (position,), int)
    return SessionInfo(
        session_id=session_id,
        user_id=user_id,
        name=_words(name),
        summary=_words(summary),
        created_at=seconds(created_at),
        updated_at=seconds(updated_at),
        position=position,
    )


def run_of(values: tuple[Any, ...]) -> RunRow:
    """The run in a row.

    Raises:
        StoreError: A column holds a value of the wrong type.
    """
    run_id, session_id, runner_id, parent_run_id, status, generation, data, created_at = values
    what = f"run {run_id!r}"
    _check(what, (run_id, session_id, runner_id, status), str)
    _check(what, (data,), str, bytes)
    _check(what, (parent_run_id,), str, type(None))
    _check(what, (generation,), int)
    return RunRow(
        run_id=run_id,
        session_id=session_id,
        runner_id=runner_id,
        parent_run_id=parent_run_id,
        status=status,
        generation=generation,
        data=data,
        created_at=seconds(created_at),
    )


def step_of(run_id: str, values: tuple[Any, ...]) -> StepRow:
    """The step in a row.

    Raises:
        StoreError: A column holds a value of the wrong type.
    """
    key, kind, data = values
    _check(f"a step of run {run_id!r}", (key, kind), str)
    return StepRow(key=key, kind=kind, data=data)


def readable(read: Callable[[tuple[Any, ...]], T], rows: Iterable[tuple[Any, ...]]) -> list[T]:
    """Read the rows with `read`. Rows that cannot be read are logged as warnings and left out."""
    good = []
    for row in rows:
        try:
            good.append(read(row))
        except StoreError as error:
            log.warning("%s; it is left out", error)
    return good


def run_values(run: RunRow) -> _Values:
    """The columns of a run, in the order of the INSERT statements."""
    return (
        run.run_id,
        run.session_id,
        run.runner_id,
        run.parent_run_id,
        run.status,
        run.generation,
        run.created_at,
        run.data,
    )


def change_of(values: tuple[Any, ...]) -> ChangeRow:
    """The change in a row.

    Raises:
        StoreError: A column holds a value of the wrong type.
    """
    session_id, revision, patch, agent_path, run_id, tool, tool_call_id, created_at = values
    what = f"a change of session {session_id!r}"
    _check(what, (session_id, patch, agent_path), str, bytes)
    _check(what, (revision,), int)
    return ChangeRow(
        session_id=session_id,
        revision=revision,
        patch=patch,
        agent_path=agent_path,
        run_id=_words(run_id),
        tool=_words(tool),
        tool_call_id=_words(tool_call_id),
        created_at=seconds(created_at),
    )


def _check(what: str, values: Sequence[Any], *kinds: type) -> None:
    """Check that columns hold values of the right types.

    Raises:
        StoreError: One of them does not.
    """
    for value in values:
        if not isinstance(value, kinds):
            raise StoreError(f"the row of {what} is damaged: a column holds {value!r:.100}")


def _words(value: Any) -> str | None:
    """The value of a column that is only shown to people: a damaged one is converted, not refused."""
    return value if isinstance(value, str | None) else str(value)


def change_values(change: ChangeRow) -> _Values:
    """The columns of a change, in the order of the INSERT statements."""
    return (
        change.session_id,
        change.revision,
        change.run_id,
        change.tool,
        change.tool_call_id,
        change.agent_path,
        change.created_at,
        change.patch,
    )
