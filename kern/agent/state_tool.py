"""The tool of `enable_agentic_state`."""

from __future__ import annotations

import json
from typing import Any

from kern.run.context import RunContext
from kern.runtime.toolrun import FunctionTool
from kern.tools.function import Function


async def update_session_state(run_context: RunContext, session_state_updates: dict[str, Any]) -> str:
    """Update the shared session state: each key that is given is set to its new value, whole.

    Args:
        session_state_updates: The keys to set, with their complete new values. Keys that are not given stay.
    """
    run_context.session_state.update(session_state_updates)
    state = json.dumps(run_context.session_state, ensure_ascii=False)
    return f"The session state is now: {state}"


STATE_TOOL = FunctionTool(Function.from_callable(update_session_state))
