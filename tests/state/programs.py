"""Random programs of tool calls, for the proof that they behave as if one ran after the other.

A call is a list of transactions, each a list of steps on the session state. `result_of` says what a
transaction makes of a state when it is alone; the tools do the same, step by step, with pauses between a read
and the write that follows from it. Every transaction signs the state: a commit tells which one it was.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

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
    """One tool call: either one transaction, the call's own, or several `transaction()` blocks."""

    kind: str
    pauses: int
    blocks: bool
    transactions: tuple[Transaction, ...]


@dataclass(frozen=True)
class RunPlan:
    """One run: the calls of each member; one member is an agent, several are a team."""

    members: tuple[tuple[Call, ...], ...]
    where: str
    cancel_after: int | None


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
    st.tuples(st.just("savepoint"), st.lists(_plain_steps, max_size=3).map(tuple), st.booleans()),
)
_transactions = st.builds(
    Transaction,
    st.lists(_steps, min_size=1, max_size=4).map(tuple),
    st.sampled_from(["return", "return", "return", "raise", "retry", "stop", "not json"]),
)
_calls = st.builds(
    Call,
    st.sampled_from(["sync", "async"]),
    st.integers(0, 3),
    st.just(False),
    st.tuples(_transactions),
) | st.builds(
    Call,
    st.sampled_from(["sync", "async"]),
    st.integers(0, 3),
    st.just(True),
    st.lists(_transactions, min_size=1, max_size=3).map(tuple),
)
_runs = st.builds(
    RunPlan,
    st.lists(st.lists(_calls, min_size=1, max_size=4).map(tuple), min_size=1, max_size=3).map(tuple),
    st.sampled_from(["task", "task", "stream", "portal", "loop"]),
    st.none() | st.integers(0, 60),
)
programs = st.lists(_runs, min_size=1, max_size=4)


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
        case ("savepoint", steps, fails):
            saved = copy.deepcopy(state)
            for inner in steps:
                state = _alone(state, inner)
            state = saved if fails else state
    return state


# The same at work: pauses wherever another call could come in between.


@dataclass
class Recorder:
    """What the calls saw, by their marks."""

    calls: dict[str, Call]
    seen: list[State] = field(default_factory=list)
    snapshots: list[State] = field(default_factory=list)
    errors: dict[str, BaseException] = field(default_factory=dict)

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

    async def _work(self, run_context: RunContext, name: str) -> str:
        call = self.calls[name]
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
            await _at_work(context, step, sync)
        context.session_state["by"] = mark
        if transaction.end == "not json":
            context.session_state["bad"] = {1, 2}
        elif transaction.end in ENDS:
            raise ENDS[transaction.end](mark)


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
