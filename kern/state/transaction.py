"""A private copy of the session state, from the moment its lock is held until its commit or its drop."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from kern._error_text import sole
from kern.errors import AgentSignal
from kern.state.shared_state import EnclosedScope, Scope, Writer, ended
from kern.state.state_type import Shape

current: ContextVar[Transaction | None] = ContextVar("kern_transaction", default=None)
"""The transaction of the `transaction()` block that the running code is in."""


def keeps_edits(error: BaseException | None) -> bool:
    """Whether what a function has edited stands: it has returned, or raised what only steers the model."""
    return error is None or isinstance(sole(error), AgentSignal)


class Transaction:
    """A private copy of the state, edited under the lock, then committed or dropped.

    Args:
        scope: Where it was taken from, and is committed to. The caller has the lock.
        shape: What the copy looks like.
        writer: What the commit is signed with.
        of_step: The lock is that of a step of the call's own coroutine, and goes back to it.
    """

    __slots__ = ("_base", "_inner", "_scope", "_shape", "_writer", "copy", "of_step", "open")

    def __init__(self, scope: Scope, shape: Shape, writer: Writer, *, of_step: bool) -> None:
        self._scope = scope
        self._shape = shape
        self._writer = writer
        self._base = scope.text
        self._inner: EnclosedScope | None = None
        self.copy: Any = shape.load(self._base)
        self.of_step: bool = of_step
        self.open: bool = True
        """It is neither committed nor dropped yet."""

    @property
    def size(self) -> int:
        """Bytes of the state that is edited."""
        return len(self._base)

    def commit(self) -> None:
        """Make the copy the state."""
        self._scope.commit(self._shape.dump(self.copy), self._writer, self._base)

    def enclosed_scope(self) -> EnclosedScope:
        """The scope for runs that are nested in it. The caller sees to it that it is made once."""
        if self._inner is None:
            self._inner = EnclosedScope(self)
        return self._inner

    # What an EnclosedScope asks for (EnclosingCall).

    def edited(self) -> Any:
        """The copy as plain JSON data."""
        if not self.open:
            raise ended(self._writer)
        return self._shape.dump(self.copy)

    def replace(self, tree: Any) -> None:
        """Put what a nested run committed into the copy, in place."""
        if not self.open:
            raise ended(self._writer)
        self._shape.restore(self.copy, self._shape.load_tree(tree))
