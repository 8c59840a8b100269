"""Calling the application's functions: sync ones in threads, async ones on the loop, each as a transaction if
it takes a `run_context`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from kern._sync.offload import off_loop
from kern._sync.shield import run_in_child_task
from kern._sync.threads import threads
from kern.run.context import RunContext
from kern.runtime.outcome import Start
from kern.runtime.return_values import Listener, close_unused, ended, ended_here, is_unfinished, without_cache
from kern.runtime.run_tree import Run
from kern.state.call_state import CallState
from kern.state.enclosing_calls import inside_call
from kern.state.shared_state import Author
from kern.state.stepping import step
from kern.state.transaction import keeps_edits
from kern.state.transaction_block import CallStateHandle
from kern.state.turn_order import TurnSlot
from kern.tools.signature import Kind


class FunctionCall:
    """One call of a function of the application, alone or with hooks around it.

    Args:
        run: The run that makes the call.
        label: The name of the function, for the state's history and for errors.
        takes_context: The function takes a `RunContext`, so the call is a transaction. A call without one
            never waits for the state.
        tool_call_id: The id of the model's tool call.
        slot: The place of the call among the calls of its turn that may touch the state.
        listener: Called with the chunks of a generator.
        start: Notified when the function begins.
    """

    def __init__(
        self,
        run: Run,
        label: str,
        *,
        takes_context: bool,
        tool_call_id: str | None = None,
        slot: TurnSlot | None = None,
        listener: Listener | None = None,
        start: Start | None = None,
    ) -> None:
        self.listener = listener
        self._start = start
        self.state: CallState | None = None
        self.context: RunContext[Any] | None = None
        if takes_context:
            self.state = _state(run, label, tool_call_id, slot)
            self.context = _context(run, self.state)

    async def carry_out(self, function: Callable[[], Any], *, is_async: bool) -> Any:
        """Call `function`, in a thread or, if it is async, on the loop. Return its final value; a generator's
        chunks as `Chunks`.
        """

        def begun() -> Any:
            if self._start is not None:
                self._start.begin()
            return function()

        if is_async:
            return await self._to_the_end(self.called(begun, self.listener))
        value = await self._begun_in_thread(begun)
        if not is_unfinished(value):
            return value
        try:
            # The call of a sync function may have no own task, but this rest can swallow a cancellation.
            return await run_in_child_task(
                lambda: self._to_the_end(ended(value, self.listener, self.in_thread))
            )
        finally:
            close_unused(value)

    async def called(self, function: Callable[[], Any], listener: Listener | None) -> Any:
        """Call a function on the loop and return its final value."""
        return await ended(function(), listener, self.in_thread)

    async def _to_the_end(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run `coroutine` here, as the whole call or the rest of it, and end the transaction."""
        state = self.state
        if state is None:
            return await coroutine
        try:
            with inside_call(state):
                value = await step(state, coroutine)
        except BaseException as error:
            state.end(commit=keeps_edits(error))
            raise
        await off_loop(state.size, lambda: state.end(commit=True))
        return value

    async def _begun_in_thread(self, function: Callable[[], Any]) -> Any:
        """Run `function` in a thread, and end the transaction unless what it returned `is_unfinished`."""
        state = self.state

        def body() -> Any:
            if state is None:
                return ended_here(function(), self.listener)
            with state.thread(), inside_call(state):
                try:
                    value = ended_here(function(), self.listener)
                except BaseException as error:
                    state.end(commit=keeps_edits(error))
                    raise
                if not is_unfinished(value):
                    state.end(commit=True)
                return value

        return await self._unless_given_up(body)

    async def in_thread(self, function: Callable[[], Any]) -> Any:
        """Run a sync `function` in a thread, as a part of the call."""
        state = self.state

        def body() -> Any:
            if state is None:
                return function()
            with state.thread():
                return function()

        return await self._unless_given_up(body)

    async def _unless_given_up(self, body: Callable[[], Any]) -> Any:
        try:
            return await threads.run(body)
        except asyncio.CancelledError:
            await self.give_up()
            raise

    async def give_up(self) -> None:
        """Stop waiting for a thread of the call. It cannot be stopped, but it loses access to the state."""
        if self.state is not None:
            await give_up(self.state)


async def give_up(state: CallState) -> None:
    """Take the state from a call whose thread is not waited for any more."""
    state.void()
    while state.unfinished:  # noqa: ASYNC110  # a commit in that thread, which takes only an instant
        await asyncio.sleep(0.001)


async def invoke(
    run: Run,
    function: Callable[..., Any],
    kind: Kind,
    arguments: Mapping[str, Any],
    *,
    context_parameter: str | None,
    label: str,
    tool_call_id: str | None = None,
    slot: TurnSlot | None = None,
    listener: Listener | None = None,
    start: Start | None = None,
) -> Any:
    """Call `function` for `run`, without hooks, and return its final value.

    Args:
        run: The run that makes the call.
        function: The function.
        kind: The kind that its signature shows; the value that it returns decides.
        arguments: Its arguments, without the `RunContext`.
        context_parameter: The name of the parameter that gets the `RunContext`, if there is one.
        label, tool_call_id, slot, listener, start: As in `FunctionCall`.
    """
    call = FunctionCall(
        run,
        label,
        takes_context=context_parameter is not None,
        tool_call_id=tool_call_id,
        slot=slot,
        listener=listener,
        start=start,
    )
    function = without_cache(function)
    if context_parameter is not None:
        arguments = {**arguments, context_parameter: call.context}
    is_async = kind in ("async", "async_generator")
    return await call.carry_out(lambda: function(**arguments), is_async=is_async)


def _state(run: Run, function: str, tool_call_id: str | None, slot: TurnSlot | None) -> CallState:
    """Make the transaction for one call."""
    author = Author(run.run_id, run.source.path, function, tool_call_id)
    tree = run.tree
    state_type = tree.request.state.state_type
    call = CallState(
        tree.shared_state, author, session=tree.session.key, owner=tree, state_type=state_type, slot=slot
    )
    if tree.steps is not None:
        tree.steps.watch((run.run_id, tool_call_id), lambda: call.over)
    return call


def _context(run: Run, call: CallState) -> RunContext[Any]:
    """Make the `RunContext` for the function."""
    source, request = run.source, run.tree.request
    above = run.parent.spec.id if run.parent is not None else None
    return RunContext(
        run_id=run.run_id,
        session_id=request.session_id,
        user_id=request.user_id,
        dependencies=request.dependencies,
        metadata=request.metadata,
        agent_id=None if run.spec.is_team else run.spec.id,
        team_id=run.spec.id if run.spec.is_team else above,
        tool_call_id=call.author.tool_call_id,
        parent_run_id=source.parent_run_id,
        messages=lambda: run.messages,
        state=CallStateHandle(call),
    )
