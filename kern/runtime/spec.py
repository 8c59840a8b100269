"""What the engine is told: a frozen description of an agent or a team, and of one request to run it.

The engine knows neither `Agent` nor `Team`. A team is a spec whose members are tools.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from kern.db.base import Db
from kern.messages import Message
from kern.models.base import Model, ToolDefinition
from kern.run.output import ToolExecution

if TYPE_CHECKING:
    from kern.runtime.run import Run


@dataclass(slots=True, frozen=True)
class ToolOutcome:
    """What a tool call came to.

    Args:
        content: The text for the model.
        error: It is an error text.
        stop: The run ends with this turn.
    """

    content: str
    error: bool = False
    stop: bool = False


class RunnableTool(Protocol):
    """What the engine can call for the model: a function of the application's, or a delegation."""

    @property
    def definition(self) -> ToolDefinition:
        """The tool as the model is told of it."""

    async def run(self, run: Run, execution: ToolExecution, arguments: str) -> ToolOutcome:
        """Carry the call out for `run`; an error that is raised is told to the model as a text."""


@dataclass(slots=True, frozen=True, kw_only=True)
class RunnerSpec:
    """An agent or a team, ready to run.

    Args:
        id: The agent's or team's id.
        name: Its name, for people.
        is_team: Its events are a team's.
        model: Who answers.
        tools: What the model may call, by name.
        prompt: Makes the conversation up to the first request: system message, history, input.
        tool_choice: As in `ModelRequest`.
        tool_call_limit: How many tool calls a run may make; None for any number.
        parallel_calls: How many calls of one turn run at once.
    """

    id: str
    name: str | None
    is_team: bool
    model: Model
    tools: Mapping[str, RunnableTool]
    prompt: Callable[[Run], Awaitable[list[Message]]]
    tool_choice: str | dict[str, Any] | None = None
    tool_call_limit: int | None = None
    parallel_calls: int = 16

    @property
    def label(self) -> str:
        """How people and paths call it."""
        return self.name or self.id


@dataclass(slots=True, frozen=True, kw_only=True)
class RunInput:
    """What a run is asked.

    Args:
        value: The input as the output repeats it: text or JSON.
        messages: The same as messages, usually one of role "user".
    """

    value: Any
    messages: Sequence[Message]


@dataclass(slots=True, frozen=True, kw_only=True)
class RunRequest:
    """A run that the application asks for.

    Args:
        db: Where the session is kept.
        default_state: What a new session starts from.
        session_state: The run's own `session_state=`, or None.
        overwrite_state: Drop what is stored before that is merged in.
    """

    spec: RunnerSpec
    input: RunInput
    db: Db
    run_id: str
    session_id: str
    user_id: str | None = None
    default_state: Mapping[str, Any] = field(default_factory=dict)
    session_state: Mapping[str, Any] | None = None
    overwrite_state: bool = False
    dependencies: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    debug: bool = False
