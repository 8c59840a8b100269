"""What the engine is told: a frozen description of an agent or a team, and of one request to run it.

The engine knows neither `Agent` nor `Team`. A team is a spec whose members are tools.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import pydantic
from pydantic_core import from_json

from kern._json import finite
from kern.db.base import Db
from kern.messages import Media, Message, ToolCall
from kern.models.base import Model, ResponseFormat, ToolDefinition
from kern.run.requirement import RunRequirement
from kern.run.tool_execution import ToolExecution
from kern.state.order import TurnSlot
from kern.state.spec import StateSpec
from kern.usage import UsageLimits

if TYPE_CHECKING:
    from kern.runtime.run import Run
    from kern.runtime.sink import RunSink


@dataclass(slots=True, frozen=True)
class Answer:
    """What a run comes to: text, or a structured value with the name of its class.

    Args:
        last_turn: Of a member's text: what of it is more than words on the way to a call; None for all of it.
    """

    content: Any
    content_type: str = "str"
    last_turn: str | None = None

    @property
    def is_text(self) -> bool:
        """It is words for a person."""
        return self.content_type == "str" and isinstance(self.content, str)


@dataclass(slots=True, frozen=True)
class Again:
    """The answer will not do; the model is told why, and asked again."""

    message: str


@dataclass(slots=True, frozen=True)
class ToolOutcome:
    """What a tool call came to.

    Args:
        content: The text for the model.
        error: It is an error text.
        stop: The run ends with this turn.
        pending: It waits for a person; the run pauses once the other calls of the turn are done.
        answer: The run ends with this turn, and this is its answer.
        unheard: A consumer of the answer alone has not had it yet.
        media: Pictures and other things that came with the text.
        media_told: They are mentioned in the text, and the model is not sent them.
        show: The text is part of the run's content.
        streamed: The consumer has had that text already, piece by piece.
    """

    content: str
    error: bool = False
    stop: bool = False
    pending: bool = False
    answer: Answer | None = None
    unheard: bool = False
    media: Sequence[Media] = ()
    media_told: bool = False
    show: bool = False
    streamed: bool = False


@dataclass(slots=True, frozen=True)
class CallSite:
    """One call that the model asks for, on its way to an outcome.

    Args:
        call: As the model wrote it.
        execution: The record of it, which the tool may add to.
        alone: It is the only call of its turn, and no hook can change what it comes to.
        slot: The place in its turn of a call that may touch the session state; None if no other call of the
            turn may.
    """

    call: ToolCall
    execution: ToolExecution
    alone: bool = False
    slot: TurnSlot | None = None


def arguments_of(call: ToolCall) -> dict[str, Any] | None:
    """The arguments of a call, parsed; None where they are no JSON object.

    NaN and infinities are null here, for people are shown JSON; a function that is called refuses them.
    """
    try:
        parsed = from_json(call.arguments or "{}")
    except ValueError:
        return None
    return finite(parsed) if isinstance(parsed, dict) else None


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


OnBusy = Literal["share", "queue", "reject"]
"""What a run does when its session has one already: work beside it, wait for its end, or refuse."""

OnDuplicate = Literal["raise", "return", "retry_failed"]
"""What a run does whose id is taken: refuse, come to the stored output, or try a failed one again."""

Step = Callable[["Run"], Awaitable[None]]
Review = Callable[["Run", Message], Awaitable[Answer | Again]]
SinkFactory = Callable[["Run"], "RunSink"]


@dataclass(slots=True, frozen=True)
class Retries:
    """What a run does when a model request has failed for good, its own retries included.

    What the run has done so far is kept: only the request is made again.

    Args:
        count: How often it is made again.
        delay: Seconds before that.
        exponential: Double the delay each time.
        fallbacks: Models that are asked after that, in this order.
    """

    count: int = 0
    delay: float = 1.0
    exponential: bool = False
    fallbacks: Sequence[Model] = ()

    def wait(self, attempt: int) -> float:
        """Seconds before attempt number `attempt` of one model; its first one (0) comes at once."""
        if attempt == 0:
            return 0.0
        return self.delay * (2 ** (attempt - 1) if self.exponential else 1)


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
        streams_text: The model's text is the answer, to be shown as it comes.
        structured: The answer is a value that fits a schema; texts on the way to it are none of it.
        sink: Where the model's text goes as it comes, if it is more than that.
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
    streams_text: bool = True
    structured: bool = False
    sink: SinkFactory | None = None
    tool_choice: str | dict[str, Any] | None = None
    tool_call_limit: int | None = None
    answer_tool: str | None = None
    max_requests: int | None = None
    parallel_calls: int = 16
    retries: Retries = Retries()
    stores_children: bool = False

    @property
    def label(self) -> str:
        """How people and paths call it."""
        return self.name or self.id


@dataclass(slots=True, kw_only=True)
class RunInput:
    """What a run is asked; hooks before the run may change it.

    Args:
        value: The input as the output repeats it: text or JSON.
        messages: The same as messages, usually one of role "user".
    """

    value: Any
    messages: list[Message]

    @property
    def input_content(self) -> str:
        """The text of the input; assign to replace it, in the run and in what is stored."""
        return self.messages[-1].content or ""

    @input_content.setter
    def input_content(self, text: str) -> None:
        self.messages[-1] = replace(self.messages[-1], content=text, said=None)
        self.value = text


@dataclass(slots=True, frozen=True)
class Resume:
    """The answers of people for a paused run."""

    requirements: Sequence[RunRequirement]


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
