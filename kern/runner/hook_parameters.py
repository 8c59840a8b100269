"""The parameters that hooks may have, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kern.errors import UsageError
from kern.tools.inject import call_kwargs
from kern.tools.signature import describe, signature_of

BEFORE: dict[str, None] = dict.fromkeys(
    (
        *("run_input", "run_context", "run_id", "session_id", "user_id", "agent_id", "team_id"),
        *("metadata", "dependencies", "debug_mode"),
    )
)
"""The parameters of a hook before a run."""

AFTER: dict[str, None] = {**BEFORE, "run_output": None}
"""The parameters of a hook after a run."""

AROUND: dict[str, None] = dict.fromkeys(("function_name", "arguments", "run_context", "function_call"))
"""The parameters of a hook around tool calls."""


def check_hooks(parameter: str, hooks: Sequence[Callable[..., Any]], offered: Mapping[str, Any]) -> None:
    """Check that hooks are functions whose parameters are all offered.

    Args:
        parameter: The parameter that the hooks were passed as, for errors.
        hooks: The hooks.
        offered: The names that they may ask for.

    Raises:
        UsageError: A hook is not a function, is a generator, or has an unknown parameter.
    """
    if callable(hooks):
        raise UsageError(f"{parameter} must be a list of functions, not a single function: {parameter}=[...]")
    for hook in hooks:
        if not callable(hook):
            raise UsageError(f"{parameter}: a hook must be a function, not {hook!r}")
        if signature_of(hook).kind not in ("sync", "async"):
            raise UsageError(
                f"{parameter}: {describe(hook)} is a generator, and a hook must return its value "
                "instead of yielding it"
            )
        call_kwargs(hook, offered)
