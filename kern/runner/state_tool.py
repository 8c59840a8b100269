"""The tool of `enable_agentic_state`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from kern.run.context import RunContext
from kern.runtime.tool_calls import FunctionTool
from kern.state.codec import encode
from kern.state.model_state import state_type_of
from kern.tools.function import Function
from kern.tools.options import Hook


async def update_session_state(run_context: RunContext, session_state_updates: dict[str, Any]) -> str:
    """Update the shared session state: each key that is given is set to its new value, whole.

    Args:
        session_state_updates: The keys to set, with their complete new values. Keys that are not given stay.
    """
    state = run_context.session_state
    state_type = state_type_of(state)
    state_type.update(state, session_state_updates)
    text, _ = encode(state_type.dump(state))
    return f"The session state is now: {text.decode()}"


STATE_TOOL = update_session_state.__name__


def state_tool(hooks: Sequence[Hook] = ()) -> FunctionTool:
    """The tool, wrapped in these `tool_hooks`."""
    return FunctionTool(_function(), hooks) if hooks else _plain()


@cache
def _function() -> Function:
    return Function.from_callable(update_session_state)


@cache
def _plain() -> FunctionTool:
    return FunctionTool(_function())
