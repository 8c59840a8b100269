"""Events of the session state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from kern.run.events.base import BaseRunEvent


@dataclass(slots=True)
class SessionStateChangedEvent(BaseRunEvent):
    """A call has changed the session state.

    Every run in progress on the session gets the event; `source` is the run whose stream this is, and
    `writer_run_id` the one that made the change.

    Args:
        patch: The change from the revision before, as a JSON Patch (RFC 6902).
        revision: The new revision of the state.
        agent_path: Who wrote: the names from the top-level run down.
        tool: The tool or function that wrote.
        tool_call_id: The model's id of that call.
        writer_run_id: The run that wrote.
    """

    patch: list[dict[str, Any]] = field(default_factory=list)
    revision: int = 0
    agent_path: list[str] = field(default_factory=list)
    tool: str | None = None
    tool_call_id: str | None = None
    writer_run_id: str | None = None
    kind: ClassVar[str] = "SessionStateChanged"


@dataclass(slots=True)
class SessionStateConflictEvent(BaseRunEvent):
    """This run and another process changed the same value of the session state; this run's value was kept.

    Args:
        path: The value, as a JSON Pointer (RFC 6901).
        base: The value that both started from; None for a new key.
        theirs: The value that the other process had written.
        ours: The value that was kept.
    """

    path: str = ""
    base: Any = None
    theirs: Any = None
    ours: Any = None
    kind: ClassVar[str] = "SessionStateConflict"
