"""Events of the requests to a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from kern.messages import Citation
from kern.run.events.base import BaseRunEvent


@dataclass(slots=True)
class ModelRequestStartedEvent(BaseRunEvent):
    """A request goes to a model."""

    model: str | None = None
    model_provider: str | None = None
    kind: ClassVar[str] = "ModelRequestStarted"


@dataclass(slots=True)
class ModelRequestCompletedEvent(BaseRunEvent):
    """A model has answered. `usage` as in `Usage.to_dict`.

    Args:
        model: The model that really answered, as its provider names it.
        response_id: The provider's id of the answer.
    """

    model: str | None = None
    model_provider: str | None = None
    usage: dict[str, Any] | None = None
    time_to_first_token: float | None = None
    response_id: str | None = None
    kind: ClassVar[str] = "ModelRequestCompleted"


@dataclass(slots=True)
class ModelRetryEvent(BaseRunEvent):
    """A request to a model is tried again; what was streamed of this turn is void.

    Args:
        error: Why.
        attempt: The number of the attempt that is made now; the first one, which failed, was 1.
        delay: Seconds before it.
    """

    error: str = ""
    attempt: int = 0
    delay: float = 0.0
    kind: ClassVar[str] = "ModelRetry"


@dataclass(slots=True)
class ReasoningContentDeltaEvent(BaseRunEvent):
    """A piece of the model's reasoning."""

    reasoning_content: str = ""
    kind: ClassVar[str] = "ReasoningContentDelta"


@dataclass(slots=True)
class CitationAddedEvent(BaseRunEvent):
    """The model says where words of its answer come from."""

    citation: Citation
    kind: ClassVar[str] = "CitationAdded"
