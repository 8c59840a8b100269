"""The events of a run: plain slotted objects, since one is made per token.

An event's type is its class. Its `event` string is the class's `kind`, with "Team" before it if the run is
that of a team leader. What all events of one run have in common is kept once, in the `EventSource` that they
share.

- `names`: the `event` strings.
- `base`: what all events share.
- `run`, `model`, `tools`, `state`: the event classes.
- `union`: all classes as the type `Event`, and `event_from_dict`.
"""

from kern.run.events.base import BaseRunEvent, EventSource
from kern.run.events.model import (
    CitationAddedEvent,
    ModelRequestCompletedEvent,
    ModelRequestStartedEvent,
    ModelRetryEvent,
    ReasoningContentDeltaEvent,
)
from kern.run.events.names import RunEvent, TeamRunEvent
from kern.run.events.run import (
    PostHookCompletedEvent,
    PostHookStartedEvent,
    PreHookCompletedEvent,
    PreHookStartedEvent,
    RunCancelledEvent,
    RunCompletedEvent,
    RunContentCompletedEvent,
    RunContentEvent,
    RunContinuedEvent,
    RunErrorEvent,
    RunIntermediateContentEvent,
    RunPausedEvent,
    RunStartedEvent,
)
from kern.run.events.state import (
    SessionStateChangedEvent,
    SessionStateConflictEvent,
)
from kern.run.events.tools import (
    ProviderToolCallCompletedEvent,
    ProviderToolCallStartedEvent,
    ToolCallArgumentsDeltaEvent,
    ToolCallCompletedEvent,
    ToolCallErrorEvent,
    ToolCallStartedEvent,
)
from kern.run.events.union import TERMINAL_EVENTS, Event, event_from_dict

__all__ = [
    "TERMINAL_EVENTS",
    "BaseRunEvent",
    "CitationAddedEvent",
    "Event",
    "EventSource",
    "ModelRequestCompletedEvent",
    "ModelRequestStartedEvent",
    "ModelRetryEvent",
    "PostHookCompletedEvent",
    "PostHookStartedEvent",
    "PreHookCompletedEvent",
    "PreHookStartedEvent",
    "ProviderToolCallCompletedEvent",
    "ProviderToolCallStartedEvent",
    "ReasoningContentDeltaEvent",
    "RunCancelledEvent",
    "RunCompletedEvent",
    "RunContentCompletedEvent",
    "RunContentEvent",
    "RunContinuedEvent",
    "RunErrorEvent",
    "RunEvent",
    "RunIntermediateContentEvent",
    "RunPausedEvent",
    "RunStartedEvent",
    "SessionStateChangedEvent",
    "SessionStateConflictEvent",
    "TeamRunEvent",
    "ToolCallArgumentsDeltaEvent",
    "ToolCallCompletedEvent",
    "ToolCallErrorEvent",
    "ToolCallStartedEvent",
    "event_from_dict",
]
