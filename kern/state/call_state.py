"""One call of an application's function, as a transaction on the session state.

From its first touch of `session_state` until it returns, a call has the state to itself. A `CallState` takes
the state's lock at the first touch, edits a private copy, and commits or drops it when the call ends.

Who may touch first depends on where the function runs. In a worker thread (`thread()`) the touch waits right
there. A coroutine that is stepped by hand (`kern.state.stepping`) has the lock for the length of each step,
and a touch keeps it. A child task or thread may share what its call has, but not take it: `UsageError`.
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
    """The stepper, for this step; a touch may keep it."""


class CallState:
    """One call's view of the session state.

    Args:
        shared_state: Where the call takes its turn.
        author: What its commit is signed with.
        session: Identifies the session, so that nested runs on it find this call.
        owner: The run that calls, for the runtime to find from a nested run.
        state_type: What the state looks like to the function.
        timeout: Seconds to wait for the state.
        slot: The call's place among those of its turn.
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
        """How many awaits of Kern's own are open in which the function takes no turns; see `Ungated`."""
        self._task: asyncio.Task[Any] | None = None
        self._thread: int | None = None
        self._ended = False
        self._end_mutex = threading.Lock()
        self.dependents: Dependents = Dependents()

    # What the running code edits.

    @property
    def touched(self) -> bool:
        """The call has the state, or had it until its end."""
        return self.own is not None

    def edits(self) -> Transaction | None:
        """The transaction of the running code: the call's, or that of the `transaction()` block around it."""
        if self.own is not None:
            return self.own
        block = current.get()
        return block if block is not None and block is self.holder else None

    def take(self) -> Transaction:
        """The same; the first touch takes the state."""
        edits = self.edits() or self._touch()
        if self._ended:
            raise ended(self.author)
        return edits

    def read(self) -> Any:
        """The copy that the running code edits."""
        return self.take().copy

    def has_state(self) -> bool:
        """The running code edits a copy already."""
        return self.edits() is not None

    def nested_state(self) -> NestedState:
        """The scope for nested runs of this call, which has the state: as a whole, or in an open block."""
        edits = self.take()
        with self._end_mutex:
            return edits.nested_state()

    def put_back(self, value: Any) -> None:
        """Make `value`, which was the running code's copy before, its copy again."""
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
        """The running code is the stepped function itself, in a step that has the lock."""
        return self.holder is Holder.step and current_task() is self._task

    def open(self) -> Transaction:
        """Begin a transaction with the lock that the running code has got."""
        in_step = self.in_step()
        try:
            opened = Transaction(self.shared_state, self.state_type, self.author, of_step=in_step)
            with self._end_mutex:
                if self._ended:  # made void while the lock was on its way to this thread
                    raise ended(self.author)
                self.holder = opened
        except BaseException:
            if not in_step:
                self.shared_state.lock.release()
            raise
        return opened

    def close(self, done: Transaction) -> None:
        """End `done`: release the lock that it holds, or give it back to the step that it came from."""
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
        """The function was cancelled while waiting for the lock: it may take the state only if it is free."""
        if not self.steps_current_task() or self.ungated:
            raise self._foreign()
        if not self.try_lock():
            raise UsageError(
                f"{self.author} was cancelled or timed out, and cannot take the session state, "
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
        """Take the state's lock from a worker thread; `void` ends the wait."""
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
        """Take the state's lock from a task."""
        if self.try_lock():
            return
        try:
            await self.shared_state.lock.acquire(self.timeout)
        except LockTimeout:
            raise self.lock_timeout() from None
        self.shared_state.holder = str(self.author)

    def try_lock(self) -> bool:
        """Take the state's lock if it is free."""
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
        """Wrap a sync function in its thread, where a touch may block."""
        return self._run_by(threading.get_ident(), self._task)

    def stepped(self) -> AbstractContextManager[None]:
        """Wrap a coroutine that the current task steps."""
        return self._run_by(None, asyncio.current_task())

    @contextmanager
    def _run_by(self, thread: int | None, task: asyncio.Task[Any] | None) -> Iterator[None]:
        # Pieces of a call nest, such as a hook in a thread around an async function: the inner one wins.
        outer = self._thread, self._task
        self._thread, self._task = thread, task
        try:
            yield
        finally:
            self._thread, self._task = outer

    @property
    def over(self) -> bool:
        """The call has returned, or was given up: what it commits, it has committed."""
        return self._ended

    @property
    def size(self) -> int:
        """Bytes of the state that the call edits; 0 if it does not."""
        return 0 if self.own is None else self.own.size

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
                self.slot.mark_passed()
            held = self.holder
            if not isinstance(held, Transaction) or self.committing:  # a block at its commit ends by itself
                return
            self.committing = commit = commit and held is self.own  # a child's block is dropped
        try:
            if commit:
                held.commit()
        finally:
            self.committing = False
            self.close(held)

    def void(self) -> None:
        """The call is given up while its thread still runs: release the state now, drop the copy."""
        self.end(commit=False)  # first of all, so that no thread of the call begins to wait after this
        self.dependents.give_up()

    @contextmanager
    def commit_of(self, block: Transaction) -> Iterator[None]:
        """Wrap the commit of a block, so that the end of the call does not close it too."""
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
        """A thread of the call is at what must not outlive its run: a commit, a wait, a nested run."""
        return self.committing or bool(self.dependents)

    # What the stepper and blocks ask for.

    @property
    def runs_on_loop(self) -> bool:
        """The function is a coroutine; a thread that runs a loop of its own is not."""
        return self._thread != threading.get_ident()

    def steps_current_task(self) -> bool:
        """The running code is the function itself, stepped, and no child task of it."""
        return self._task is not None and current_task() is self._task

    def keeps_lock(self) -> bool:
        """The stepped function holds the lock between its steps too: for the call, or for a block of it."""
        held = self.holder
        return self.own is not None or (isinstance(held, Transaction) and held.of_step)

    def may_step(self) -> bool:
        """The next step can run as it is: the call holds the lock, or the step cannot touch the state."""
        if self.keeps_lock() or self.holder is Holder.step or self.ungated > 0:
            return True
        # A step that may not touch needs no turn: another piece of the call is at work, or it has ended.
        return self._ended or self._thread is not None or self._task is not current_task()
