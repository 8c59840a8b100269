"""One tool call of a run, as its output, its events and its row tell of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from kern._json import finite
from kern.messages import check_types


@dataclass(slots=True)
class ToolExecution:
    """One tool call of a run, as it went.

    Args:
        tool_call_id: The model's id of the call.
        tool_name: The tool.
        tool_args: The arguments, parsed; empty where they were not valid JSON.
        result: The text that the model was told.
        tool_call_error: The result is an error text.
        child_run_id: For a delegation: the member's run.
        child_run_ids: For a delegation to all members: their runs.
        duration: In seconds.
        stop_after_tool_call: The run ended with this call.
        confirmed: A person has allowed the call (True), or refused it; None if nobody was asked.
        confirmation_note: What was said of a refusal.
        created_at: Seconds since the epoch.
    """

    tool_call_id: str
    tool_name: str
    tool_args: dict[str, Any] = field(default_factory=dict)
    result: str | None = None
    tool_call_error: bool = False
    child_run_id: str | None = None
    child_run_ids: list[str] | None = None
    duration: float | None = None
    stop_after_tool_call: bool = False
    confirmed: bool | None = None
    confirmation_note: str | None = None
    created_at: float = field(default_factory=time.time)

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without what is not set."""
        data: dict[str, Any] = {}
        for name, default in _DEFAULTS:
            if (value := getattr(self, name)) is not default:
                data[name] = value
        data["tool_args"] = finite(self.tool_args)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ToolExecution:
        """The reverse of `to_dict`.

        Raises:
            ValueError: A value is not of its type.
        """
        check_types(cls.__name__, data, _TYPES)
        return cls(**data)


_DEFAULTS = [(f.name, f.default) for f in fields(ToolExecution)]

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("tool_call_id", "tool_name"), str),
    **dict.fromkeys(("result", "child_run_id"), (str, type(None))),
    "tool_args": dict,
    "child_run_ids": (list, type(None)),
}
