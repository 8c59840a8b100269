"""Events of the requests to a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from kern.messages import Citation
from kern.run.events.base import BaseRunEvent


@dataclass(slots=True)
class ModelRequestStartedEvent(BaseRunEvent):
    """A request is sent to a model.

    Args:
        model: The model's id.
        model_provider: Its provider.
    """

    model: str | None = None
    model_provider: str | None = None
    kind: ClassVar[str] = "ModelRequestStarted"


@dataclass(slots=True)
class ModelRequestCompletedEvent(BaseRunEvent):
    """A model has answered.

    Args:
        model: The model that gave the answer, as its provider names it.
        model_provider: Its provider.
        usage: The usage of the request, as `Usage.to_dict` writes it.
        time_to_first_token: Seconds from the request to the first token.
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
    """A request to a model is about to be repeated. Discard what was streamed of this turn.

    Args:
        error: Why the last attempt failed.
        attempt: The number of the next attempt; the first one was 1.
        delay: Seconds until the next attempt.
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
    """The model cites a source of its answer."""

    citation: Citation
    kind: ClassVar[str] = "CitationAdded"
