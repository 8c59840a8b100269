"""Makes rows and commits for tests of databases, with defaults."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from kern.db.base import ChangeRow, Commit, RunRow, SessionRow, StateWrite


def run_row(
    run_id: str,
    *,
    session_id: str = "s",
    runner_id: str = "agent",
    parent_run_id: str | None = None,
    status: str = "COMPLETED",
    generation: int = 0,
    data: bytes = b"{}",
    created_at: float = 1.0,
    media: Mapping[str, bytes] | None = None,
) -> RunRow:
    """The row of a run, with defaults."""
    return RunRow(
        run_id=run_id,
        session_id=session_id,
        runner_id=runner_id,
        parent_run_id=parent_run_id,
        status=status,
        generation=generation,
        data=data,
        created_at=created_at,
        media=media or {},
    )


def change_row(revision: int, *, session_id: str = "s", patch: bytes = b"[]") -> ChangeRow:
    """The row of a change, with defaults."""
    return ChangeRow(
        session_id=session_id,
        revision=revision,
        patch=patch,
        agent_path=b'["agent"]',
        run_id="r",
        tool="tool",
        tool_call_id="call",
        created_at=float(revision),
    )


def state_commit(
    state: bytes | None = b"{}",
    *,
    session_id: str = "s",
    user_id: str | None = None,
    runs: Sequence[RunRow] = (),
    changes: Sequence[ChangeRow] = (),
    state_version: int = 0,
    now: float = 1.0,
    known: SessionRow | None = None,
    seen: Callable[[SessionRow | None], object] | None = None,
) -> Commit:
    """A commit that writes `state` and raises the revision by one; `seen` is called with the stored row."""

    def resolve(row: SessionRow | None) -> StateWrite:
        if seen is not None:
            seen(row)
        return StateWrite(state, (row.revision if row else 0) + 1, state_version, changes)

    return Commit(session_id=session_id, user_id=user_id, resolve=resolve, runs=runs, known=known, now=now)


def counting_commit(session_id: str = "s") -> Commit:
    """A commit that adds one to a counter in the state."""

    def resolve(row: SessionRow | None) -> StateWrite:
        count = json.loads(row.state)["count"] if row else 0
        return StateWrite(b'{"count":%d}' % (count + 1), (row.revision if row else 0) + 1)

    return Commit(session_id=session_id, user_id=None, resolve=resolve, now=1.0)


@contextmanager
def raises(kind: type[BaseException]) -> Iterator[list[BaseException]]:
    """Check that the block raises an error of `kind`, and put the error into the list."""
    caught: list[BaseException] = []
    try:
        yield caught
    except kind as error:
        caught.append(error)
    else:
        raise AssertionError(f"{kind.__name__} was not raised")
