"""A run in progress, and the tree of runs that one request of the application's grows into."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any, Final

from kern._log import named
from kern.errors import ModelBehaviorError
from kern.messages import Message
from kern.run.context import RunContext
from kern.run.events import (
    EventSource,
    SessionStateChangedEvent,
)
from kern.run.output import RunOutput, RunStatus, TeamRunOutput
from kern.run.requirement import RunRequirement
from kern.runtime.audience import Audience, Out
from kern.runtime.call_ids import CallIds
from kern.runtime.deadline import Deadline
from kern.runtime.debug import debug
from kern.runtime.fate import Fate
from kern.runtime.identity import new_output, source_of
from kern.runtime.progress import Progress
from kern.runtime.request import RunInput
from kern.runtime.session import LiveSession
from kern.runtime.spec import RunnerSpec, RunRequest
from kern.runtime.started import Started
from kern.state.block import Handle
from kern.state.call import CallState
from kern.state.codec import decode
from kern.state.order import TurnSlot
from kern.state.patch import wire
from kern.state.scope import Change, Scope, Writer
from kern.usage import UsageLedger

log: Final = named("kern")

MOST_TRIES_AGAIN = 3
"""How often, in one run, each tool and the check of the answer may have the model try again."""


class Tree:
    """What all runs of one request share.

    Args:
        request: What the application asked for.
        session: The session, in use for as long as the tree lives.
        scope: Where calls take turns on its state.
        audience: Who hears the runs.
        fate: Whether the top-level run is stopped.
    """

    def __init__(
        self,
        request: RunRequest,
        session: LiveSession,
        scope: Scope,
        audience: Audience,
        fate: Fate,
    ) -> None:
        self.request = request
        self.fate = fate
        self.session = session
        self.scope = scope
        self.audience = audience
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.ledger: UsageLedger = UsageLedger(request.usage_limits)
        self.runs: list[Run] = []
        """Every run of the tree, in the order of their starts; the first is the top-level one."""
        self.enclosed: list[Tree] = []
        """Trees of nested runs that a call encloses; their rows are written with this tree's."""

    @property
    def top(self) -> Run:
        """The run that the application asked for."""
        return self.runs[0]

    def state(self) -> dict[str, Any]:
        """A copy of the last committed state."""
        state: dict[str, Any] = decode(self.scope.text)
        return state

    def state_changed(self, change: Change) -> None:
        """Tell the consumer of a commit, whichever run of the session made it."""
        writer = change.writer
        self.audience.put(
            SessionStateChangedEvent(
                self.top.source,
                patch=wire(change.patch),
                revision=change.revision,
                agent_path=list(writer.agent_path),
                tool=writer.tool,
                tool_call_id=writer.tool_call_id,
                writer_run_id=writer.run_id,
            )
        )


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
    output: RunOutput | TeamRunOutput
    starts: Started | None = None
    """The runs that its tools and hooks have started; None until it is driven."""
    earlier: RunOutput | TeamRunOutput | None = None
    """What an attempt under the same id has come to, which failed."""
    deadline: Deadline | None = None
    """When the run has to have ended; None for a member's."""

    def __init__(
        self,
        tree: Tree,
        spec: RunnerSpec,
        input: RunInput,
        run_id: str,
        parent: Run | None = None,
        *,
        heard: bool = True,
        speaks_for_parent: bool = False,
    ) -> None:
        self.tree = tree
        self.fate: Fate = tree.fate if parent is None else Fate(tree.loop)
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
        self.kept_since: float = self.started
        """When the run has last let others have a turn of the event loop."""
        self.call_ids: CallIds = CallIds()
        """The ids of all tool calls in the prompt."""
        self.declined = False
        """The model's last answer is a refusal."""
        self.answered = False
        """Its output has the answer."""
        self.turn_slots: asyncio.Semaphore = asyncio.Semaphore(spec.parallel_calls)
        self.member_slots: asyncio.Semaphore = asyncio.Semaphore(spec.parallel_calls)
        self.source = source_of(tree.request, spec, run_id, None if parent is None else parent.source)
        self.out: Out = Out(
            tree.audience,
            self.source,
            None if parent is None else parent.out,
            heard=heard,
            speaks_for_above=speaks_for_parent,
            of_value=spec.structured,
        )
        """What it says to those who hear it."""
        self.output = new_output(tree.request, spec, self.source, input)
        tree.runs.append(self)

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
        return late and not self.fate.stopped and self.fate.cancelled_once

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.source.run_id

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self.started

    def send_back(self, who: str, complaint: str) -> None:
        """Count that `who` has the model try again.

        Raises:
            ModelBehaviorError: It has been tried often enough.
        """
        sent_back = self.progress.sent_back
        sent_back[who] += 1
        if sent_back[who] > MOST_TRIES_AGAIN:
            raise ModelBehaviorError(
                f"{self.spec.label}: {who} has sent the model back {MOST_TRIES_AGAIN} times, "
                f"and still: {complaint}"
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

    def call_state(
        self, function: str, tool_call_id: str | None = None, slot: TurnSlot | None = None
    ) -> CallState:
        """The transaction for one call of a function of the application's."""
        writer = Writer(self.run_id, self.source.path, function, tool_call_id)
        tree = self.tree
        shape = tree.request.state.shape
        return CallState(tree.scope, writer, session=tree.session.key, owner=tree, shape=shape, slot=slot)

    def context(self, call: CallState) -> RunContext[Any]:
        """What that function is told of the run."""
        team = self.spec.id if self.spec.is_team else self.parent.spec.id if self.parent is not None else None
        request = self.tree.request
        return RunContext(
            run_id=self.run_id,
            session_id=request.session_id,
            user_id=request.user_id,
            dependencies=request.dependencies,
            metadata=request.metadata,
            agent_id=None if self.spec.is_team else self.spec.id,
            team_id=team,
            tool_call_id=call.writer.tool_call_id,
            parent_run_id=self.source.parent_run_id,
            messages=lambda: self.messages,
            state=Handle(call),
        )

    def debug(self, message: str, *args: object, level: int = 1) -> None:
        """Log for `debug_mode`, from that `debug_level` on, under the run's path."""
        if self.tree.request.debug >= level:
            debug(f"[%s] {message}", " > ".join(self.source.path), *args)
