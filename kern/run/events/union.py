"""All events as one type, and how an event is read back from JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeAlias, get_args

from kern.errors import UsageError
from kern.messages import Citation, ProviderCall
from kern.run.events.base import SOURCE_FIELDS, EventSource
from kern.run.events.model import (
    CitationAddedEvent,
    ModelRequestCompletedEvent,
    ModelRequestStartedEvent,
    ModelRetryEvent,
    ReasoningContentDeltaEvent,
)
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
from kern.run.requirement import RunRequirement
from kern.run.tool_execution import ToolExecution

Event: TypeAlias = (
    RunStartedEvent
    | RunContentEvent
    | RunIntermediateContentEvent
    | RunContentCompletedEvent
    | ReasoningContentDeltaEvent
    | ModelRequestStartedEvent
    | ModelRequestCompletedEvent
    | ModelRetryEvent
    | ToolCallStartedEvent
    | ToolCallCompletedEvent
    | ToolCallErrorEvent
    | ToolCallArgumentsDeltaEvent
    | ProviderToolCallStartedEvent
    | ProviderToolCallCompletedEvent
    | CitationAddedEvent
    | PreHookStartedEvent
    | PreHookCompletedEvent
    | PostHookStartedEvent
    | PostHookCompletedEvent
    | SessionStateChangedEvent
    | SessionStateConflictEvent
    | RunPausedEvent
    | RunContinuedEvent
    | RunCompletedEvent
    | RunCancelledEvent
    | RunErrorEvent
)
"""Every event of a run: what a stream yields. `isinstance` and `match` tell them apart."""

_CLASSES: dict[str, type[Event]] = {cls.kind: cls for cls in get_args(Event)}

TERMINAL_EVENTS = (RunCompletedEvent, RunPausedEvent, RunCancelledEvent, RunErrorEvent)


def event_from_dict(data: Mapping[str, Any]) -> Event:
    """Read an event back from what `to_dict` wrote. A structured `content` stays the plain JSON value.

    Raises:
        UsageError: `data` does not describe an event of Kern: its name is unknown, or a field is missing or
            of the wrong type.
    """
    name = str(data.get("event", ""))
    kind = name.removeprefix("Team")
    if kind not in _CLASSES:
        raise UsageError(f"{name!r} is not the name of a Kern event")
    try:
        return _read(_CLASSES[kind], data, is_team=name != kind)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UsageError(f"the {name} event cannot be read: {type(error).__name__}: {error}") from error


def _read(cls: type[Event], data: Mapping[str, Any], *, is_team: bool) -> Event:
    source = {key: data[key] for key in SOURCE_FIELDS if key in data}
    source["path"] = tuple(source.get("path", ()))
    given = {f.name: data[f.name] for f in fields(cls) if f.name in data}
    name, read = _PARTS.get(cls, ("", None))
    if read is not None and name in given:
        given[name] = read(given[name])
    numbers = {key: given.pop(key) for key in ("seq", "created_at") if key in given}
    event = cls(EventSource(**source, is_team=is_team), **given)
    for key, value in numbers.items():
        setattr(event, key, value)
    return event


def _requirements(items: Any) -> list[RunRequirement]:
    return [RunRequirement.from_dict(item) for item in items]


_PARTS: Mapping[type[Event], tuple[str, Callable[[Any], Any]]] = {
    ToolCallStartedEvent: ("tool", ToolExecution.from_dict),
    ToolCallCompletedEvent: ("tool", ToolExecution.from_dict),
    ToolCallErrorEvent: ("tool", ToolExecution.from_dict),
    ProviderToolCallStartedEvent: ("call", ProviderCall.from_dict),
    ProviderToolCallCompletedEvent: ("call", ProviderCall.from_dict),
    CitationAddedEvent: ("citation", Citation.from_dict),
    RunPausedEvent: ("requirements", _requirements),
}
"""By class: the field whose value is an object, and how it is read. All other fields hold plain JSON."""
