"""One call of a function of the application's, as a transaction on the session state.

From its first touch of `session_state` until it returns, a call has the state to itself. A `CallState` is the
call's `StateHandle`: it takes the scope's lock at the first touch, edits a private copy, and commits or drops
it when the call ends.

Who may touch first depends on where the function runs. In a worker thread (`thread()`) the touch waits right
there. A coroutine that is stepped by hand (`kern.state.stepping`) has the lock for the length of each step,
and a touch keeps it. A child task or thread may share what its call has, but not take it: `UsageError`.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from kern.errors import StateLockTimeout, UsageError
from kern.state.block import Block, current_block, current_task
from kern.state.dependents import Dependents
from kern.state.lock import LockTimeout, Ticket, WaitAborted
from kern.state.order import TurnSlot
from kern.state.scope import EnclosedScope, Scope, Writer, ended
from kern.state.shape import DICT, Shape
from kern.state.threads import place_given_up

DEFAULT_TIMEOUT = 60.0
"""Seconds that a call waits for the state before `StateLockTimeout`."""


class CallState:
    """One call's view of the session state.

    Args:
        scope: Where the call takes its turn.
        writer: What its commit is signed with.
        session: Identifies the session, so that nested runs on it find this call.
        owner: The run that calls, for the runtime to find from a nested run.
        shape: What the state looks like to the function.
        timeout: Seconds to wait for the state.
        slot: The call's place among those of its turn.
    """

    __slots__ = (
        "_base",
        "_blocks",
        "_copy",
        "_end_mutex",
        "_ended",
        "_inner",
        "_task",
        "_thread",
        "_tickets",
        "commits",
        "dependents",
        "gate_open",
        "main_block",
        "off_turn",
        "owner",
        "scope",
        "session",
        "shape",
        "slot",
        "timeout",
        "touched",
        "writer",
    )

    def __init__(
        self,
        scope: Scope,
        writer: Writer,
        *,
        session: Hashable,
        owner: Any = None,
        shape: Shape = DICT,
        timeout: float = DEFAULT_TIMEOUT,
        slot: TurnSlot | None = None,
    ) -> None:
        self.scope = scope
        self.writer = writer
        self.session = session
        self.owner = owner
        self.shape = shape
        self.timeout = timeout
        self.slot = slot
        self.touched = False
        self.gate_open = False
        """The stepper has the lock for this step; a touch may keep it."""
        self.main_block: Block | None = None  # that took the lock over from the stepper
        self.commits = 0  # under way
        self.off_turn = 0
        """How many awaits of Kern's own are open in which the function takes no turns; see `OffTurn`."""
        self._task: asyncio.Task[Any] | None = None
        self._thread: int | None = None
        self._copy: Any = None
        self._base = b""
        self._ended = False
        self._end_mutex = threading.Lock()
        self._inner: EnclosedScope | None = None
        self._blocks: list[Block] = []
        self._tickets: list[Ticket] = []
        self.dependents = Dependents()

    # What RunContext asks for (StateHandle).

    def read(self) -> Any:
        """The call's copy; the first read takes the state."""
        if not self.touched:
            block = self._open_block()
            if block is not None:
                return block.copy
            self._touch()
        if self._ended:
            raise ended(self.writer)
        return self._copy

    def assign(self, value: Any) -> None:
        """Make `value` the call's state."""
        self.shape.accept(value)
        block = None if self.touched else self._open_block()
        if block is not None:
            block.copy = value
            return
        self.read()
        self._copy = value

    def snapshot(self) -> Any:
        """A deep copy of the call's own view if it has one, else of the last commit."""
        if self.touched and not self._ended:
            return copy.deepcopy(self._copy)
        block = self._open_block()
        if block is not None:
            return copy.deepcopy(block.copy)
        return self.shape.load(self.scope.text)

    def transaction(self) -> Block:
        """A part of the call that is committed, or undone, by itself."""
        return Block(self)

    # What an EnclosedScope asks for (EnclosingCall).

    def edited(self) -> Any:
        """The copy as plain JSON data."""
        return self.shape.dump(self.read())

    def replace(self, tree: Any) -> None:
        """Put what a nested run committed into the copy, in place."""
        self.shape.restore(self.read(), self.shape.load_tree(tree))

    def enclosed_scope(self) -> EnclosedScope:
        """The scope for nested runs of this call, which has the state: as a whole, or in an open block."""
        block = None if self.touched else self._open_block()
        if block is not None:
            return block.enclosed_scope()
        with self._end_mutex:
            if self._inner is None:
                self._inner = EnclosedScope(self)
            return self._inner

    # Taking the state.

    def _touch(self) -> None:
        if self._ended:
            raise ended(self.writer)
        if self._thread is not None:
            if threading.get_ident() != self._thread:
                raise self._foreign()
            self.wait_in_thread()
        elif not self._in_step():
            self._take_out_of_turn()
        with self._end_mutex:
            self.gate_open = False
            self.touched = not self._ended
        if not self.touched:  # made void while the lock was on its way to this thread
            self.scope.lock.release()
            raise ended(self.writer)
        try:
            self._base = self.scope.text
            self._copy = self.shape.load(self._base)
        except BaseException:
            self.end(commit=False)
            raise

    def _in_step(self) -> bool:
        return self.gate_open and current_task() is self._task

    def _take_out_of_turn(self) -> None:
        """A cancellation or timeout came without its turn: the function may have what is free."""
        if not self.steps_current_task() or self.off_turn:
            raise self._foreign()
        if not self.try_lock():
            raise UsageError(
                f"{self.writer}: cut short by a cancellation or timeout while {self.scope.holder} has the "
                "session state; to wait for it, use `async with run_context.transaction()`"
            )

    def _foreign(self) -> UsageError:
        return UsageError(
            f"{self.writer}: a child task or thread touches session_state before its call has; touch it in "
            "the call itself before starting others, or use `async with run_context.transaction()` there"
        )

    def wait_in_thread(self) -> None:
        """Take the scope's lock from a worker thread; `void` ends the wait."""
        ticket = Ticket(None)
        with self._end_mutex:
            if self._ended:
                raise ended(self.writer)
            self._tickets.append(ticket)
        slot = self.slot
        try:
            if slot is not None:
                slot.wait()
            queued = None if slot is None else slot.passed
            with place_given_up():
                self.scope.lock.acquire_blocking(self.timeout, ticket, queued)
        except LockTimeout:
            raise self.lock_timeout() from None
        except WaitAborted:
            raise ended(self.writer) from None
        finally:
            self._tickets.remove(ticket)
        self.scope.holder = str(self.writer)

    async def wait_in_task(self) -> None:
        """Take the scope's lock from a task."""
        if self.try_lock():
            return
        try:
            await self.scope.lock.acquire(self.timeout)
        except LockTimeout:
            raise self.lock_timeout() from None
        self.scope.holder = str(self.writer)

    def try_lock(self) -> bool:
        """Take the scope's lock if it is free."""
        free = self.scope.lock.try_acquire()
        if free:
            self.scope.holder = str(self.writer)
        return free

    def lock_timeout(self) -> StateLockTimeout:
        """The error for a wait that took too long."""
        return StateLockTimeout(waiter=str(self.writer), holder=self.scope.holder, seconds=self.timeout)

    @property
    def size(self) -> int:
        """Bytes of the state that the call edits; 0 if it does not."""
        return len(self._base)

    # The call's life, as the runtime drives it.

    def thread(self) -> AbstractContextManager[None]:
        """Round a sync function, in its thread: a touch waits there."""
        return self._run_by(threading.get_ident(), self._task)

    def stepped(self) -> AbstractContextManager[None]:
        """Round a coroutine that the current task steps."""
        return self._run_by(None, asyncio.current_task())

    @contextmanager
    def _run_by(self, thread: int | None, task: asyncio.Task[Any] | None) -> Iterator[None]:
        # Pieces of a call nest, such as a hook in a thread round an async function: the inner one takes over.
        outer = self._thread, self._task
        self._thread, self._task = thread, task
        try:
            yield
        finally:
            self._thread, self._task = outer

    def end(self, *, commit: bool) -> None:
        """The call has returned: commit or drop its copy, and let the state go. A second time does nothing.

        Raises:
            InvalidStateError: The copy is not JSON, or does not fit its type; it is dropped.
        """
        with self._end_mutex:
            if self._ended:
                return
            self._ended = True
            if self.slot is not None:
                self.slot.passed()
            blocks = [block for block in self._blocks if block.owns_lock and not block.committing]
            commit = commit and self.touched
            self.commits += commit
        for block in blocks:  # child tasks that outlive their call
            block.drop()
        if not self.touched:
            return
        try:
            if commit:
                self.scope.commit(self.shape.dump(self._copy), self.writer, self._base)
        finally:
            self._copy = None
            self.scope.lock.release()
            with self._end_mutex:
                self.commits -= commit

    def void(self) -> None:
        """The call is given up while its thread still runs: release the state now, drop the copy."""
        self.end(commit=False)  # first of all, so that no thread of the call begins to wait after this
        for ticket in list(self._tickets):
            self.scope.lock.abort(ticket)
        self.dependents.give_up()

    @property
    def unfinished(self) -> bool:
        """A thread of the call is at what must not outlive its run: a commit, a nested run."""
        return self.commits > 0 or bool(self.dependents)

    # What blocks and the stepper ask for.

    @property
    def runs_on_loop(self) -> bool:
        """The function is a coroutine; a thread that runs a loop of its own is not."""
        return self._thread != threading.get_ident()

    def steps_current_task(self) -> bool:
        """The running code is the function itself, stepped, and no child task of it."""
        return self._task is not None and current_task() is self._task

    def has_lock(self) -> bool:
        """The stepper need not take the lock before the next step, or has it for this one."""
        if self.touched or self.gate_open or self.main_block is not None or self.off_turn > 0:
            return True
        # A step that may not touch needs no turn: another piece of the call is at work, or it has ended.
        return self._ended or self._thread is not None or self._task is not current_task()

    def has_state(self) -> bool:
        """The running code edits a copy already: the call's, or that of a block round it."""
        return self.touched or self._open_block() is not None

    def take_gate(self, block: Block) -> bool:
        """Hand the lock of this step over to `block`."""
        if not self._in_step():
            return False
        self.gate_open = False
        self.main_block = block
        return True

    def put_back(self, value: Any) -> None:
        """Make `value`, which was the running code's copy before, its copy again."""
        block = None if self.touched else self._open_block()
        if block is not None:
            block.copy = value
        elif not self._ended:
            self._copy = value

    def register(self, block: Block) -> bool:
        """Note that `block` has the lock; False if the call has ended."""
        with self._end_mutex:
            if self._ended:
                return False
            block.owns_lock = True
            self._blocks.append(block)
            return True

    @contextmanager
    def committing(self, block: Block) -> Iterator[None]:
        """Round the commit of `block`, which the end of the call then leaves alone."""
        with self._end_mutex:
            if not block.owns_lock:
                raise ended(self.writer)
            block.committing = True
            self.commits += 1
        try:
            yield
        finally:
            with self._end_mutex:
                self.commits -= 1

    def unregister(self, block: Block) -> bool:
        """True if `block` had the lock and has to release it, rather than give it back to the stepper."""
        with self._end_mutex:
            if not block.owns_lock:
                return False
            block.owns_lock = False
            self._blocks.remove(block)
            if self.main_block is block:
                self.main_block = None
                if not self._ended and self.steps_current_task():
                    self.gate_open = True
                    return False
            return True

    def _open_block(self) -> Block | None:
        block = current_block.get()
        return block if block is not None and block.call is self and block.owns_lock else None
