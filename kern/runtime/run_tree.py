"""A run, the spec that it follows, and the tree of runs of one request.

The engine knows neither `Agent` nor `Team`: it runs specs. A team is a spec whose members are tools.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Protocol, runtime_checkable

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
from kern.runtime.steps import GivenValues, Steps
from kern.state.codec import decode
from kern.state.shared_state import SharedState
from kern.tools import ServerTool

log: Final = named("kern")

MAX_RETRIES_OF_ONE_KIND = 3
"""How many times each tool, and the check of the answer, may ask the model to try again in one run."""


class RunnableTool(Protocol):
    """A tool that the engine can run: a function of the application, or a delegation."""

    @property
    def definition(self) -> ToolDefinition:
        """The definition that the model gets."""
        ...

    async def run(self, run: Run, site: CallSite) -> ToolOutcome:
        """Carry out the call for `run`. The model gets an error that is raised as a text."""
        ...


@runtime_checkable
class DelegatingTool(RunnableTool, Protocol):
    """A tool that delegates the work to runs of other agents and teams."""

    @property
    def drives_runs(self) -> bool:
        """Whether a call drives their runs; False for a tool that only prepares them."""
        ...

    @property
    def team(self) -> Roster:
        """The members that may do the work."""
        ...


class Roster(Protocol):
    """The members to which a run may delegate work."""

    @property
    def specs(self) -> Mapping[str, RunnerSpec]:
        """Their specs by id."""
        ...

    def child(self, run: Run, spec: RunnerSpec, input: RunInput, run_id: str, *, alone: bool) -> Run:
        """Make a member's run below `run`.

        Args:
            alone: As in `CallSite`.
        """
        ...

    async def drive_again(self, child: Run) -> None:
        """Drive a member's run again from its recorded steps; its outcome for `run` is recorded, too."""
        ...


Step = Callable[["Run"], Awaitable[None]]
Review = Callable[["Run", Message], Awaitable[Answer | RetryAnswer]]
SinkFactory = Callable[["Run"], "RunSink"]


@dataclass(slots=True, frozen=True, kw_only=True)
class RunnerSpec(Named):
    """An agent or a team, ready to run.

    Args:
        model: The model that answers.
        tools: The tools that the model may call, by name.
        server_tools: The tools that the model's provider runs.
        prompt: Makes the messages of the first request: system message, history, input.
        expand: Makes the final spec when a run begins, if members or tools are known only then.
        before: Steps before the prompt is made, such as hooks that check the input.
        review: Decides whether a message without tool calls is the answer. None: its text is the answer.
        after: Steps after the answer, such as hooks that check it.
        response_format: The schema that the provider enforces.
        structured: The answer is a value that fits a schema; texts are not a part of it.
        typed: Makes that value from its JSON in a stored row, and from the messages of the run.
        sink: Makes the receiver of the model's deltas; None: the model's text is the answer.
        tool_choice: As in `ModelRequest`.
        tool_call_limit: The maximum number of tool calls in a run; None: no limit.
        answer_tool: The tool that ends the run with its answer, if any; it does not count as a tool call.
        max_requests: The maximum number of model requests in a run; None: no limit.
        parallel_calls: How many calls of one turn may run at the same time.
        retries: What to do when a model request fails.
        stores_children: The row of the run includes the outputs of the runs below it.
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
    typed: Callable[[Any, Sequence[Message]], Answer] | None = None
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
    """The request for a run: its terms, the spec to follow, and the input."""

    spec: RunnerSpec
    input: RunInput


class RunTree:
    """What all runs of one request share.

    Args:
        request: The request of the application.
        session: The session, which stays in use until the tree ends.
        shared_state: The session state, on which calls take turns.
        audience: Receives the events of the runs.
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
        """Counts the usage towards the limits; None without limits."""
        self.runs: list[Run] = []
        """All runs of the tree, in the order of their starts; the first is the top-level run."""
        self.steps: Steps | None = None
        """The recorded steps of the runs, and the writer of new ones; None without a journal."""
        self.enclosed: list[RunTree] = []
        """The trees of runs inside a tool call's transaction; their rows are written with this tree's."""
        self.committed = False
        """Whether the rows of the runs are in the database."""

    @property
    def top(self) -> Run:
        """The run that the application asked for."""
        return self.runs[0]

    def state(self) -> dict[str, Any]:
        """Return a copy of the last committed state."""
        state: dict[str, Any] = decode(self.shared_state.text)
        return state


class Run:
    """One run of an agent or a team.

    Args:
        tree: The tree that the run belongs to.
        spec: The agent or team.
        input: The input.
        run_id: The id of the run.
        parent: The run that delegated to this one.
        emits: The events of this run are emitted together with those of its parent.
        speaks_for_parent: The answer of this run is the answer of its parent.
    """

    source: EventSource
    output: AnyRunOutput
    started_runs: StartedRuns | None = None
    """The runs that its tools and hooks started; None before the run is driven."""
    earlier: AnyRunOutput | None = None
    """The output of a failed attempt with the same run id."""
    deadline: Deadline | None = None
    """The timeout of the run; None for a team member's run."""
    turn_began: float | None = None
    """When the calls of the turn began, in seconds since the epoch, for a run with a journal."""
    given: GivenValues | None = None
    """The recorded values for the prompt, while it is made, for a run with a journal."""

    def __init__(
        self,
        tree: RunTree,
        spec: RunnerSpec,
        input: RunInput,
        run_id: str,
        parent: Run | None = None,
        *,
        emits: bool = True,
        speaks_for_parent: bool = False,
    ) -> None:
        self.tree = tree
        self.cancel_token: CancelToken = tree.cancel_token if parent is None else CancelToken(tree.loop)
        """Decides which came first: `cancel_run`, or the end of the run."""
        self.spec: RunnerSpec = spec
        self.input = input
        self.parent = parent
        self.messages: list[Message] = []
        self.children: list[Run] = []
        self.progress: Progress = Progress()
        """The usage so far, and the outcomes of the calls of the last turn."""
        self.generation = 0
        """How many times the run was continued after a pause."""
        self.requirements: list[RunRequirement] = []
        """What the calls of this run wait for."""
        self.paused: dict[str, Run] = {}
        """The paused runs of team members, by run id."""
        self.started: float = time.perf_counter()
        self.last_yield: float = self.started
        """When the run last yielded to the event loop, by `time.perf_counter`."""
        self._call_ids: CallIds | None = None
        self.model_refused = False
        """The last answer of the model is a refusal."""
        self.model_paused = False
        """The provider interrupted its last answer, and continues it at the next request."""
        self.answered = False
        """The output has the answer."""
        self.turn_slots: asyncio.Semaphore = asyncio.Semaphore(spec.parallel_calls)
        self.member_slots: asyncio.Semaphore = asyncio.Semaphore(spec.parallel_calls)
        self.source = _source(tree, spec, run_id, None if parent is None else parent.source)
        self.out: Out = Out(
            tree.audience,
            self.source,
            None if parent is None else parent.out,
            emits=emits,
            speaks_for_above=speaks_for_parent,
            of_value=spec.structured,
        )
        """The answer and the events of the run."""
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
        """Complete the spec, if a part of it is known only when the run begins."""
        if self.spec.expand is not None:
            expanded = await self.spec.expand(self)
            self.spec = replace(expanded, id=self.spec.id)  # a team may have given its member another id
            self.out.of_value = self.spec.structured

    def abandon(self) -> None:
        """Mark a paused run as cancelled: it is not continued, since the run above it has ended."""
        self.output.status = RunStatus.cancelled
        self.output.requirements = []
        for child in [
            *self.paused.values(),
            *(c for c in self.children if c.output.status is RunStatus.paused),
        ]:
            child.abandon()

    @property
    def calls_used_up(self) -> bool:
        """Whether `tool_call_limit` is reached."""
        limit = self.spec.tool_call_limit
        return limit is not None and self.progress.tool_calls >= limit

    @property
    def out_of_time(self) -> bool:
        """Whether a cancellation that just arrived in the run's task came from its deadline alone."""
        late = self.deadline is not None and self.deadline.expired
        return late and not self.cancel_token.stopped and self.cancel_token.cancelled_once

    @property
    def consumer_left(self) -> bool:
        """Whether a cancellation that just arrived in the run's task came from its consumer alone, who has
        closed the stream.
        """
        audience, token = self.tree.audience, self.cancel_token
        left = audience.follows and audience.consumer_left
        return left and not token.stopped and token.cancelled_once

    def send_back(self, who: str, complaint: str) -> None:
        """Count that `who`, a tool or the check of the answer, asks the model to try again.

        Raises:
            ModelBehaviorError: It has done so `MAX_RETRIES_OF_ONE_KIND` times before.
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
        emits: bool = True,
        speaks_for_parent: bool = False,
    ) -> Run:
        """Make a run below this one, for a delegation; see `Run`."""
        run = Run(self.tree, spec, input, run_id, self, emits=emits, speaks_for_parent=speaks_for_parent)
        self.children.append(run)
        return run

    def now(self) -> float:
        """Return seconds since the epoch; with a journal, the time of the latest step, as in a replay."""
        steps = self.tree.steps
        return time.time() if steps is None else steps.now(self)

    def debug(self, message: str, *args: object, level: int = 1) -> None:
        """Log a message, with the run's path, if `debug_level` is at least `level`."""
        if self.tree.request.debug >= level:
            debug(f"[%s] {message}", " > ".join(self.source.path), *args)


def _source(tree: RunTree, runner: Named, run_id: str, above: EventSource | None) -> EventSource:
    """Make the source of the events of a run.

    Args:
        runner: The agent or team.
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
