"""The state part of a `run_context`: reading and assigning `session_state`, and `transaction()` blocks."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Token
from types import TracebackType
from typing import Any

from kern._sync.loops import in_event_loop
from kern._sync.offload import off_loop
from kern.errors import UsageError
from kern.state.call_state import CallState
from kern.state.savepoint import Savepoint
from kern.state.transaction import Transaction, current, keeps_edits


class CallStateHandle:
    """A call's state, as its `RunContext` uses it; implements `StateHandle`."""

    __slots__ = ("_call",)

    def __init__(self, call: CallState) -> None:
        self._call = call

    def read(self) -> Any:
        """The call's copy of the state. The first read takes the lock and makes the copy."""
        return self._call.take().copy

    def assign(self, value: Any) -> None:
        """Make `value` the state that the running code edits."""
        self._call.state_type.accept(value)
        self._call.take().copy = value

    def snapshot(self) -> Any:
        """A deep copy of what the running code edits; of the last commit if it has not touched the state."""
        return snapshot(self._call)

    def transaction(self) -> TransactionBlock:
        """A block whose edits are committed or undone at its end, before the call ends."""
        return TransactionBlock(self._call)


def snapshot(call: CallState) -> Any:
    """A deep copy of what the running code edits; of the last commit if it has not touched the state."""
    edits = call.edits()
    if edits is not None and edits.open:
        return copy.deepcopy(edits.copy)
    return call.state_type.load(call.shared_state.text)


class TransactionBlock:
    """`run_context.transaction()`: locks the state for a block, and commits at the end of the block.

    Inside the block, `run_context.session_state` is the block's copy, for the task that opened it and the
    tasks that it starts. If the call has already taken the state, the block is a savepoint: an error undoes
    the edits of the block and nothing else. An exception that only steers the model (`AgentSignal`) does not
    undo anything.
    """

    __slots__ = ("_call", "_savepoint", "_token", "_transaction")

    def __init__(self, call: CallState) -> None:
        self._call = call
        self._savepoint: Savepoint | None = None
        self._transaction: Transaction | None = None
        self._token: Token[Transaction | None] | None = None

    def __enter__(self) -> Any:
        if not self._entered_at_once():
            if in_event_loop() and self._call.runs_on_loop:
                raise UsageError(
                    "an async function must write `async with run_context.transaction()`, not `with`"
                )
            self._call.wait_in_thread()
            self._open()
        return self._call.read()

    async def __aenter__(self) -> Any:
        if self._call.steps_current_task() and not self._call.may_step():
            # A wait for the lock was cancelled, so this step runs without it. The next step waits again.
            await asyncio.sleep(0)
        if not self._entered_at_once():
            await self._call.wait_in_task()
            self._open()
        return self._call.read()

    def _entered_at_once(self) -> bool:
        """Enter the block without waiting, if it is a savepoint or this step already holds the lock."""
        if self._call.has_state():
            self._savepoint = Savepoint(self._call.read())
            return True
        if not self._call.in_step():
            return False
        self._open()
        return True

    def _open(self) -> None:
        self._transaction = self._call.open()
        self._token = current.set(self._transaction)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        kept = keeps_edits(error)
        if self._savepoint is not None:
            if not kept:
                self._savepoint.restore()
                self._call.put_back(self._savepoint.root)
            return
        with self._closing() as done:
            if kept:
                self._commit(done)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None or self._savepoint is not None:
            self.__exit__(kind, error, trace)
            return
        with self._closing() as done:
            await off_loop(done.size, lambda: self._commit(done))

    @contextmanager
    def _closing(self) -> Iterator[Transaction]:
        """The block's transaction; its lock is released even if the commit fails."""
        assert self._transaction is not None
        assert self._token is not None
        current.reset(self._token)
        try:
            yield self._transaction
        finally:
            self._call.close(self._transaction)

    def _commit(self, done: Transaction) -> None:
        with self._call.commit_of(done):
            done.commit()
