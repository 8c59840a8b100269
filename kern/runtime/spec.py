"""What the engine is told: a frozen description of an agent or a team, and of one request to run it.

The engine knows neither `Agent` nor `Team`. A team is a spec whose members are tools.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import pydantic

from kern.db.base import Db
from kern.messages import Message
from kern.models.base import Model, ResponseFormat, ToolDefinition
from kern.runtime.outcome import Again, Answer, CallSite, ToolOutcome
from kern.runtime.request import OnBusy, OnDuplicate, Resume, Retries, RunInput
from kern.state.spec import StateSpec
from kern.usage import UsageLimits

if TYPE_CHECKING:
    from kern.runtime.run import Run
    from kern.runtime.sink import RunSink


class RunnableTool(Protocol):
    """What the engine can call for the model: a function of the application's, or a delegation."""

    @property
    def definition(self) -> ToolDefinition:
        """The tool as the model is told of it."""
        ...

    async def run(self, run: Run, site: CallSite) -> ToolOutcome:
        """Carry the call out for `run`; an error that is raised is told to the model as a text."""
        ...


class StatefulTool:
    """A tool whose functions may touch the session state: those calls of one turn do so in their order.

    Args:
        touches_state: One of its functions takes a `run_context`.
    """

    __slots__ = ("touches_state",)

    def __init__(self, *, touches_state: bool) -> None:
        self.touches_state: bool = touches_state


@runtime_checkable
class DelegatingTool(RunnableTool, Protocol):
    """A tool that has runs of other agents and teams do the work."""

    @property
    def team(self) -> Roster:
        """Who may do it."""
        ...


class Roster(Protocol):
    """Those whom a run may have do its work."""

    @property
    def specs(self) -> Mapping[str, RunnerSpec]:
        """Who they are, by id."""
        ...

    def child(self, run: Run, spec: RunnerSpec, input: RunInput, run_id: str, *, alone: bool) -> Run:
        """A member's run below `run`, heard as members are.

        Args:
            alone: As in `CallSite`.
        """
        ...


Step = Callable[["Run"], Awaitable[None]]
Review = Callable[["Run", Message], Awaitable[Answer | Again]]
SinkFactory = Callable[["Run"], "RunSink"]


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
        expand: Makes the spec that is really meant, at the beginning of a run: where members or tools are
            known only then.
        before: Steps before the prompt is made, such as hooks that check the input.
        review: Decides whether a message without tool calls is the answer; None: its text is.
        after: Steps once the answer is there, such as hooks that check it.
        response_format: The schema that the provider is to enforce.
        structured: The answer is a value that fits a schema; texts on the way to it are none of it.
        sink: Where the model's text goes as it comes, if it is not the answer as it stands.
        tool_choice: As in `ModelRequest`.
        tool_call_limit: How many tool calls a run may make; None for any number.
        answer_tool: The tool that ends the run with its answer, if there is one; it counts towards no limit.
        max_requests: How many requests to models a run may make; None for any number.
        parallel_calls: How many calls of one turn run at once.
        retries: What to do when a model request fails.
        stores_children: The run's row repeats the outputs of the runs below it.
    """

    id: str
    name: str | None
    is_team: bool
    model: Model
    tools: Mapping[str, RunnableTool]
    prompt: Callable[[Run], Awaitable[list[Message]]]
    expand: Callable[[Run], Awaitable[RunnerSpec]] | None = None
    before: Sequence[Step] = ()
    review: Review | None = None
    after: Sequence[Step] = ()
    response_format: ResponseFormat | None = None
    structured: bool = False
    sink: SinkFactory | None = None
    tool_choice: str | dict[str, Any] | None = None
    tool_call_limit: int | None = None
    answer_tool: str | None = None
    max_requests: int | None = None
    parallel_calls: int = 16
    retries: Retries = field(default_factory=Retries)
    stores_children: bool = False

    @property
    def label(self) -> str:
        """How people and paths call it."""
        return self.name or self.id


@dataclass(slots=True, frozen=True, kw_only=True)
class RunRequest:
    """A run that the application asks for.

    Args:
        db: Where the session is kept.
        state: What is declared of the session's state.
        session_state: The run's own `session_state=`, or None.
        overwrite_state: Drop what is stored before that is merged in.
        on_busy: What to do when the session has a run already.
        on_duplicate: What to do when a run of that id is stored, or goes on; None for an id that was made for
            this run, which is not looked up.
        timeout: Seconds that the run may take, from now on.
        usage_limits: What the run and all below it may use.
        resume: Go on with a paused run instead of beginning one.
        skip_events: Keep the run's events with it, but for those of these names; None: keep none.
        debug: How much is logged of the run: the `debug_level`, or 0.
    """

    spec: RunnerSpec
    input: RunInput
    db: Db
    run_id: str
    session_id: str
    user_id: str | None = None
    state: StateSpec = field(default_factory=StateSpec)
    session_state: Mapping[str, Any] | pydantic.BaseModel | None = None
    overwrite_state: bool = False
    on_busy: OnBusy = "share"
    on_duplicate: OnDuplicate | None = None
    dependencies: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    usage_limits: UsageLimits | None = None
    resume: Resume | None = None
    skip_events: Collection[str] | None = None
    debug: int = 0
