"""Calls that must not be repeated and were in progress when the process of a durable run died."""

from __future__ import annotations

from collections.abc import Sequence

from kern.durable.journal import Entry
from kern.runtime.step_data import loads


def tool_key(begun: str) -> str:
    """The key of a call's step, from the key of the entry that says that the call has begun."""
    run_id, _, call = begun.rpartition("/begun/")
    return f"{run_id}/tool/{call}"


def unclear_calls(entries: Sequence[Entry], run_id: str) -> dict[str, object]:
    """The calls that have begun and have no recorded result: the names of the tools by the keys of the steps.

    Calls before the last answer of the top-level run's model are left out, and calls of members whose
    delegation is recorded: what became of these is known.

    Args:
        entries: The recorded entries of the run, in order.
        run_id: The top-level run.
    """
    unclear: dict[str, object] = {}
    for entry in entries:
        if entry.kind == "begun":
            unclear[tool_key(entry.key)] = loads(entry).get("tool")
        elif entry.key.startswith(f"{run_id}/model/"):
            unclear.clear()
        elif unclear and entry.kind == "delegation":
            unclear.pop(entry.key, None)
            for child in _children(entry):
                for key in [key for key in unclear if key.startswith(f"{child}/")]:
                    del unclear[key]
        else:
            unclear.pop(entry.key, None)
    return unclear


def _children(entry: Entry) -> list[str]:
    """The ids of the members' runs of a delegation. A damaged entry has none here: its step reports it."""
    children = loads(entry).get("children")
    found = children if isinstance(children, list) else []
    return [str(child.get("run_id")) for child in found if isinstance(child, dict)]
