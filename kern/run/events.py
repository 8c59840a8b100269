"""The events of a run: plain slotted objects, since one is made per token.

An event's type is its class; its `event` string is the class's name in the table, with "Team" before it
where a team's leader is the source. What all events of one run have in common stands once, in the
`EventSource` that they share.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, ClassVar, TypeAlias, get_args

import pydantic

from kern._json import finite, json_bytes, jsonable
from kern.errors import UsageError
from kern.messages import Citation, ProviderCall
from kern.run.requirement import RunRequirement
from kern.run.tool_execution import ToolExecution


class RunEvent(StrEnum):
    """The `event` strings of an agent's run."""

    run_started = "RunStarted"
    run_content = "RunContent"
    run_intermediate_content = "RunIntermediateContent"
    run_content_completed = "RunContentCompleted"
    run_completed = "RunCompleted"
    run_error = "RunError"
    run_cancelled = "RunCancelled"
    run_paused = "RunPaused"
    run_continued = "RunContinued"
    tool_call_started = "ToolCallStarted"
    tool_call_completed = "ToolCallCompleted"
    tool_call_error = "ToolCallError"
    tool_call_arguments_delta = "ToolCallArgumentsDelta"
    provider_tool_call_started = "ProviderToolCallStarted"
    provider_tool_call_completed = "ProviderToolCallCompleted"
    citation_added = "CitationAdded"
    model_request_started = "ModelRequestStarted"
    model_request_completed = "ModelRequestCompleted"
    reasoning_content_delta = "ReasoningContentDelta"
    pre_hook_started = "PreHookStarted"
    pre_hook_completed = "PreHookCompleted"
    post_hook_started = "PostHookStarted"
    post_hook_completed = "PostHookCompleted"
    session_state_changed = "SessionStateChanged"
    session_state_conflict = "SessionStateConflict"
    model_retry = "ModelRetry"


class TeamRunEvent(StrEnum):
    """The `event` strings of a team leader's run: those of `RunEvent`, with "Team" before them."""

    run_started = "TeamRunStarted"
    run_content = "TeamRunContent"
    run_intermediate_content = "TeamRunIntermediateContent"
    run_content_completed = "TeamRunContentCompleted"
    run_completed = "TeamRunCompleted"
    run_error = "TeamRunError"
    run_cancelled = "TeamRunCancelled"
    run_paused = "TeamRunPaused"
    run_continued = "TeamRunContinued"
    tool_call_started = "TeamToolCallStarted"
    tool_call_completed = "TeamToolCallCompleted"
    tool_call_error = "TeamToolCallError"
    tool_call_arguments_delta = "TeamToolCallArgumentsDelta"
    provider_tool_call_started = "TeamProviderToolCallStarted"
    provider_tool_call_completed = "TeamProviderToolCallCompleted"
    citation_added = "TeamCitationAdded"
    model_request_started = "TeamModelRequestStarted"
    model_request_completed = "TeamModelRequestCompleted"
    reasoning_content_delta = "TeamReasoningContentDelta"
    pre_hook_started = "TeamPreHookStarted"
    pre_hook_completed = "TeamPreHookCompleted"
    post_hook_started = "TeamPostHookStarted"
    post_hook_completed = "TeamPostHookCompleted"
    session_state_changed = "TeamSessionStateChanged"
    session_state_conflict = "TeamSessionStateConflict"
    model_retry = "TeamModelRetry"


@dataclass(slots=True, frozen=True)
class EventSource:
    """The run that an event comes from.

    Args:
        path: The names from the top-level run down to this one, such as ("Shopping Team", "Buyer").
        nested_depth: 0 for the run that the application started, 1 for its members' runs, and so on.
    """

    run_id: str
    session_id: str
    parent_run_id: str | None = None
    agent_id: str | None = None
    agent_name: str | None = None
    team_id: str | None = None
    team_name: str | None = None
    is_team: bool = False
    nested_depth: int = 0
    path: tuple[str, ...] = ()


_SOURCE_FIELDS = tuple(f.name for f in fields(EventSource))


@dataclass(slots=True)
class BaseRunEvent:
    """What every event has. `seq` rises strictly within a top-level run; `created_at` is in seconds."""

    source: EventSource
    seq: int = field(default=0, init=False)
    created_at: float = field(default_factory=time.time, init=False)

    kind: ClassVar[str] = ""

    @property
    def event(self) -> str:
        """The event's name, equal to a member of `RunEvent` or `TeamRunEvent`."""
        return f"Team{self.kind}" if self.source.is_team else self.kind

    @property
    def content(self) -> Any:
        """The text that the event brings; "" where it brings none, so that a loop may print every event's."""
        return ""

    @property
    def run_id(self) -> str:
        """The run that the event comes from."""
        return self.source.run_id

    @property
    def parent_run_id(self) -> str | None:
        """The run that delegated to this one."""
        return self.source.parent_run_id

    @property
    def session_id(self) -> str:
        """The session of the run."""
        return self.source.session_id

    @property
    def agent_id(self) -> str | None:
        """The agent that runs; None for a team's leader."""
        return self.source.agent_id

    @property
    def agent_name(self) -> str | None:
        """The name of the agent that runs; None for a team's leader."""
        return self.source.agent_name

    @property
    def team_id(self) -> str | None:
        """The team that runs; None for an agent."""
        return self.source.team_id

    @property
    def team_name(self) -> str | None:
        """The name of the team that runs; None for an agent."""
        return self.source.team_name

    @property
    def nested_depth(self) -> int:
        """How many runs stand above this one."""
        return self.source.nested_depth

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON, without what is not set."""
        data: dict[str, Any] = {"event": self.event, "seq": self.seq, "created_at": self.created_at}
        for name in _SOURCE_FIELDS:
            value = getattr(self.source, name)
            if value is not None and value != () and name != "is_team":
                data[name] = list(value) if name == "path" else value
        for f in fields(self):
            if f.name not in _BASE_FIELDS and (value := getattr(self, f.name)) is not None:
                data[f.name] = _plain(value)
        return data

    def to_json(self) -> str:
        """The event as one line of JSON text."""
        return json_bytes(self.to_dict()).decode()


def _plain(value: Any) -> Any:
    """A field's value as JSON."""
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return jsonable(value) if isinstance(value, pydantic.BaseModel) else finite(value)


_BASE_FIELDS = frozenset({"source", "seq", "created_at"})


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
class ReasoningContentDeltaEvent(BaseRunEvent):
    """A piece of the model's reasoning."""

    reasoning_content: str = ""
    kind: ClassVar[str] = "ReasoningContentDelta"


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
class ToolCallStartedEvent(BaseRunEvent):
    """A tool call begins; a delegation is one too."""

    tool: ToolExecution
    kind: ClassVar[str] = "ToolCallStarted"


@dataclass(slots=True)
class ToolCallCompletedEvent(BaseRunEvent):
    """A tool call has ended; `tool.tool_call_error` tells whether its result is an error text."""

    tool: ToolExecution
    content: str | None = None  # pyright: ignore[reportIncompatibleMethodOverride]
    kind: ClassVar[str] = "ToolCallCompleted"


@dataclass(slots=True)
class ToolCallErrorEvent(BaseRunEvent):
    """A tool call failed; the model is told, and the run goes on. `ToolCallCompleted` follows."""

    tool: ToolExecution
    error: str = ""
    kind: ClassVar[str] = "ToolCallError"


@dataclass(slots=True)
class ToolCallArgumentsDeltaEvent(BaseRunEvent):
    """A piece of the arguments of a call that the model is asking for.

    Args:
        tool_call_id: The model's id of the call.
        tool_name: The tool.
        delta: The piece, of JSON text.
    """

    tool_call_id: str = ""
    tool_name: str = ""
    delta: str = ""
    kind: ClassVar[str] = "ToolCallArgumentsDelta"


@dataclass(slots=True)
class ProviderToolCallStartedEvent(BaseRunEvent):
    """The provider begins to carry out a call itself, such as a web search."""

    call: ProviderCall
    kind: ClassVar[str] = "ProviderToolCallStarted"


@dataclass(slots=True)
class ProviderToolCallCompletedEvent(BaseRunEvent):
    """The provider has carried a call out; `call.status` tells whether it has failed."""

    call: ProviderCall
    kind: ClassVar[str] = "ProviderToolCallCompleted"


@dataclass(slots=True)
class CitationAddedEvent(BaseRunEvent):
    """The model says where words of its answer come from."""

    citation: Citation
    kind: ClassVar[str] = "CitationAdded"


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
    """The reverse of `to_dict`; a structured `content` stays the plain JSON value.

    Raises:
        UsageError: `data` is no event of Kern's.
    """
    name = str(data.get("event", ""))
    kind = name.removeprefix("Team")
    if kind not in _CLASSES:
        raise UsageError(f"{name!r} is not the name of a Kern event")
    cls = _CLASSES[kind]
    source = {key: data[key] for key in _SOURCE_FIELDS if key in data}
    source["path"] = tuple(source.get("path", ()))
    given = {f.name: data[f.name] for f in fields(cls) if f.name != "source" and f.name in data}
    if issubclass(cls, ToolCallStartedEvent | ToolCallCompletedEvent | ToolCallErrorEvent):
        given["tool"] = ToolExecution.from_dict(data["tool"])
    elif issubclass(cls, ProviderToolCallStartedEvent | ProviderToolCallCompletedEvent):
        given["call"] = ProviderCall.from_dict(data["call"])
    elif issubclass(cls, CitationAddedEvent):
        given["citation"] = Citation.from_dict(data["citation"])
    elif issubclass(cls, RunPausedEvent):
        given["requirements"] = [RunRequirement.from_dict(item) for item in data.get("requirements", ())]
    numbers = {key: given.pop(key) for key in ("seq", "created_at") if key in given}
    event = cls(EventSource(**source, is_team=name != kind), **given)
    for key, value in numbers.items():
        setattr(event, key, value)
    return event
