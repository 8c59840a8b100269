"""A private copy of the session state, from the moment its lock is held until its commit or its drop."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from kern._error_text import only_error
from kern.errors import AgentSignal
from kern.state.shared_state import Author, NestedState, SharedState, ended
from kern.state.state_type import StateType

current: ContextVar[Transaction | None] = ContextVar("kern_transaction", default=None)
"""The transaction of the `transaction()` block that the running code is in."""


def keeps_edits(error: BaseException | None) -> bool:
    """Whether what a function has edited stands: it has returned, or raised what only steers the model."""
    return error is None or isinstance(only_error(error), AgentSignal)


class Transaction:
    """A private copy of the state, edited under the lock, then committed or dropped.

    Args:
        shared_state: Where it was taken from, and is committed to. The caller has the lock.
        state_type: What the copy looks like.
        author: What the commit is signed with.
        of_step: The lock is that of a step of the call's own coroutine, and goes back to it.
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
        """It is neither committed nor dropped yet."""

    @property
    def size(self) -> int:
        """Bytes of the state that is edited."""
        return len(self._base)

    def commit(self) -> None:
        """Make the copy the state."""
        self._shared_state.commit(self._state_type.dump(self.copy), self._author, self._base)

    def nested_state(self) -> NestedState:
        """The scope for runs that are nested in it. The caller sees to it that it is made once."""
        if self._inner is None:
            self._inner = NestedState(self)
        return self._inner

    # What a NestedState asks for (EnclosingCall).

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
