"""`RunContext`: the run as tools, hooks and instruction functions see it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Generic, Protocol

from typing_extensions import TypeVar

from kern.errors import UsageError
from kern.messages import Message

StateT = TypeVar("StateT", default=dict[str, Any])
StateT_co = TypeVar("StateT_co", covariant=True, default=dict[str, Any])


class StateTransaction(Protocol[StateT_co]):
    """What `RunContext.transaction()` returns: a context manager for `with` and for `async with`."""

    def __enter__(self) -> StateT_co: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    async def __aenter__(self) -> StateT_co: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class StateHandle(Protocol):
    """One call's access to the session state; implemented in `kern.state`."""

    def read(self) -> Any:
        """The call's own copy. The first read locks the state."""
        ...

    def assign(self, value: Any) -> None:
        """Make `value` the call's copy.

        Raises:
            TypeError: It is not a state.
        """

    def snapshot(self) -> Any:
        """A deep copy, without locking the state."""
        ...

    def transaction(self) -> StateTransaction[Any]:
        """A block whose edits are committed, or undone, at its end."""
        ...


class _PlainState:
    """The state of a context that was made by hand, for unit tests of tools: a plain value."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def read(self) -> Any:
        return self.value

    def assign(self, value: Any) -> None:
        if value is None:
            raise TypeError("session_state must be a dict, not None; to empty it, assign {}")
        self.value = value

    def snapshot(self) -> Any:
        return copy.deepcopy(self.value)

    def transaction(self) -> StateTransaction[Any]:
        return _PlainTransaction(self)


class _PlainTransaction:
    def __init__(self, state: _PlainState) -> None:
        self._state = state
        self._saved: Any = None

    def __enter__(self) -> Any:
        self._saved = self._state.snapshot()
        return self._state.value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._state.value = self._saved

    async def __aenter__(self) -> Any:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


class RunContext(Generic[StateT]):
    """The run as tools, hooks and instruction functions see it.

    A function gets it as its parameter `run_context`, or as any parameter that is annotated with
    `RunContext`. The model does not see this parameter. With a typed session state, annotate
    `RunContext[MyState]`.

    In a unit test of a tool, make one yourself: `RunContext(session_state={"items": []})`.

    Args:
        run_id: The run that the call belongs to; a member's run has its own id.
        session_id: The session; the same for a team's leader and all members.
        user_id: The owner of the session; None if it has none.
        session_state: The state, for a context made by hand; None: an empty dict.
        dependencies: The `dependencies` that the application passed to the agent, team or run.
        metadata: The `metadata` of the agent, team and run.
        agent_id: The agent that makes the call; None if a team's leader does.
        team_id: The team whose leader makes the call, or the team of the agent that does.
        tool_call_id: The model's id of the call; None in hooks and instructions.
        parent_run_id: The run that delegated to this one; None for a run that the application started.
        messages: A function that returns the conversation so far.
        state: The access to the session state; set by the runtime.
    """

    __slots__ = (
        "_messages",
        "_state",
        "agent_id",
        "dependencies",
        "metadata",
        "parent_run_id",
        "run_id",
        "session_id",
        "team_id",
        "tool_call_id",
        "user_id",
    )

    def __init__(
        self,
        *,
        run_id: str = "",
        session_id: str = "",
        user_id: str | None = None,
        session_state: StateT | None = None,
        dependencies: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        agent_id: str | None = None,
        team_id: str | None = None,
        tool_call_id: str | None = None,
        parent_run_id: str | None = None,
        messages: Callable[[], Sequence[Message]] | None = None,
        state: StateHandle | None = None,
    ) -> None:
        if state is not None and session_state is not None:
            raise UsageError("RunContext takes either session_state or state, not both")
        self.run_id: str = run_id
        self.session_id: str = session_id
        self.user_id: str | None = user_id
        self.dependencies: dict[str, Any] = {} if dependencies is None else dependencies
        self.metadata: dict[str, Any] = {} if metadata is None else metadata
        self.agent_id: str | None = agent_id
        self.team_id: str | None = team_id
        self.tool_call_id: str | None = tool_call_id
        self.parent_run_id: str | None = parent_run_id
        self._messages = messages
        self._state: StateHandle = state or _PlainState({} if session_state is None else session_state)

    @property
    def idempotency_key(self) -> str:
        """A key that is unique to this call, and the same if the call is repeated, also by another process.

        Pass it to services that carry a request out only once per key: payments, mails, orders.
        """
        return f"{self.run_id}/{self.tool_call_id}" if self.tool_call_id else self.run_id

    @property
    def session_state(self) -> StateT:
        """The session state: a dict, or your model, that this call may edit in place.

        From the first access until it returns, the call has exclusive use of the state. When it returns, the
        edits are committed in one step; an error, a timeout or a cancellation undoes them.

        Raises:
            UsageError: The call has returned, or a task or thread of the call uses the state before the call
                itself does.
            StateLockTimeout: Another call has held the state for too long.
        """
        state: StateT = self._state.read()
        return state

    @session_state.setter
    def session_state(self, value: StateT) -> None:
        self._state.assign(value)

    def snapshot(self) -> StateT:
        """A deep copy of the state: as this call has edited it, or as of the last commit.

        It does not lock the state and never waits. Use it to read the state before slow I/O.
        """
        state: StateT = self._state.snapshot()
        return state

    def transaction(self) -> StateTransaction[StateT]:
        """Lock the state for a block only, and commit at the end of the block.

        Write `with run_context.transaction() as state:` in a sync function, and `async with` in an async one.
        If the call has used the state before, the block is a savepoint: an error inside undoes the edits of
        the block only.
        """
        return self._state.transaction()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far; read-only."""
        return tuple(self._messages()) if self._messages is not None else ()

    def __repr__(self) -> str:
        return f"RunContext(run_id={self.run_id!r}, session_id={self.session_id!r})"
