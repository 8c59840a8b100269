"""One call of an application's function, as a transaction on the session state.

From its first touch of `session_state` until it returns, a call has exclusive use of the state. A `CallState`
takes the state's lock at the first touch, edits a private copy, and commits or drops it when the call ends.

How the lock is taken depends on where the function runs. In a worker thread (`thread()`) the first touch
blocks until the lock is free. A coroutine that is stepped by hand (`kern.state.stepping`) holds the lock
during each step, and a touch keeps it for the rest of the call. A child task or thread of the function may
use a state that the call has already taken; to take it first is a `UsageError`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import Enum
from typing import Any

from kern._sync.lock import LockTimeout, Ticket, WaitAborted
from kern._sync.loops import current_task
from kern._sync.threads import thread_place_released
from kern.errors import StateLockTimeout, UsageError
from kern.state.dependents import Dependents
from kern.state.shared_state import Author, NestedState, SharedState, ended
from kern.state.state_type import DICT, StateType
from kern.state.transaction import Transaction, current
from kern.state.turn_order import TurnSlot

DEFAULT_TIMEOUT = 60.0
"""Seconds that a call waits for the state before `StateLockTimeout`."""


class Holder(Enum):
    """Who holds the state's lock for a call while no transaction does."""

    nobody = 0
    step = 1
    """The stepper, for the present step. A touch in this step keeps the lock for the call."""


class CallState:
    """One call's view of the session state.

    Args:
        shared_state: The state that the call locks, copies and commits to.
        author: Recorded as the author of the commit.
        session: Identifies the session, so that nested runs on the same session find this call.
        owner: The run that makes the call. The runtime reads it when a nested run finds this call.
        state_type: Whether the function sees the state as a dict or as a model.
        timeout: Seconds to wait for the lock before `StateLockTimeout`.
        slot: The call's place among the calls of the same turn; None if it may go at once.
    """

    __slots__ = (
        "_end_mutex",
        "_ended",
        "_task",
        "_thread",
        "author",
        "committing",
        "dependents",
        "holder",
        "own",
        "owner",
        "session",
        "shared_state",
        "slot",
        "state_type",
        "timeout",
        "ungated",
    )

    def __init__(
        self,
        shared_state: SharedState,
        author: Author,
        *,
        session: Hashable,
        owner: Any = None,
        state_type: StateType = DICT,
        timeout: float = DEFAULT_TIMEOUT,
        slot: TurnSlot | None = None,
    ) -> None:
        self.shared_state: SharedState = shared_state
        self.author: Author = author
        self.session: Hashable = session
        self.owner: Any = owner
        self.state_type: StateType = state_type
        self.timeout: float = timeout
        self.slot: TurnSlot | None = slot
        self.holder: Holder | Transaction = Holder.nobody
        """Who holds the state's lock for this call: never more than one."""
        self.own: Transaction | None = None
        """The transaction of the call as a whole, from its first touch on."""
        self.committing: bool = False
        self.ungated: int = 0
        """How many `Ungated` blocks are open: Kern's own coroutines, which run without the lock."""
        self._task: asyncio.Task[Any] | None = None
        self._thread: int | None = None
        self._ended = False
        self._end_mutex = threading.Lock()
        self.dependents: Dependents = Dependents()

    # What the running code edits.

    @property
    def touched(self) -> bool:
        """Whether the call has taken the state; stays true after its end."""
        return self.own is not None

    def edits(self) -> Transaction | None:
        """The transaction that the running code edits: the call's, or that of its `transaction()` block.

        None if neither is open: the code has not touched the state yet.
        """
        if self.own is not None:
            return self.own
        block = current.get()
        return block if block is not None and block is self.holder else None

    def take(self) -> Transaction:
        """Like `edits`, but the first touch takes the lock and opens the call's transaction.

        Raises:
            StateLockTimeout: Another call held the state for longer than `timeout`.
            UsageError: The call has ended, or the code is a task or thread that may not take the state.
        """
        edits = self.edits() or self._touch()
        if self._ended:
            raise ended(self.author)
        return edits

    def read(self) -> Any:
        """The copy that the running code edits; taken at the first touch."""
        return self.take().copy

    def has_state(self) -> bool:
        """Whether the running code already edits a copy."""
        return self.edits() is not None

    def nested_state(self) -> NestedState:
        """The state that runs nested in this call share: the copy of the call, or of the block it is in."""
        edits = self.take()
        with self._end_mutex:
            return edits.nested_state()

    def put_back(self, value: Any) -> None:
        """Make `value`, an earlier copy of the running code, its copy again; for the end of a savepoint."""
        edits = self.edits()
        if edits is not None and edits.open:
            edits.copy = value

    # Taking the state.

    def _touch(self) -> Transaction:
        if self._ended:
            raise ended(self.author)
        if self._thread is not None:
            if threading.get_ident() != self._thread:
                raise self._foreign()
            self.wait_in_thread()
        elif not self.in_step():
            self._take_out_of_turn()
        self.own = own = self.open()
        return own

    def in_step(self) -> bool:
        """Whether the running code is the stepped function itself, in a step that holds the lock."""
        return self.holder is Holder.step and current_task() is self._task

    def open(self) -> Transaction:
        """Begin a transaction. The caller holds the lock; it is released if this fails."""
        in_step = self.in_step()
        try:
            opened = Transaction(self.shared_state, self.state_type, self.author, of_step=in_step)
            with self._end_mutex:
                if self._ended:  # `void` ended the call while this thread was getting the lock
                    raise ended(self.author)
                self.holder = opened
        except BaseException:
            if not in_step:
                self.shared_state.lock.release()
            raise
        return opened

    def close(self, done: Transaction) -> None:
        """End the transaction `done`: release its lock, or return the lock to the step that took it."""
        with self._end_mutex:
            done.open = False
            if self.holder is not done:
                return
            if done.of_step and self.steps_current_task():
                self.holder = Holder.step
                return
            self.holder = Holder.nobody
        self.shared_state.lock.release()

    def _take_out_of_turn(self) -> None:
        """Take the state in a step without the lock: the function was cancelled while it waited for the lock.

        It must not wait again, so this works only while nobody else holds the lock.
        """
        if not self.steps_current_task() or self.ungated:
            raise self._foreign()
        if not self.try_lock():
            raise UsageError(
                f"{self.author} was cancelled or timed out and then used session_state, "
                f"which {self.shared_state.holder} holds; to wait for it, use `async with "
                "run_context.transaction()`"
            )

    def _foreign(self) -> UsageError:
        return UsageError(
            f"{self.author}: a task or thread that the function started used session_state before "
            "the function itself did; use it in the function first, or write `async with "
            "run_context.transaction()` in the task"
        )

    def wait_in_thread(self) -> None:
        """Take the state's lock from a worker thread. `void` ends the wait.

        Raises:
            StateLockTimeout: The wait took longer than `timeout`.
            UsageError: The call has ended.
        """
        slot, lock, ticket = self.slot, self.shared_state.lock, Ticket(None)
        if slot is not None:
            slot.wait()
        try:
            with thread_place_released(), self.dependents.cancelled_by(lambda: lock.abort(ticket)):
                if self._ended:
                    raise ended(self.author)
                lock.acquire_blocking(self.timeout, ticket, None if slot is None else slot.mark_passed)
        except LockTimeout:
            raise self.lock_timeout() from None
        except WaitAborted:
            raise ended(self.author) from None
        self.shared_state.holder = str(self.author)

    async def wait_in_task(self) -> None:
        """Take the state's lock from a task.

        Raises:
            StateLockTimeout: The wait took longer than `timeout`.
        """
        if self.try_lock():
            return
        try:
            await self.shared_state.lock.acquire(self.timeout)
        except LockTimeout:
            raise self.lock_timeout() from None
        self.shared_state.holder = str(self.author)

    def try_lock(self) -> bool:
        """Take the state's lock if it is free; returns whether it was."""
        free = self.shared_state.lock.try_acquire()
        if free:
            self.shared_state.holder = str(self.author)
        return free

    def lock_timeout(self) -> StateLockTimeout:
        """The error for a wait that took too long."""
        return StateLockTimeout(
            waiter=str(self.author), holder=self.shared_state.holder, seconds=self.timeout
        )

    # The call's life, as the runtime drives it.

    def thread(self) -> AbstractContextManager[None]:
        """Wrap a sync function in its thread, where a touch may block the thread."""
        return self._run_by(threading.get_ident(), self._task)

    def stepped(self) -> AbstractContextManager[None]:
        """Wrap a coroutine that the current task drives step by step."""
        return self._run_by(None, asyncio.current_task())

    @contextmanager
    def _run_by(self, thread: int | None, task: asyncio.Task[Any] | None) -> Iterator[None]:
        # Parts of a call nest, such as a hook in a thread around an async function: the inner one counts.
        outer = self._thread, self._task
        self._thread, self._task = thread, task
        try:
            yield
        finally:
            self._thread, self._task = outer

    @property
    def over(self) -> bool:
        """Whether the call has returned or was given up. It commits nothing more."""
        return self._ended

    @property
    def size(self) -> int:
        """The size of the state that the call edits, in bytes of JSON; 0 if it has not touched the state."""
        return 0 if self.own is None else self.own.size

    def end(self, *, commit: bool) -> None:
        """End the call: commit or drop its copy and release the lock. A second call does nothing.

        Raises:
            InvalidStateError: The copy is not JSON, or does not fit its type; it is dropped.
        """
        with self._end_mutex:
            if self._ended:
                return
            self._ended = True
            if self.slot is not None:
                self.slot.mark_passed()
            held = self.holder
            if not isinstance(held, Transaction) or self.committing:  # a block that is committing ends itself
                return
            self.committing = commit = commit and held is self.own  # an open block of a child task is dropped
        try:
            if commit:
                held.commit()
        finally:
            self.committing = False
            self.close(held)

    def void(self) -> None:
        """Give the call up while its thread still runs: drop the copy and release the lock now."""
        self.end(commit=False)  # first, so that no thread of the call begins to wait for the lock after this
        self.dependents.give_up()

    @contextmanager
    def commit_of(self, block: Transaction) -> Iterator[None]:
        """Wrap the commit of a block, so that the end of the call does not close the block as well."""
        with self._end_mutex:
            if self.holder is not block:
                raise ended(self.author)
            self.committing = True
        try:
            yield
        finally:
            self.committing = False

    @property
    def unfinished(self) -> bool:
        """Whether a thread of the call is busy with a commit, a wait or a nested run.

        The run waits for these before it ends.
        """
        return self.committing or bool(self.dependents)

    # What the stepper and blocks ask for.

    @property
    def runs_on_loop(self) -> bool:
        """Whether the function is a coroutine on the run's loop, and not code in a worker thread."""
        return self._thread != threading.get_ident()

    def steps_current_task(self) -> bool:
        """Whether the running code is the stepped function itself, and not a child task of it."""
        return self._task is not None and current_task() is self._task

    def keeps_lock(self) -> bool:
        """Whether the stepped function holds the lock between its steps: for the call, or for a block."""
        held = self.holder
        return self.own is not None or (isinstance(held, Transaction) and held.of_step)

    def may_step(self) -> bool:
        """Whether the next step can run now: the call holds the lock, or the step cannot touch the state."""
        if self.keeps_lock() or self.holder is Holder.step or self.ungated > 0:
            return True
        # The step cannot touch the state if another part of the call is running, or the call has ended.
        return self._ended or self._thread is not None or self._task is not current_task()
