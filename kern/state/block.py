"""A part of a call that is a transaction by itself."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kern.errors import AgentSignal, UsageError
from kern.state.large import off_loop
from kern.state.savepoint import Savepoint
from kern.state.scope import EnclosedScope, ended

if TYPE_CHECKING:
    from kern.state.call import CallState

current_block: ContextVar[Block | None] = ContextVar("kern_state_block", default=None)


class Block:
    """`run_context.transaction()`: a part of a call that takes, commits and lets go by itself.

    Inside, `run_context.session_state` is the block's copy, for the task that opened it and those it starts.
    In a call that has the state already, it is a savepoint: an error undoes the block and nothing else.
    The exceptions that steer the model are no errors here either.
    """

    __slots__ = ("_base", "_inner", "_savepoint", "_token", "call", "committing", "copy", "owns_lock")

    def __init__(self, call: CallState) -> None:
        self.call = call
        self.copy: Any = None
        self._base = b""
        self.owns_lock = False
        self.committing = False
        self._savepoint: Savepoint | None = None
        self._inner: EnclosedScope | None = None
        self._token: Token[Block | None] | None = None

    def __enter__(self) -> Any:
        if self._enter_at_once():
            return self.call.read()
        if in_event_loop() and self.call.runs_on_loop:
            raise UsageError("in an async function: `async with run_context.transaction()`")
        self.call.wait_in_thread()
        return self._open()

    async def __aenter__(self) -> Any:
        if self.call.steps_current_task() and not self.call.has_lock():
            # A wait for the lock was cut short, so this step runs without it: back to the stepper's gate.
            await asyncio.sleep(0)
        if self._enter_at_once():
            return self.call.read()
        await self.call.wait_in_task()
        return self._open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = error is not None and not isinstance(error, AgentSignal)
        if self._savepoint is not None:
            if failed:
                self._savepoint.restore()
                self.call.put_back(self._savepoint.root)
            return
        self._leave()
        try:
            if not failed:
                self._commit()
        finally:
            self._let_go()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None or self._savepoint is not None:
            self.__exit__(kind, error, trace)
            return
        self._leave()
        try:
            await off_loop(len(self._base), self._commit)
        finally:
            self._let_go()

    # What an EnclosedScope asks for (EnclosingCall).

    def edited(self) -> Any:
        """The block's copy as plain JSON data."""
        if not self.owns_lock:
            raise ended(self.call.writer)
        return self.call.shape.dump(self.copy)

    def replace(self, tree: Any) -> None:
        """Put what a nested run committed into the copy, in place."""
        if not self.owns_lock:
            raise ended(self.call.writer)
        self.call.shape.restore(self.copy, self.call.shape.load_tree(tree))

    def enclosed_scope(self) -> EnclosedScope:
        """The scope for nested runs inside the block."""
        if self._inner is None:
            self._inner = EnclosedScope(self)
        return self._inner

    def drop(self) -> None:
        """Give the block up: its call has ended."""
        self._let_go()

    def _enter_at_once(self) -> bool:
        """Enter where nothing has to be waited for: a savepoint, or the lock of this step."""
        call = self.call
        if call.has_state():
            self._savepoint = Savepoint(call.read())
            return True
        if not call.take_gate(self):
            return False
        self._open()
        return True

    def _open(self) -> Any:
        call = self.call
        if not call.register(self):
            call.scope.lock.release()
            raise ended(call.writer)
        try:
            self._base = call.scope.text
            self.copy = call.shape.load(self._base)
        except BaseException:
            self._let_go()
            raise
        self._token = current_block.set(self)
        return self.copy

    def _leave(self) -> None:
        if self._token is not None:
            current_block.reset(self._token)

    def _commit(self) -> None:
        with self.call.committing(self):
            self.call.scope.commit(self.call.shape.dump(self.copy), self.call.writer, self._base)

    def _let_go(self) -> None:
        if self.call.unregister(self):
            self.call.scope.lock.release()


def in_event_loop() -> bool:
    """The running code belongs to an event loop, whether to a task or a callback."""
    return asyncio._get_running_loop() is not None


def current_task() -> asyncio.Task[Any] | None:
    """The running task; None in a thread."""
    return asyncio.current_task() if in_event_loop() else None
