"""Events of the run itself: its start, its answer, its hooks and its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from kern.run.events.base import BaseRunEvent
from kern.run.requirement import RunRequirement


@dataclass(slots=True)
class RunStartedEvent(BaseRunEvent):
    """The run begins. The top-level run's event tells the state that the change events start from."""

    model: str | None = None
    model_provider: str | None = None
    session_state: dict[str, Any] | None = None
    revision: int | None = None
    kind: ClassVar[str] = "RunStarted"


@dataclass(slots=True)
class RunContentEvent(BaseRunEvent):
    """A piece of the run's answer: a text delta, or a structured value with its `content_type`.

    While a structured answer is being written, each event has a plain dict of what is there so far, which
    replaces the one before; the last one has the validated value.
    """

    content: Any = ""
    content_type: str | None = None
    kind: ClassVar[str] = "RunContent"


@dataclass(slots=True)
class RunIntermediateContentEvent(BaseRunEvent):
    """A piece of text that is not the answer: what the provider marks as commentary, the raw text that a
    parser model then shapes; with an `output_schema` text before a call, and results of tools that are shown.

    Args:
        tool_call_id: For a piece of a generator tool's result: the model's id of the call.
    """

    content: Any = ""
    tool_call_id: str | None = None
    kind: ClassVar[str] = "RunIntermediateContent"


@dataclass(slots=True)
class RunContentCompletedEvent(BaseRunEvent):
    """The answer's text is whole."""

    kind: ClassVar[str] = "RunContentCompleted"


@dataclass(slots=True)
class PreHookStartedEvent(BaseRunEvent):
    """A hook before the run begins."""

    hook: str = ""
    kind: ClassVar[str] = "PreHookStarted"


@dataclass(slots=True)
class PreHookCompletedEvent(BaseRunEvent):
    """A hook before the run has ended."""

    hook: str = ""
    kind: ClassVar[str] = "PreHookCompleted"


@dataclass(slots=True)
class PostHookStartedEvent(BaseRunEvent):
    """A hook after the run begins."""

    hook: str = ""
    kind: ClassVar[str] = "PostHookStarted"


@dataclass(slots=True)
class PostHookCompletedEvent(BaseRunEvent):
    """A hook after the run has ended."""

    hook: str = ""
    kind: ClassVar[str] = "PostHookCompleted"


@dataclass(slots=True)
class RunPausedEvent(BaseRunEvent):
    """The run waits for a person. `requirements` tell for what."""

    requirements: list[RunRequirement] = field(default_factory=list)
    kind: ClassVar[str] = "RunPaused"


@dataclass(slots=True)
class RunContinuedEvent(BaseRunEvent):
    """A paused run goes on. The top-level run's event tells the state, as `RunStarted` does."""

    session_state: dict[str, Any] | None = None
    revision: int | None = None
    kind: ClassVar[str] = "RunContinued"


@dataclass(slots=True)
class RunCompletedEvent(BaseRunEvent):
    """The run has ended well and is committed. The top-level run's event tells the state as of then."""

    content: Any = None
    content_type: str | None = None
    metrics: dict[str, Any] | None = None
    session_state: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    kind: ClassVar[str] = "RunCompleted"


@dataclass(slots=True)
class RunCancelledEvent(BaseRunEvent):
    """The run was cancelled; what it had done is committed.

    Args:
        reason: Who did it, where Kern knows: "by cancel_run".
    """

    reason: str | None = None
    kind: ClassVar[str] = "RunCancelled"


@dataclass(slots=True)
class RunErrorEvent(BaseRunEvent):
    """The run has failed; what it had done is committed. `error_type` is the error's class name."""

    error: str = ""
    error_type: str = ""
    kind: ClassVar[str] = "RunError"
