"""Changes of a session state as rows of the log in the database."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json, to_json

from kern.db.base import ChangeRow
from kern.errors import StoreError
from kern.state.shared_state import Author, Change


def change_row(session_id: str, change: Change) -> ChangeRow:
    """Make the row of a change."""
    author = change.author
    return ChangeRow(
        session_id=session_id,
        revision=change.revision,
        patch=to_json(change.patch),
        agent_path=to_json(author.agent_path),
        run_id=author.run_id,
        tool=author.tool,
        tool_call_id=author.tool_call_id,
        created_at=change.created_at,
    )


def change_of(row: ChangeRow) -> Change:
    """Undo `change_row`.

    Raises:
        StoreError: The row cannot be read.
    """
    try:
        path, patch = from_json(row.agent_path), from_json(row.patch)
        if not all(isinstance(name, str) for name in path) or not all(map(_is_operation, patch)):
            raise ValueError(
                "agent_path must be a list of names, and patch a list of operations with their values"
            )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise StoreError(
            f"change {row.revision} of session {row.session_id!r} cannot be read; it is damaged, "
            f"or a newer version of Kern wrote it: {error}"
        ) from error
    return Change(
        row.revision, patch, Author(row.run_id, tuple(path), row.tool, row.tool_call_id), row.created_at
    )


def _is_operation(step: dict[str, Any]) -> bool:
    texts = step["path"], step.get("before", "")
    return all(isinstance(text, str) for text in texts) and _OPERATIONS[step["op"]] <= step.keys()


_OPERATIONS = {"add": {"value"}, "remove": {"old"}, "replace": {"value", "old"}}
