"""Tools: a function, its JSON schema, and the validated call."""

from kern.tools.decorator import tool
from kern.tools.function import Function
from kern.tools.inject import call_kwargs, context_parameter
from kern.tools.result import result_text
from kern.tools.schema import strict_schema, undo_strict
from kern.tools.toolkit import (
    Tool,
    Toolkit,
    ToolSource,
    collect,
    instructions_of,
    loaded,
    without_sources,
)

__all__ = [
    "Function",
    "Tool",
    "ToolSource",
    "Toolkit",
    "call_kwargs",
    "collect",
    "context_parameter",
    "instructions_of",
    "loaded",
    "result_text",
    "strict_schema",
    "tool",
    "undo_strict",
    "without_sources",
]
