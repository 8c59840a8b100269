"""What a run leaves behind: its output, which is also what its row in the database holds."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Generic, Literal, Self, TypeAlias

from typing_extensions import TypeVar

from kern._json import json_bytes, jsonable
from kern.messages import (
    MEDIA,
    Audio,
    Citation,
    File,
    Image,
    Media,
    Message,
    Shelf,
    TextPart,
    Video,
    check_types,
    media_by_kind,
)
from kern.run.events import Event, EventSource, event_from_dict
from kern.run.requirement import RunRequirement
from kern.run.tool_execution import ToolExecution
from kern.usage import Metrics

ContentT = TypeVar("ContentT", default=str)
"""What a completed run answers with: text, or the type of its `output_schema`."""


class RunStatus(StrEnum):
    """Where a run stands."""

    pending = "PENDING"
    running = "RUNNING"
    completed = "COMPLETED"
    paused = "PAUSED"
    cancelled = "CANCELLED"
    error = "ERROR"


_PLAIN = (
    "parent_run_id",
    "user_id",
    "content_type",
    "reasoning_content",
    "model",
    "model_provider",
    "response_id",
    "session_state",
    "error",
    "error_type",
    "refused",
    "last_turn",
)
_TEXT = (str, type(None))
_TEXTS = (
    "parent_run_id",
    "user_id",
    "last_turn",
    "reasoning_content",
    "model",
    "model_provider",
    "response_id",
)
_OUTPUT_TYPES: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("run_id", "session_id", "content_type"), str),
    **dict.fromkeys((*_TEXTS, "error", "error_type", "refused", "agent_id", "team_id"), _TEXT),
    **dict.fromkeys(("messages", "tools", "requirements", "events", "state_conflicts", *MEDIA), list),
    "metadata": dict,
    "session_state": (dict, type(None)),
}


@dataclass(slots=True, kw_only=True, repr=False)
class BaseRunOutput(Generic[ContentT]):
    """What the outputs of agents and teams have in common.

    Args:
        input: What the run was asked, as text or JSON.
        content: The answer: all text that the run showed as such, its turns joined by a blank line. Of a run
            that was cut short: the text that was shown. With an `output_schema`: the validated value; None
            unless the run was completed with one. What was shown meanwhile stands in `messages`.
        last_turn: The text of the last turn alone, where `content` has more than that, or is None because the
            model has declined to give the structured value.
        content_type: "str", or the name of the structured value's class.
        messages: This run's own messages, system message first; history is not repeated here.
        tools: Its tool calls, in call order.
        model: The model that really answered last, as its provider names it.
        response_id: The provider's id of that answer.
        metrics: What the run and all runs below it used.
        session_state: A copy of the committed state at the run's end, as JSON; so it is of a typed state.
        events: What was streamed, where `store_events` asks for it.
        state_conflicts: Where another process had changed the same value of the session state, and this run's
            was kept: {"path": ..., "base": ..., "theirs": ..., "ours": ...}, without what there was not.
        requirements: For status PAUSED: what the run waits for, its members' runs included.
        error: For status ERROR: what happened.
        refused: A check refused the run's "input" or its "output", which is left out of the history.
        shown: `print_response` has shown the answer: a notebook then displays the output as one closing line.
    """

    run_id: str
    session_id: str
    parent_run_id: str | None = None
    user_id: str | None = None
    input: Any = None
    content: ContentT | None = None
    content_type: str = "str"
    last_turn: str | None = None
    reasoning_content: str | None = None
    messages: list[Message] = field(default_factory=list)
    tools: list[ToolExecution] = field(default_factory=list)
    metrics: Metrics = field(default_factory=Metrics)
    model: str | None = None
    model_provider: str | None = None
    response_id: str | None = None
    images: list[Image] = field(default_factory=list)
    audio: list[Audio] = field(default_factory=list)
    videos: list[Video] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    session_state: dict[str, Any] | None = None
    state_conflicts: list[dict[str, Any]] = field(default_factory=list)
    status: RunStatus = RunStatus.pending
    requirements: list[RunRequirement] = field(default_factory=list)
    error: str | None = None
    error_type: str | None = None
    refused: Literal["input", "output"] | None = None
    created_at: int = field(default_factory=lambda: int(time.time()))
    shown: bool = field(default=False, compare=False)

    def __repr__(self) -> str:
        """What a person looks for first; `to_dict()` has everything."""
        told: dict[str, Any] = {"status": self.status.value, "content": self.content, "error": self.error}
        told |= {"run_id": self.run_id, "session_id": self.session_id, "user_id": self.user_id}
        told["tools"] = [call.tool_name for call in self.tools]
        shown = ", ".join(f"{name}={value!r}" for name, value in told.items() if value not in (None, []))
        return f"{type(self).__name__}({shown})"

    def get_content_as_string(self) -> str:
        """The answer as text; structured values as JSON; of a model that has declined, what it says."""
        if self.content is None:
            return self.last_turn or ""
        if isinstance(self.content, str):
            return self.content
        return json_bytes(self.content).decode()

    def _repr_markdown_(self) -> str:
        """How a notebook displays it: the answer, if it was not shown yet, and a closing line."""
        text = "" if self.shown else self.get_content_as_string()
        if text and not isinstance(self.content, str | None):
            text = f"```json\n{text}\n```"
        return "\n\n".join(part for part in (text, f"*{self.closing_line()}*") if part)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """How IPython's prompt displays it."""
        printer.text(self.closing_line() if self.shown else repr(self))

    def closing_line(self) -> str:
        """How the run has ended, how long it took and what it has used, on one line."""
        told = [] if self.status is RunStatus.completed else [self.status.value.lower()]
        if self.metrics.duration is not None:
            told.append(f"{self.metrics.duration:.1f}s")
        if self.metrics.total_tokens:
            told.append(f"{self.metrics.total_tokens:,} tokens")
        return " · ".join(told) or self.status.value.lower()

    @property
    def media(self) -> list[Media]:
        """All images, sounds, videos and files that came with the answer."""
        return [*self.images, *self.audio, *self.videos, *self.files]

    @property
    def citations(self) -> list[Citation]:
        """Where the words of this run's model come from, in order."""
        return [
            citation
            for message in self.messages
            if message.role == "assistant" and not message.from_history
            for part in message.parts
            if isinstance(part, TextPart)
            for citation in part.citations
        ]

    def add_media(self, media: Iterable[Media]) -> None:
        """Put each where its kind belongs."""
        for name, items in media_by_kind(media).items():
            getattr(self, name).extend(items)

    def to_dict(self, shelf: Shelf | None = None) -> dict[str, Any]:
        """The output as JSON, without what is empty; bytes as `Media.to_dict` writes them."""
        data: dict[str, Any] = {
            "run_id": self.run_id,
            "session_id": self.session_id,
            "status": self.status.value,
            "created_at": self.created_at,
        }
        for name in _PLAIN:
            if (value := getattr(self, name)) is not None:
                data[name] = value
        for name in ("input", "content", "metadata"):
            value = getattr(self, name)
            if type(value) is str:  # as it is nearly always
                data[name] = value
            elif value not in (None, {}):
                data[name] = jsonable(value)
        for name in ("tools", "requirements", "events"):
            if items := getattr(self, name):
                data[name] = [item.to_dict() for item in items]
        data["messages"] = said = []
        for message in self.messages:
            said.append(message.to_dict(shelf))  # noqa: PERF401 - a comprehension is a call more, in each run
        if not said:
            del data["messages"]
        if self.images or self.audio or self.videos or self.files:
            for name in MEDIA:
                if items := getattr(self, name):
                    data[name] = [item.to_dict(shelf) for item in items]
        if self.state_conflicts:
            data["state_conflicts"] = self.state_conflicts
        data["metrics"] = self.metrics.to_dict()
        return data

    def to_json(self) -> str:
        """The output as JSON text."""
        return json_bytes(self.to_dict()).decode()

    def to_row(self, shelf: Shelf, **more: Any) -> bytes:
        """The output as its row holds it: JSON, without what has rows of its own (state, members' runs).

        Args:
            shelf: Takes the bytes of pictures and other media, which the row names by their hashes.
            more: What else the row is to hold, as JSON.
        """
        data = self.to_dict(shelf)
        data.pop("session_state", None)
        data.pop("member_responses", None)
        data.update(more)
        return json_bytes(data)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The reverse of `to_dict`; a structured `content` stays the plain JSON value.

        Raises:
            ValueError: A value is not of its type.
        """
        check_types(cls.__name__, data, _OUTPUT_TYPES)
        names = {f.name for f in fields(cls)}
        values = {name: value for name, value in data.items() if name in names}
        values["status"] = RunStatus(data["status"])
        values["messages"] = [Message.from_dict(item) for item in data.get("messages", ())]
        values["tools"] = [ToolExecution.from_dict(item) for item in data.get("tools", ())]
        values["requirements"] = [RunRequirement.from_dict(item) for item in data.get("requirements", ())]
        values["events"] = [event_from_dict(item) for item in data.get("events", ())]
        values["metrics"] = Metrics.from_dict(data.get("metrics", {}))
        for name, media in MEDIA.items():
            values[name] = [media.from_dict(item) for item in data.get(name, ())]
        return cls(**values)


@dataclass(slots=True, kw_only=True, repr=False)
class RunOutput(BaseRunOutput[ContentT]):
    """What a run of an agent leaves behind."""

    agent_id: str | None = None
    agent_name: str | None = None

    def to_dict(self, shelf: Shelf | None = None) -> dict[str, Any]:
        """The output as JSON, without what is empty; bytes as `Media.to_dict` writes them."""
        data = super(RunOutput, self).to_dict(shelf)
        data["agent_id"] = self.agent_id
        if self.agent_name is not None:
            data["agent_name"] = self.agent_name
        return data


@dataclass(slots=True, kw_only=True, repr=False)
class TeamRunOutput(BaseRunOutput[ContentT]):
    """What a run of a team leaves behind.

    Args:
        member_responses: The outputs of the members' runs, in the order of the delegations.
    """

    team_id: str | None = None
    team_name: str | None = None
    member_responses: list[AnyRunOutput] = field(default_factory=list)

    def to_dict(self, shelf: Shelf | None = None) -> dict[str, Any]:
        """The output as JSON, without what is empty; bytes as `Media.to_dict` writes them."""
        data = super(TeamRunOutput, self).to_dict(shelf)
        data["team_id"] = self.team_id
        if self.team_name is not None:
            data["team_name"] = self.team_name
        if self.member_responses:
            data["member_responses"] = [member.to_dict(shelf) for member in self.member_responses]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The reverse of `to_dict`; a structured `content` stays the plain JSON value."""
        values = dict(data)
        members = [output_from_dict(member) for member in values.pop("member_responses", ())]
        output = super(TeamRunOutput, cls).from_dict(values)
        output.member_responses = members
        return output


AnyRunOutput: TypeAlias = RunOutput[Any] | TeamRunOutput[Any]
"""The output of an agent's or a team's run."""


def output_from_dict(data: Mapping[str, Any]) -> AnyRunOutput:
    """The output that `to_dict` wrote, an agent's or a team's."""
    return TeamRunOutput.from_dict(data) if "team_id" in data else RunOutput.from_dict(data)


def new_output(
    source: EventSource,
    *,
    user_id: str | None,
    input: Any,
    model: tuple[str, str],
    metadata: dict[str, Any],
    created_at: int,
) -> AnyRunOutput:
    """The output of a run that begins.

    Args:
        source: The run.
        input: What it was asked, as JSON.
        model: The id of the model that will answer, and its provider.
    """
    output: AnyRunOutput
    run_id, session_id = source.run_id, source.session_id
    if source.is_team:
        output = TeamRunOutput(run_id=run_id, session_id=session_id, created_at=created_at)
        output.team_id, output.team_name = source.team_id, source.team_name
    else:
        output = RunOutput(run_id=run_id, session_id=session_id, created_at=created_at)
        output.agent_id, output.agent_name = source.agent_id, source.agent_name
    output.parent_run_id = source.parent_run_id
    output.user_id = user_id
    output.input = input
    output.model, output.model_provider = model
    output.metadata = metadata
    output.status = RunStatus.running
    return output
