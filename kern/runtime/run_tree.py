"""A run: the spec of an agent or a team that can run, and the tree of runs that one request grows into.

The engine knows neither `Agent` nor `Team`. A team is a spec whose members are tools.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, TypeVar, runtime_checkable

from kern._log import named
from kern.budget import UsageLedger
from kern.errors import ModelBehaviorError
from kern.messages import Message
from kern.models.base import Model, ResponseFormat, ToolDefinition
from kern.run.events import EventSource
from kern.run.output import AnyRunOutput, RunStatus, new_output
from kern.run.requirement import RunRequirement
from kern.runtime.audience import Audience
from kern.runtime.call_ids import CallIds
from kern.runtime.deadline import Deadline
from kern.runtime.debug import debug
from kern.runtime.identity import Named
from kern.runtime.out import Answer, Out, RetryAnswer
from kern.runtime.outcome import CallSite, ToolOutcome
from kern.runtime.progress import Progress
from kern.runtime.request import Retries, RunInput, RunTerms
from kern.runtime.run_ends import CancelToken, StartedRuns
from kern.runtime.session import LiveSession
from kern.runtime.sink import RunSink
from kern.runtime.steps import Steps
from kern.state.codec import decode
from kern.state.shared_state import SharedState
from kern.tools import ServerTool

log: Final = named("kern")

T = TypeVar("T")

MAX_RETRIES_OF_ONE_KIND = 3
"""How often, in one run, each tool and the check of the answer may have the model try again."""


class RunnableTool(Protocol):
    """What the engine can call for the model: an application's function, or a delegation."""

    @property
    def definition(self) -> ToolDefinition:
        """The tool as the model is told of it."""
        ...

    async def run(self, run: Run, site: CallSite) -> ToolOutcome:
        """Carry the call out for `run`; an error that is raised is told to the model as a text."""
        ...


@runtime_checkable
class DelegatingTool(RunnableTool, Protocol):
    """A tool that has runs of other agents and teams do the work."""

    @property
    def drives_runs(self) -> bool:
        """A call is made of their runs; False for a tool that only prepares them."""
        ...

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

    async def drive_again(self, child: Run) -> None:
        """Drive a member's run whose outcome for `run` is on record, by what is on record of itself."""
        ...


class GivenValues(Protocol):
    """See `kern.runtime.prompt_step.Given`."""

    async def value(
        self,
        name: str,
        make: Callable[[], Awaitable[T]],
        dump: Callable[[T], Any] = ...,
        load: Callable[[Any], T] | None = ...,
    ) -> T:
        """The value of that name, made now or on record."""
        ...

    def state(self) -> dict[str, Any]:
        """The session state, as the prompt shows it."""
        ...


Step = Callable[["Run"], Awaitable[None]]
Review = Callable[["Run", Message], Awaitable[Answer | RetryAnswer]]
SinkFactory = Callable[["Run"], "RunSink"]


@dataclass(slots=True, frozen=True, kw_only=True)
class RunnerSpec(Named):
    """An agent or a team, ready to run.

    Args:
        model: Who answers.
        tools: What the model may call, by name.
        server_tools: What the model's provider runs for it.
        prompt: Makes the conversation up to the first request: system message, history, input.
        expand: Makes the spec that is really meant, at the beginning of a run: where members or tools are
            known only then.
        before: Steps before the prompt is made, such as hooks that check the input.
        review: Decides whether a message without tool calls is the answer; None: its text is.
        after: Steps once the answer is there, such as hooks that check it.
        response_format: The schema that the provider is to enforce.
        structured: The answer is a value that fits a schema; texts on the way to it are none of it.
        typed: Makes that value of its JSON, as a row holds it.
        sink: Where the model's text goes as it comes, if it is not the answer as it stands.
        tool_choice: As in `ModelRequest`.
        tool_call_limit: How many tool calls a run may make; None for any number.
        answer_tool: The tool that ends the run with its answer, if there is one; it counts towards no limit.
        max_requests: How many requests to models a run may make; None for any number.
        parallel_calls: How many calls of one turn run at once.
        retries: What to do when a model request fails.
        stores_children: The run's row repeats the outputs of the runs below it.
    """

    model: Model
    tools: Mapping[str, RunnableTool]
    prompt: Callable[[Run], Awaitable[list[Message]]]
    server_tools: Sequence[ServerTool] = ()
    expand: Callable[[Run], Awaitable[RunnerSpec]] | None = None
    before: Sequence[Step] = ()
    review: Review | None = None
    after: Sequence[Step] = ()
    response_format: ResponseFormat | None = None
    structured: bool = False
    typed: Callable[[Any], Answer] | None = None
    sink: SinkFactory | None = None
    tool_choice: str | dict[str, Any] | None = None
    tool_call_limit: int | None = None
    answer_tool: str | None = None
    max_requests: int | None = None
    parallel_calls: int = 16
    retries: Retries = field(default_factory=Retries)
    stores_children: bool = False


@dataclass(slots=True, frozen=True, kw_only=True)
class RunRequest(RunTerms):
    """A run that the application asks for."""

    spec: RunnerSpec
    input: RunInput


class RunTree:
    """What all runs of one request share.

    Args:
        request: What the application asked for.
        session: The session, in use for as long as the tree lives.
        shared_state: Where calls take turns on its state.
        audience: Who hears the runs.
        cancel_token: Whether the top-level run is stopped.
    """

    def __init__(
        self,
        request: RunTerms,
        session: LiveSession,
        shared_state: SharedState,
        audience: Audience,
        cancel_token: CancelToken,
    ) -> None:
        self.request = request
        self.cancel_token = cancel_token
        self.session = session
        self.shared_state = shared_state
        self.audience = audience
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        limits = request.usage_limits
        self.ledger: UsageLedger | None = None if limits is None else UsageLedger(limits)
        """What counts the use against limits; None without any."""
        self.runs: list[Run] = []
        """Every run of the tree, in the order of their starts; the first is the top-level one."""
        self.steps: Steps | None = None
        """What keeps the steps of the runs, and has those on record; None without a journal."""
        self.enclosed: list[RunTree] = []
        """Trees of nested runs that a call encloses; their rows are written with this tree's."""

    @property
    def top(self) -> Run:
        """The run that the application asked for."""
        return self.runs[0]

    def state(self) -> dict[str, Any]:
        """A copy of the last committed state."""
        state: dict[str, Any] = decode(self.shared_state.text)
        return state


class Run:
    """One agent's or team's run.

    Args:
        tree: What it shares with the runs above and below it.
        spec: Who runs.
        input: What it is asked.
        run_id: Its id.
        parent: The run that delegated to this one.
        heard: The events of this run are part of those of its parent.
        speaks_for_parent: The answer of this run is the answer of its parent.
    """

    source: EventSource
    output: AnyRunOutput
    started_runs: StartedRuns | None = None
    """The runs that its tools and hooks have started; None until it is driven."""
    earlier: AnyRunOutput | None = None
    """What an attempt under the same id has come to, which failed."""
    deadline: Deadline | None = None
    """When the run has to have ended; None for a member's."""
    turn_began: float | None = None
    """When the calls of the turn began, for a run with a journal."""
    given: GivenValues | None = None
    """What its prompt is made of, while it is made, for a run with a journal."""

    def __init__(
        self,
        tree: RunTree,
        spec: RunnerSpec,
        input: RunInput,
        run_id: str,
        parent: Run | None = None,
        *,
        heard: bool = True,
        speaks_for_parent: bool = False,
    ) -> None:
        self.tree = tree
        self.cancel_token: CancelToken = tree.cancel_token if parent is None else CancelToken(tree.loop)
        """Whether `cancel_run` or the run's own end came first."""
        self.spec: RunnerSpec = spec
        self.input = input
        self.parent = parent
        self.messages: list[Message] = []
        self.children: list[Run] = []
        self.progress: Progress = Progress()
        """What it has used, and what has become of the calls of its last turn."""
        self.generation = 0
        """How many times the run was continued after a pause."""
        self.requirements: list[RunRequirement] = []
        """What calls of this run wait for."""
        self.paused: dict[str, Run] = {}
        """Members' runs that go on after a pause, by run id."""
        self.started: float = time.perf_counter()
        self.last_yield: float = self.started
        """When the run has last let others have a turn of the event loop."""
        self._call_ids: CallIds | None = None
        self.model_refused = False
        """The model's last answer is a refusal."""
        self.model_paused = False
        """The provider wants to be asked again, to go on where its last answer stopped."""
        self.answered = False
        """Its output has the answer."""
        self.turn_slots: asyncio.Semaphore = asyncio.Semaphore(spec.parallel_calls)
        self.member_slots: asyncio.Semaphore = asyncio.Semaphore(spec.parallel_calls)
        self.source = _source(tree, spec, run_id, None if parent is None else parent.source)
        self.out: Out = Out(
            tree.audience,
            self.source,
            None if parent is None else parent.out,
            heard=heard,
            speaks_for_above=speaks_for_parent,
            of_value=spec.structured,
        )
        """What it says to those who hear it."""
        self.run_id: str = run_id
        self.output = new_output(
            self.source,
            user_id=tree.request.user_id,
            input=input.value,
            model=(spec.model.id, spec.model.provider),
            metadata=tree.request.metadata,
            created_at=int(self.now()),
        )
        tree.runs.append(self)

    @property
    def call_ids(self) -> CallIds:
        """The ids of all tool calls in the prompt."""
        if self._call_ids is None:
            self._call_ids = CallIds()
        return self._call_ids

    async def expand(self) -> None:
        """Make the spec whole, where a part of it is known only when the run begins."""
        if self.spec.expand is not None:
            expanded = await self.spec.expand(self)
            self.spec = replace(expanded, id=self.spec.id)  # which a member may have from its team
            self.out.of_value = self.spec.structured

    def abandon(self) -> None:
        """A run that was paused, and that does not go on, since the one above it has ended."""
        self.output.status = RunStatus.cancelled
        self.output.requirements = []
        for child in [
            *self.paused.values(),
            *(c for c in self.children if c.output.status is RunStatus.paused),
        ]:
            child.abandon()

    @property
    def calls_used_up(self) -> bool:
        """`tool_call_limit` allows no further tool call."""
        limit = self.spec.tool_call_limit
        return limit is not None and self.progress.tool_calls >= limit

    @property
    def out_of_time(self) -> bool:
        """A cancellation that has just arrived in the run's task is that of its deadline, and no other."""
        late = self.deadline is not None and self.deadline.expired
        return late and not self.cancel_token.stopped and self.cancel_token.cancelled_once

    def send_back(self, who: str, complaint: str) -> None:
        """Count that `who` has the model try again.

        Raises:
            ModelBehaviorError: It has been tried often enough.
        """
        sent_back = self.progress.sent_back
        sent_back[who] += 1
        if sent_back[who] > MAX_RETRIES_OF_ONE_KIND:
            raise ModelBehaviorError(
                f"{self.spec.title}: {who} has asked the model to try again {MAX_RETRIES_OF_ONE_KIND} times, "
                f"without success: {complaint}"
            )

    def child(
        self,
        spec: RunnerSpec,
        input: RunInput,
        run_id: str,
        *,
        heard: bool = True,
        speaks_for_parent: bool = False,
    ) -> Run:
        """A run below this one, for a delegation; see `Run`."""
        run = Run(self.tree, spec, input, run_id, self, heard=heard, speaks_for_parent=speaks_for_parent)
        self.children.append(run)
        return run

    def now(self) -> float:
        """Seconds since the epoch: with a journal those of the run's latest step, which a replay has too."""
        steps = self.tree.steps
        return time.time() if steps is None else steps.now(self)

    def debug(self, message: str, *args: object, level: int = 1) -> None:
        """Log for `debug_mode`, from that `debug_level` on, under the run's path."""
        if self.tree.request.debug >= level:
            debug(f"[%s] {message}", " > ".join(self.source.path), *args)


def _source(tree: RunTree, runner: Named, run_id: str, above: EventSource | None) -> EventSource:
    """What the events of a run say of it.

    Args:
        runner: Who runs.
        above: The source of the run that delegated to it.
    """
    return EventSource(
        run_id=run_id,
        session_id=tree.request.session_id,
        parent_run_id=None if above is None else above.run_id,
        agent_id=None if runner.is_team else runner.id,
        agent_name=None if runner.is_team else runner.name,
        team_id=runner.id if runner.is_team else None,
        team_name=runner.name if runner.is_team else None,
        is_team=runner.is_team,
        nested_depth=0 if above is None else above.nested_depth + 1,
        path=(*(() if above is None else above.path), runner.name or runner.id),
    )
