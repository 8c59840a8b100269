"""The output of a run, which is also stored as the run's row in the database."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeAlias

from typing_extensions import TypeVar

from kern._error_text import counted
from kern._habits import OUTPUT_ATTRIBUTES, explain_attribute
from kern._json import encodable, json_bytes, jsonable
from kern.messages import (
    MEDIA,
    Audio,
    Citation,
    File,
    Image,
    Media,
    Message,
    Shelf,
    Video,
    as_stored,
    check_types,
    media_by_kind,
    placed_citations,
)
from kern.run.events import Event, EventSource, event_from_dict
from kern.run.requirement import RunRequirement
from kern.run.tool_execution import ToolExecution
from kern.usage import Metrics

ContentT = TypeVar("ContentT", default=str)
"""The type of a completed run's answer: str, or the type of its `output_schema`."""


class RunStatus(StrEnum):
    """The state of a run."""

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
        run_id: The run.
        session_id: Its session.
        parent_run_id: The run that delegated to this one; None for a run that the application started.
        user_id: The owner of the session; None if it has none.
        input: The input of the run, as text or JSON.
        content: The answer: all text that the run showed as its answer; the texts of several turns are joined
            by a blank line. If the run was cut short, the text until then. With an `output_schema`, the
            validated value, or None unless the run was completed with one; `messages` then has the texts.
        content_type: "str", or the name of the class of a structured value.
        last_turn: The text of the last turn alone, if `content` has more than that, or is None because the
            model declined to give the structured value.
        reasoning_content: The model's reasoning, if the provider shows it.
        messages: The messages of this run, system message first. History is not repeated here.
        tools: The tool calls, in call order.
        metrics: The usage of the run together with all runs below it.
        model: The model that gave the last answer, as its provider names it.
        model_provider: Its provider.
        response_id: The provider's id of that answer.
        images, audio, videos, files: Media of the answer and of tools.
        events: The events of the run, if `store_events` is set.
        metadata: The metadata of the agent, team and run.
        session_state: A copy of the committed state at the end of the run, as JSON, also for a typed state;
            None in an output that was read from the database, which stores the state with the session.
        state_conflicts: The values of the session state that another process changed as well; this run's
            value was kept. {"path": ..., "base": ..., "theirs": ..., "ours": ...}, without missing values.
        status: The state of the run.
        requirements: For status PAUSED: what the run waits for, including members' runs.
        error: For status ERROR: the error's text.
        error_type: For status ERROR: the name of the error's class.
        refused: Whether a check refused the "input" or the "output". It is then left out of the history.
        created_at: Seconds since the epoch.
        shown: `print_response` has shown the answer, so a notebook displays the output as one closing line.
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

    if not TYPE_CHECKING:  # type checkers know the attributes

        def __getattr__(self, name: str) -> Any:
            return explain_attribute(self, name, OUTPUT_ATTRIBUTES)

    def __repr__(self) -> str:
        """The fields that people look for first; `to_dict()` has all of them."""
        values: dict[str, Any] = {"status": self.status.value, "content": self.content, "error": self.error}
        values |= {"run_id": self.run_id, "session_id": self.session_id, "user_id": self.user_id}
        values["tools"] = [call.tool_name for call in self.tools]
        shown = ", ".join(f"{name}={value!r}" for name, value in values.items() if value not in (None, []))
        return f"{type(self).__name__}({shown})"

    def get_content_as_string(self) -> str:
        """The answer as text, a structured value as JSON. If the model declined to give one, its text."""
        if self.content is None:
            return self.last_turn or ""
        if isinstance(self.content, str):
            return self.content
        return json_bytes(self.content).decode()

    def _repr_markdown_(self) -> str:
        """What a notebook displays: the answer and a closing line; if both were shown, which run it was."""
        if self.shown:
            return f"*{self._which_run()}*"
        text = self.get_content_as_string()
        if text and not isinstance(self.content, str | None):
            text = f"```json\n{json_bytes(self.content, indent=2).decode()}\n```"
        return "\n\n".join(part for part in (text, f"*{self.closing_line()}*") if part)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What the prompt of IPython displays."""
        printer.text(self._which_run() if self.shown else repr(self))

    def _which_run(self) -> str:
        return f"{self.status.value.lower()} · run {self.run_id} · session {self.session_id}"

    def closing_line(self) -> str:
        """One line: the status (unless completed), the duration, the tokens, the cost where it is known."""
        parts = [] if self.status is RunStatus.completed else [self.status.value.lower()]
        if self.metrics.duration is not None:
            parts.append(f"{self.metrics.duration:.1f}s")
        if self.metrics.total_tokens:
            parts.append(counted(self.metrics.total_tokens, "tokens"))
        if self.metrics.cost:
            parts.append(_dollars(self.metrics.cost))
        return " · ".join(parts) or self.status.value.lower()

    @property
    def media(self) -> list[Media]:
        """All images, audio, videos and files of the output."""
        return [*self.images, *self.audio, *self.videos, *self.files]

    @property
    def citations(self) -> list[Citation]:
        """The citations in the model's texts of this run, in order, with their places in `content`."""
        said = [each for each in self.messages if each.role == "assistant" and not each.from_history]
        content = self.content if isinstance(self.content, str) else ""
        return placed_citations(content, [(message.content, message.parts) for message in said])

    def add_media(self, media: Iterable[Media]) -> None:
        """Add media to `images`, `audio`, `videos` and `files`, by their kinds."""
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
                kind = _OUTPUT_TYPES[name]
                data[name] = value if isinstance(value, kind) else as_stored("RunOutput", name, value, kind)
        for name in ("input", "content", "metadata"):
            value = getattr(self, name)
            if type(value) is str:  # the usual case
                data[name] = value
            elif value not in (None, {}):
                data[name] = jsonable(value)
        for name in ("tools", "requirements", "events"):
            if items := getattr(self, name):
                data[name] = [item.to_dict() for item in items]
        data["messages"] = said = []
        for message in self.messages:
            said.append(message.to_dict(shelf))  # noqa: PERF401 - a comprehension costs a call more per run
        if not said:
            del data["messages"]
        if self.images or self.audio or self.videos or self.files:
            for name in MEDIA:
                if items := getattr(self, name):
                    data[name] = [item.to_dict(shelf) for item in items]
        if self.state_conflicts:
            data["state_conflicts"] = self.state_conflicts
        data["metrics"] = self.metrics.to_dict()
        return encodable(data) if shelf is None else data  # a row is encoded later

    def to_json(self) -> str:
        """The output as JSON text."""
        return json_bytes(self.to_dict()).decode()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Read an output back from what `to_dict` wrote. A structured `content` stays the plain JSON value.

        Raises:
            ValueError: A value has the wrong type.
            KeyError: A required value is missing.
            UsageError: An event cannot be read.
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
    """The output of an agent's run.

    Args:
        agent_id: The agent.
        agent_name: Its name.
    """

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
    """The output of a team's run.

    Args:
        team_id: The team.
        team_name: Its name.
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
        """Read an output back from what `to_dict` wrote; see `BaseRunOutput.from_dict`."""
        values = dict(data)
        members = [output_from_dict(member) for member in values.pop("member_responses", ())]
        output = super(TeamRunOutput, cls).from_dict(values)
        output.member_responses = members
        return output


AnyRunOutput: TypeAlias = RunOutput[Any] | TeamRunOutput[Any]
"""The output of an agent's or a team's run."""


def _dollars(cost: float) -> str:
    if cost < 0.0001:
        return "under $0.0001"
    return f"${cost:.4f}" if cost < 1 else f"${cost:,.2f}"


def output_from_dict(data: Mapping[str, Any]) -> AnyRunOutput:
    """Read the output of an agent's or a team's run back from what `to_dict` wrote."""
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
