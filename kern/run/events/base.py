"""What all events share: where they come from, and how they are written as JSON."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import pydantic

from kern._json import encodable, finite, json_bytes, jsonable, whole


@dataclass(slots=True, frozen=True)
class EventSource:
    """The run that an event comes from.

    Args:
        run_id: The run.
        session_id: Its session.
        parent_run_id: The run that delegated to it; None for a run that the application started.
        agent_id: The agent that runs; None for a team's leader.
        agent_name: Its name.
        team_id: The team that runs; None for an agent.
        team_name: Its name.
        is_team: Whether a team's leader runs.
        nested_depth: 0 for the run that the application started, 1 for its members' runs, and so on.
        path: The names from the top-level run down to this one, such as ("Shopping Team", "Buyer").
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


SOURCE_FIELDS = tuple(f.name for f in fields(EventSource))


@dataclass(slots=True)
class BaseRunEvent:
    """What every event has.

    Args:
        source: The run that it comes from.
        seq: A number that rises strictly within a top-level run.
        created_at: Seconds since the epoch.
    """

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
        """The text of the event; "" for events without one, so that a loop can print it for every event."""
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
        """0 for the run that the application started, 1 for its members' runs, and so on."""
        return self.source.nested_depth

    def to_dict(self) -> dict[str, Any]:
        """The event as JSON. Fields that are None are left out."""
        data: dict[str, Any] = {"event": self.event, "seq": self.seq, "created_at": self.created_at}
        for name in SOURCE_FIELDS:
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
    if isinstance(value, str):
        return whole(value)
    if hasattr(value, "to_dict"):
        return encodable(value.to_dict())
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return encodable(jsonable(value) if isinstance(value, pydantic.BaseModel) else finite(value))


_BASE_FIELDS = frozenset({"source", "seq", "created_at"})
