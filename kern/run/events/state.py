"""Events of the session state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from kern.run.events.base import BaseRunEvent


@dataclass(slots=True)
class SessionStateChangedEvent(BaseRunEvent):
    """A call has committed. Every live run of the session receives it; `source` is the run that asked.

    Args:
        patch: What changed, as a JSON Patch (RFC 6902) from the revision before.
        revision: The state's new revision.
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
    """Another process changed the same value; this one's was kept.

    Args:
        path: Where, as a JSON Pointer (RFC 6901).
        base: The value that both started from; absent for a new key.
        theirs: What the other process had written.
        ours: What was kept.
    """

    path: str = ""
    base: Any = None
    theirs: Any = None
    ours: Any = None
    kind: ClassVar[str] = "SessionStateConflict"
