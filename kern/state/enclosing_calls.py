"""The calls that the running code is part of, one per session, in a context variable."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from kern.state.call_state import CallState

_NO_CALLS: Mapping[Hashable, CallState] = {}

enclosing_calls: Final[ContextVar[Mapping[Hashable, CallState]]] = ContextVar("kern_calls", default=_NO_CALLS)
"""The calls that the running code is part of, by the key of their session."""


@contextmanager
def inside_call(call: CallState) -> Iterator[None]:
    """Mark the code in the block as part of `call`."""
    token = enclosing_calls.set({**enclosing_calls.get(), call.session: call})
    try:
        yield
    finally:
        enclosing_calls.reset(token)
