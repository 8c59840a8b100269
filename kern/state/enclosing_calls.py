"""The tool calls that the running code is part of, one per session, in a context variable."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from kern.state.call_state import CallState

_NO_CALLS: Mapping[Hashable, CallState] = {}
_enclosing: ContextVar[Mapping[Hashable, CallState]] = ContextVar("kern_calls", default=_NO_CALLS)


def enclosing_call(session: Hashable) -> CallState | None:
    """The call on `session` that the running code is part of, or None."""
    return _enclosing.get().get(session)


def active_calls() -> Iterable[CallState]:
    """The calls that the running code is part of, one for each session."""
    return _enclosing.get().values()


@contextmanager
def inside_call(call: CallState) -> Iterator[None]:
    """Wrap the function of a call, so that code inside finds the call by its session."""
    token = _enclosing.set({**_enclosing.get(), call.session: call})
    try:
        yield
    finally:
        _enclosing.reset(token)
