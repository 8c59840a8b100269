"""One tool call of a run, as it appears in outputs and events."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from kern._json import copied, finite
from kern.messages import check_types, readable


@dataclass(slots=True)
class ToolExecution:
    """One tool call of a run.

    Args:
        tool_call_id: The model's id of the call.
        tool_name: The tool.
        tool_args: The parsed arguments; empty if they were not valid JSON.
        result: The text that was returned to the model.
        tool_call_error: Whether the result is an error text.
        child_run_id: For a delegation: the member's run.
        child_run_ids: For a delegation to all members: their runs.
        duration: How long the call took, in seconds.
        stop_after_tool_call: Whether the run ended with this call.
        confirmed: Whether a person allowed the call (True) or rejected it (False); None if nobody was asked.
        confirmation_note: The person's note to the model about a rejection.
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

    def copied(self) -> ToolExecution:
        """A copy that shares nothing that can be changed."""
        return replace(self, tool_args=copied(self.tool_args), child_run_ids=copied(self.child_run_ids))

    def to_dict(self) -> dict[str, Any]:
        """The call as JSON. Fields that have their default are left out."""
        data: dict[str, Any] = {}
        for name, default in _DEFAULTS:
            if (value := getattr(self, name)) is not default:
                data[name] = value
        data["tool_args"] = finite(self.tool_args)
        for name, kind in _TYPES.items():
            if name in data and not isinstance(data[name], kind):
                return readable("ToolExecution", data, _TYPES)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ToolExecution:
        """Read a call back from what `to_dict` wrote.

        Raises:
            ValueError: A value has the wrong type.
            TypeError: A required value is missing, or a field is unknown.
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
