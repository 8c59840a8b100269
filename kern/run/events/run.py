"""Events of the run itself: its start, its answer, its hooks and its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from kern.run.events.base import BaseRunEvent
from kern.run.requirement import RunRequirement


@dataclass(slots=True)
class RunStartedEvent(BaseRunEvent):
    """The run begins.

    Args:
        model: The model's id.
        model_provider: Its provider.
        session_state: For a top-level run: the state that the change events start from.
        revision: The revision of that state.
    """

    model: str | None = None
    model_provider: str | None = None
    session_state: dict[str, Any] | None = None
    revision: int | None = None
    kind: ClassVar[str] = "RunStarted"


@dataclass(slots=True)
class RunContentEvent(BaseRunEvent):
    """A piece of the run's answer: a text delta, or a structured value with its `content_type`.

    While a structured answer is being written, each event has a plain dict with what has arrived so far,
    which replaces the one before. The last event has the validated value.
    """

    content: Any = ""
    content_type: str | None = None
    kind: ClassVar[str] = "RunContent"


@dataclass(slots=True)
class RunIntermediateContentEvent(BaseRunEvent):
    """A piece of text that is not part of the answer.

    That is text that the provider marks as commentary, the text that a parser model turns into the answer
    and, with an `output_schema`, text before a tool call and results of tools that are shown.

    Args:
        content: The piece.
        tool_call_id: For a piece of the result of a generator tool: the model's id of the call.
    """

    content: Any = ""
    tool_call_id: str | None = None
    kind: ClassVar[str] = "RunIntermediateContent"


@dataclass(slots=True)
class RunContentCompletedEvent(BaseRunEvent):
    """The text of the answer is complete."""

    kind: ClassVar[str] = "RunContentCompleted"


@dataclass(slots=True)
class PreHookStartedEvent(BaseRunEvent):
    """A pre-hook is about to be called; `hook` is its name."""

    hook: str = ""
    kind: ClassVar[str] = "PreHookStarted"


@dataclass(slots=True)
class PreHookCompletedEvent(BaseRunEvent):
    """A pre-hook has returned; `hook` is its name."""

    hook: str = ""
    kind: ClassVar[str] = "PreHookCompleted"


@dataclass(slots=True)
class PostHookStartedEvent(BaseRunEvent):
    """A post-hook is about to be called; `hook` is its name."""

    hook: str = ""
    kind: ClassVar[str] = "PostHookStarted"


@dataclass(slots=True)
class PostHookCompletedEvent(BaseRunEvent):
    """A post-hook has returned; `hook` is its name."""

    hook: str = ""
    kind: ClassVar[str] = "PostHookCompleted"


@dataclass(slots=True)
class RunPausedEvent(BaseRunEvent):
    """The run waits for a person, and is committed. `requirements` says what it waits for."""

    requirements: list[RunRequirement] = field(default_factory=list)
    kind: ClassVar[str] = "RunPaused"


@dataclass(slots=True)
class RunContinuedEvent(BaseRunEvent):
    """A paused run goes on; for a top-level run with the state, as in `RunStartedEvent`."""

    session_state: dict[str, Any] | None = None
    revision: int | None = None
    kind: ClassVar[str] = "RunContinued"


@dataclass(slots=True)
class RunCompletedEvent(BaseRunEvent):
    """The run is completed and committed.

    Args:
        content: The answer; see `RunOutput`.
        content_type: "str", or the name of the class of a structured value.
        metrics: The usage of the run together with all runs below it.
        session_state: For a top-level run: the committed state.
        metadata: The metadata of the run.
    """

    content: Any = None
    content_type: str | None = None
    metrics: dict[str, Any] | None = None
    session_state: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    kind: ClassVar[str] = "RunCompleted"


@dataclass(slots=True)
class RunCancelledEvent(BaseRunEvent):
    """The run was cancelled; what it did before is committed.

    Args:
        reason: The cause, if it is known, such as "by cancel_run".
    """

    reason: str | None = None
    kind: ClassVar[str] = "RunCancelled"


@dataclass(slots=True)
class RunErrorEvent(BaseRunEvent):
    """The run failed; what it did before is committed.

    Args:
        error: The error's text.
        error_type: The name of the error's class.
    """

    error: str = ""
    error_type: str = ""
    kind: ClassVar[str] = "RunError"
