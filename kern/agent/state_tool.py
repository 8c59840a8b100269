"""The tool of `enable_agentic_state`."""

from __future__ import annotations

from functools import cache
from typing import Any

from kern.run.context import RunContext
from kern.runtime.toolrun import FunctionTool
from kern.state.codec import encode
from kern.state.typed import shape_of
from kern.tools.function import Function


async def update_session_state(run_context: RunContext, session_state_updates: dict[str, Any]) -> str:
    """Update the shared session state: each key that is given is set to its new value, whole.

    Args:
        session_state_updates: The keys to set, with their complete new values. Keys that are not given stay.
    """
    state = run_context.session_state
    shape = shape_of(state)
    shape.update(state, session_state_updates)
    text, _ = encode(shape.dump(state))
    return f"The session state is now: {text.decode()}"


@cache
def state_tool() -> FunctionTool:
    """The tool, made once."""
    return FunctionTool(Function.from_callable(update_session_state))
