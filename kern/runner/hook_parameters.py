"""What hooks may ask for by the names of their parameters."""

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
"""A hook before a run."""

AFTER: dict[str, None] = {**BEFORE, "run_output": None}
"""A hook after a run."""

AROUND: dict[str, None] = dict.fromkeys(("function_name", "arguments", "run_context", "function_call"))
"""A hook around the calls of tools."""


def check_hooks(parameter: str, hooks: Sequence[Callable[..., Any]], offered: Mapping[str, Any]) -> None:
    """See that hooks are functions that ask for nothing but what they are offered.

    Raises:
        UsageError: Something is not such a function.
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
