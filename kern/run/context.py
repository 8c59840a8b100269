"""What a tool, a hook or an instruction function is told of the run it works for."""

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
    """What `RunContext.transaction()` returns: for `with` and for `async with`."""

    def __enter__(self) -> StateT_co: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    async def __aenter__(self) -> StateT_co: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class StateHandle(Protocol):
    """One call's view of the session state; `kern.state` has the real one."""

    def read(self) -> Any:
        """The call's own copy; the first read takes the state."""
        ...

    def assign(self, value: Any) -> None:
        """Make `value` the call's state; a TypeError for what is none."""

    def snapshot(self) -> Any:
        """A deep copy that holds nothing."""
        ...

    def transaction(self) -> StateTransaction[Any]:
        """A part of the call that is committed, or undone, by itself."""
        ...


class _PlainState:
    """The state of a context that no run made: a plain value, for unit tests of tools."""

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
    """The run, as tools, hooks and instruction functions see it.

    A tool, hook or instruction function gets one by naming a parameter `run_context`, or by annotating
    one with `RunContext`; the model never sees that parameter. With a typed session state, annotate
    `RunContext[MyState]`.

    In a unit test of a tool, make one yourself: `RunContext(session_state={"items": []})`.

    Args:
        run_id: The run that the call belongs to; a member's run has an id of its own.
        session_id: The session, the same for a team's leader and all its members.
        user_id: Whose session it is.
        session_state: The state of a context made by hand; None is an empty dict.
        dependencies: What the application passed to the run.
        metadata: What the application noted on the agent, team or run.
        agent_id: The agent that calls; None where a team's leader does.
        team_id: The team that calls, or the team of the agent that calls.
        tool_call_id: The model's id of the call; None in hooks and instructions.
        parent_run_id: The run that delegated to this one.
        messages: A function that returns the conversation so far.
        state: The call's view of the session state, from a run.
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
            raise UsageError("RunContext takes session_state or state, not both")
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
        """The same for this call in every process that makes it, and different for any other call.

        For services that do a thing once for a key, however often they are asked: payments, mails, orders.
        """
        return f"{self.run_id}/{self.tool_call_id}" if self.tool_call_id else self.run_id

    @property
    def session_state(self) -> StateT:
        """The session state: a dict (or your model) that is private to this call and edited in place.

        From the first touch until the call returns, the call has the state to itself. Its return commits
        the edits in one step; an error, a timeout or a cancellation undoes them.

        Raises:
            UsageError: The call has returned, or a child task touches the state first.
            StateLockTimeout: Another call has had the state for too long.
        """
        state: StateT = self._state.read()
        return state

    @session_state.setter
    def session_state(self, value: StateT) -> None:
        self._state.assign(value)

    def snapshot(self) -> StateT:
        """A deep copy: of this call's own view if it has touched the state, else of the last commit.

        It holds nothing and waits for nobody: the way to read and go on with slow I/O.
        """
        state: StateT = self._state.snapshot()
        return state

    def transaction(self) -> StateTransaction[StateT]:
        """A part of the call that takes the state, commits and lets go by itself.

        `with run_context.transaction() as state:` in a sync function, `async with` in an async one. In a
        call that has touched the state already it is a savepoint: an error inside undoes the block only.
        """
        return self._state.transaction()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far, read only."""
        return tuple(self._messages()) if self._messages is not None else ()

    def __repr__(self) -> str:
        return f"RunContext(run_id={self.run_id!r}, session_id={self.session_id!r})"
