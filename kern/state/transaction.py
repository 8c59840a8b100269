"""A transaction on the session state: a private copy, edited under the lock, then committed or dropped."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from kern._error_text import only_error
from kern.errors import AgentSignal
from kern.state.shared_state import Author, NestedState, SharedState, ended
from kern.state.state_type import StateType

current: ContextVar[Transaction | None] = ContextVar("kern_transaction", default=None)
"""The transaction of the `transaction()` block that the running code is in; None outside of one."""


def keeps_edits(error: BaseException | None) -> bool:
    """Whether a function's edits are kept: if it returned, or raised an `AgentSignal` to steer the model."""
    return error is None or isinstance(only_error(error), AgentSignal)


class Transaction:
    """A private copy of the state, edited under the lock, then committed or dropped.

    Args:
        shared_state: The state that is copied and committed to. The caller holds its lock.
        state_type: Whether the copy is a dict or a model.
        author: The author of the commit.
        of_step: The lock was taken for a step of the call's own coroutine, and is returned to that step.
    """

    __slots__ = ("_author", "_base", "_inner", "_shared_state", "_state_type", "copy", "of_step", "open")

    def __init__(
        self, shared_state: SharedState, state_type: StateType, author: Author, *, of_step: bool
    ) -> None:
        self._shared_state = shared_state
        self._state_type = state_type
        self._author = author
        self._base = shared_state.text
        self._inner: NestedState | None = None
        self.copy: Any = state_type.load(self._base)
        self.of_step: bool = of_step
        self.open: bool = True
        """Whether the transaction is neither committed nor dropped yet."""

    @property
    def size(self) -> int:
        """The size of the state as of the start, in bytes of JSON."""
        return len(self._base)

    def commit(self) -> None:
        """Make the copy the state.

        Raises:
            InvalidStateError: The copy is not JSON, or does not fit its type.
        """
        self._shared_state.commit(self._state_type.dump(self.copy), self._author, self._base)

    def nested_state(self) -> NestedState:
        """The state for runs nested in this transaction; made once, so the caller must hold a mutex."""
        if self._inner is None:
            self._inner = NestedState(self)
        return self._inner

    # The protocol EnclosingCall, for NestedState.

    def edited(self) -> Any:
        """The copy as plain JSON data."""
        if not self.open:
            raise ended(self._author)
        return self._state_type.dump(self.copy)

    def replace(self, tree: Any) -> None:
        """Put what a nested run committed into the copy, in place."""
        if not self.open:
            raise ended(self._author)
        self._state_type.restore(self.copy, self._state_type.load_tree(tree))
