"""Random programs of tool calls, for the proof that they behave as if one ran after the other.

A call is a list of transactions, each a list of steps on the session state. `result_of` says what a
transaction makes of a state when it is alone; the tools do the same, step by step, with pauses between a read
and the write that follows from it. Every transaction signs the state: a commit tells which one it was.
A step may be a run of another agent on the same session: inside of a transaction it is a part of it. A call
may also run one before it touches the state: that run's call is a transaction by itself.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from kern.agent import Agent
from kern.errors import RetryAgentRun, StopAgentRun
from kern.run import RunContext

State = dict[str, Any]
Step = tuple[Any, ...]

ENDS = {"raise": ValueError, "retry": RetryAgentRun, "stop": StopAgentRun}
COMMITTING = ("return", "retry", "stop")


@dataclass(frozen=True)
class Transaction:
    """What is done to the state at one go; `end` is how it is left."""

    steps: tuple[Step, ...]
    end: str


@dataclass(frozen=True)
class Call:
    """One tool call: either one transaction, the call's own, or several `transaction()` blocks.

    `before` is what an agent does that the call runs before it touches the state.
    """

    kind: str
    pauses: int
    blocks: bool
    transactions: tuple[Transaction, ...]
    before: Transaction | None = None


@dataclass(frozen=True)
class RunPlan:
    """One run: the calls of each member; one member is an agent, several are a team.

    Cancelled after so many turns of the loop, or at such a step of its tools, or not at all.
    """

    members: tuple[tuple[Call, ...], ...]
    where: str
    cancel_after: int | None
    on_busy: str = "share"
    argument: bool = False
    cancel_at: int | None = None

    @property
    def cancelled(self) -> bool:
        """Not all of it need be there."""
        return self.cancel_after is not None or self.cancel_at is not None


@dataclass(frozen=True)
class Update:
    """A key set from outside of all runs, so many turns of the loop after the start."""

    after: int
    key: str


@dataclass(frozen=True)
class Program:
    """What happens on one session at the same time, and the kind of database that it is kept in."""

    runs: tuple[RunPlan, ...]
    updates: tuple[Update, ...]
    store: str

    def calls(self) -> dict[str, Call]:
        """All tool calls, by their names."""
        return {
            f"r{r}m{m}c{c}": call
            for r, plan in enumerate(self.runs)
            for m, member in enumerate(plan.members)
            for c, call in enumerate(member)
        }


def _keys() -> st.SearchStrategy[str]:
    return st.sampled_from("abc")


_plain_steps = st.one_of(
    st.tuples(st.just("add"), _keys(), st.integers(1, 9)),
    st.tuples(st.just("move"), _keys(), _keys()),
    st.tuples(st.just("push"), _keys()),
    st.tuples(st.just("assign"), _keys()),
    st.tuples(st.just("children"), _keys()),
    st.just(("pause",)),
)
_steps = st.one_of(
    _plain_steps,
    st.tuples(
        st.sampled_from(["savepoint", "savepoint", "nested"]),
        st.lists(_plain_steps, max_size=3).map(tuple),
        st.booleans(),
    ),
)
_transactions = st.builds(
    Transaction,
    st.lists(_steps, min_size=1, max_size=4).map(tuple),
    st.sampled_from(["return", "return", "return", "raise", "retry", "stop", "not json"]),
)
_kinds = st.sampled_from(["sync", "async", "sync", "async", "generator", "async_generator"])
_before = st.one_of(st.none(), st.none(), st.none(), _transactions)
_calls = st.builds(
    Call, _kinds, st.integers(0, 3), st.just(False), st.tuples(_transactions), _before
) | st.builds(
    Call,
    _kinds,
    st.integers(0, 3),
    st.just(True),
    st.lists(_transactions, min_size=1, max_size=3).map(tuple),
    _before,
)
_runs = st.builds(
    RunPlan,
    st.lists(st.lists(_calls, min_size=1, max_size=4).map(tuple), min_size=1, max_size=3).map(tuple),
    st.sampled_from(["task", "task", "stream", "portal", "loop"]),
    st.one_of(st.none(), st.none(), st.integers(0, 60)),
    st.sampled_from(["share", "queue"]),
    st.booleans(),
    st.none() | st.integers(1, 12),
)
programs = st.builds(
    Program,
    st.lists(_runs, min_size=1, max_size=4).map(tuple),
    st.lists(st.builds(Update, st.integers(0, 40), _keys()), max_size=2).map(tuple),
    st.sampled_from(["memory", "memory", "memory", "sqlite"]),
)


# What a transaction does when it is alone.


def result_of(state: State, transaction: Transaction, mark: str) -> State:
    """The state that `transaction` makes of `state`."""
    state = copy.deepcopy(state)
    for step in transaction.steps:
        state = _alone(state, step)
    state["by"] = mark
    return state


def _alone(state: State, step: Step) -> State:
    match step:
        case ("add", key, number):
            state[key] = state.get(key, 0) + number
        case ("move", key, to):
            value = state.pop(key, 0)
            state[to] = state.get(to, 0) + value
        case ("push", key):
            state.setdefault("items", []).append(state.get(key, 0))
        case ("assign", key):
            state = {**state, key: len(state)}
        case ("children", key):
            state[key] = state.get(key, 0) + 3
        case ("savepoint" | "nested", steps, fails):
            saved = copy.deepcopy(state)
            for inner in steps:
                state = _alone(state, inner)
            state = saved if fails else state
    return state


# The same at work: pauses wherever another call could come in between.


@dataclass
class Recorder:
    """What the calls saw, by their marks.

    Args:
        calls: What the tools are to do, by name.
        inner: Makes an agent on the same session, whose model calls one tool, once.
    """

    calls: dict[str, Call]
    inner: Callable[[Callable[..., Any]], Agent]
    seen: list[State] = field(default_factory=list)
    snapshots: list[State] = field(default_factory=list)
    errors: dict[str, BaseException] = field(default_factory=dict)
    steps: Counter[str] = field(default_factory=Counter)
    alarms: dict[tuple[str, int], Callable[[], object]] = field(default_factory=dict)
    """What to call at a step of a run, counted over all of its tools."""

    async def work(self, run_context: RunContext, name: str) -> str:
        """The async tool."""
        try:
            return await self._work(run_context, name)
        except BaseException as error:
            self.errors[name] = error
            raise

    def work_sync(self, run_context: RunContext, name: str) -> str:
        """The sync tool."""
        try:
            return self._work_sync(run_context, name)
        except BaseException as error:
            self.errors[name] = error
            raise

    async def work_in_pieces(self, run_context: RunContext, name: str) -> AsyncIterator[str]:
        """The async tool that is a generator."""
        yield "at work: "
        yield await self.work(run_context, name)

    def work_in_pieces_sync(self, run_context: RunContext, name: str) -> Iterator[str]:
        """The sync tool that is a generator."""
        yield "at work: "
        yield self.work_sync(run_context, name)

    def _agent_before(self, name: str, transaction: Transaction) -> Agent:
        async def work(run_context: RunContext) -> None:
            await self._steps(run_context, transaction, f"{name}.before")

        return self.inner(work)

    async def _work(self, run_context: RunContext, name: str) -> str:
        call = self.calls[name]
        if call.before is not None:
            await self._agent_before(name, call.before).arun("go")
        for _ in range(call.pauses):
            await asyncio.sleep(0)
        if call.pauses:
            self.snapshots.append(run_context.snapshot())
        for number, transaction in enumerate(call.transactions):
            mark = f"{name}.{number}"
            if call.blocks:
                try:
                    async with run_context.transaction():
                        await self._steps(run_context, transaction, mark)
                except ValueError:
                    pass
                await asyncio.sleep(0)
            else:
                await self._steps(run_context, transaction, mark)
        return name

    def _work_sync(self, run_context: RunContext, name: str) -> str:
        call = self.calls[name]
        if call.before is not None:
            self._agent_before(name, call.before).run("go")
        for _ in range(call.pauses):
            time.sleep(0.0001)
        if call.pauses:
            self.snapshots.append(run_context.snapshot())
        for number, transaction in enumerate(call.transactions):
            mark = f"{name}.{number}"
            if call.blocks:
                try:
                    with run_context.transaction():
                        _finish(self._steps(run_context, transaction, mark, sync=True))
                except ValueError:
                    pass
            else:
                _finish(self._steps(run_context, transaction, mark, sync=True))
        return name

    async def _steps(
        self, context: RunContext, transaction: Transaction, mark: str, *, sync: bool = False
    ) -> None:
        self.seen.append(copy.deepcopy(context.session_state))
        for step in transaction.steps:
            self._count(mark.partition("m")[0])
            if step[0] == "nested":
                await self._nested(context, step, sync)
            else:
                await _at_work(context, step, sync)
        context.session_state["by"] = mark
        if transaction.end == "not json":
            context.session_state["bad"] = {1, 2}
        elif transaction.end in ENDS:
            raise ENDS[transaction.end](mark)

    def _count(self, run: str) -> None:
        self.steps[run] += 1
        alarm = self.alarms.get((run, self.steps[run]))
        if alarm is not None:
            alarm()

    async def _nested(self, context: RunContext, step: Step, sync: bool) -> None:
        """Run an agent that does the steps: to the caller's copy, which shows them when it has ended."""
        _, steps, fails = step

        async def work(run_context: RunContext) -> None:
            for inner in steps:
                await _at_work(run_context, inner, sync=False)
            if fails:
                raise KeyError

        def work_sync(run_context: RunContext) -> None:
            for inner in steps:
                _finish(_at_work(run_context, inner, sync=True))
            if fails:
                raise KeyError

        agent = self.inner(work if len(steps) % 2 else work_sync)
        if sync:
            agent.run("go")
        else:
            await agent.arun("go")


async def _at_work(context: RunContext, step: Step, sync: bool) -> None:
    async def pause() -> None:
        if sync:
            time.sleep(0.0001)  # noqa: ASYNC251  # a sync tool's steps, in its thread
        else:
            await asyncio.sleep(0)

    state = context.session_state
    match step:
        case ("pause",):
            await pause()
        case ("add", key, number):
            value = state.get(key, 0)
            await pause()
            state[key] = value + number
        case ("move", key, to):
            value = state.pop(key, 0)
            await pause()
            state[to] = state.get(to, 0) + value
        case ("push", key):
            items = state.setdefault("items", [])
            await pause()
            items.append(state.get(key, 0))
        case ("assign", key):
            context.session_state = {**state, key: len(state)}
        case ("children", key):
            await _with_children(context, key, sync)
        case ("savepoint", steps, fails):
            await _savepoint(context, steps, fails, sync)


async def _with_children(context: RunContext, key: str, sync: bool) -> None:
    async def child() -> None:
        value = context.session_state.get(key, 0)
        context.session_state[key] = value + 1
        if not sync:
            await asyncio.sleep(0)

    if sync:
        for _ in range(3):
            _finish(child())
    else:
        await asyncio.gather(child(), child(), child())


async def _savepoint(context: RunContext, steps: tuple[Step, ...], fails: bool, sync: bool) -> None:
    try:
        if sync:
            with context.transaction():
                for inner in steps:
                    await _at_work(context, inner, sync)
                if fails:
                    raise KeyError
        else:
            async with context.transaction():
                for inner in steps:
                    await _at_work(context, inner, sync)
                if fails:
                    raise KeyError
    except KeyError:
        pass


def _finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("it has waited")
