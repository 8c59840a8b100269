"""The options of a tool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from typing_extensions import TypedDict

from kern.messages import CacheMark
from kern.tools.schema import Schema

Hook = Callable[..., Any]

Effect = Literal["read", "idempotent", "once"]
"""What a repeated call does: "read" changes nothing, "idempotent" changes nothing more, "once" does harm."""


class ToolOptions(TypedDict, total=False):
    """The keywords of `Function` and `@tool`, documented at `Function`."""

    name: str | None
    description: str | None
    parameters: Schema | None
    strict: bool
    instructions: str | None
    show_result: bool | None
    stop_after_tool_call: bool
    requires_confirmation: bool
    requires_user_input: bool
    user_input_fields: Sequence[str]
    external_execution: bool
    pre_hook: Hook | None
    post_hook: Hook | None
    tool_hooks: Sequence[Hook]
    cache_results: bool
    cache_ttl: float
    cache_dir: str | Path | None
    timeout: float | None
    cache: CacheMark | None
    effect: Effect | None
