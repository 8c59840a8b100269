"""`tools` and `tool_hooks`: checked when an agent or a team is made, compiled when a run needs them."""

from __future__ import annotations

import types
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

from typing_extensions import TypeIs

from kern.errors import UsageError
from kern.runner.hook_parameters import AROUND, check_hooks
from kern.runtime.run_tree import RunnableTool
from kern.runtime.tool_calls import FunctionTool
from kern.tools import Function, ServerTool, Tool
from kern.tools.server_tool import server_tools
from kern.tools.signature import PerFunction
from kern.tools.toolkit import collect, without_sources

Compiled = tuple[tuple[Any, ...], dict[str, RunnableTool]]
"""The tools and hooks that were compiled, and the compiled tools by name."""


def compiled(tools: Sequence[Tool], hooks: Sequence[Callable[..., Any]], known: Compiled | None) -> Compiled:
    """Compile the tools, or return `known` if the tools and hooks are the same objects as before.

    Raises:
        UsageError: Two different tools have the same name, or something is not a tool.
    """
    given = (*tools, *hooks)
    if known is None or len(known[0]) != len(given) or any(map(_differ, known[0], given)):
        made: dict[str, RunnableTool] = {
            name: FunctionTool(function, hooks) for name, function in collect(tools).items()
        }
        return given, made
    return known


def checked(
    tools: Sequence[Tool], hooks: Sequence[Callable[..., Any]], taken: Mapping[str, str]
) -> Compiled | None:
    """Check the tools and hooks. Tool sources are not checked: each run asks them for their tools.

    A plain function is inspected once, even if many agents have it, so that making an agent is cheap.

    Args:
        taken: The reserved names, with what uses each.

    Returns:
        The compiled tools, if the check had to compile them.

    Raises:
        UsageError: Two different tools have the same name, or something is not a tool or not a hook.
    """
    if not hooks and _all_plain(tools, taken):
        return None
    if by_provider := server_tools(tools):
        taken = {**taken, **{tool.name: f"the provider ({tool!r})" for tool in by_provider}}
        tools = [tool for tool in tools if not isinstance(tool, ServerTool)]
    if hooks:
        check_hooks("tool_hooks", hooks, AROUND)
    elif by_provider and _all_plain(tools, taken):
        return None
    known = without_sources(tools)
    functions = collect(known)
    check_names(functions, taken)
    ready = [_sound(function).evaluated for function in functions.values()]
    return compiled(known, hooks, None) if all(ready) else None


def _all_plain(tools: Sequence[Tool], taken: Mapping[str, str]) -> bool:
    """Whether the tools are plain functions with different names, none of which is taken."""
    names = {_name_of(tool) for tool in tools if _is_plain(tool)}
    if len(names) < len(tools):
        return False
    check_names(names, taken)
    return True


def check_names(names: Container[str], taken: Mapping[str, str]) -> None:
    """Check that no tool has a reserved name.

    Args:
        taken: The reserved names, with what uses each.

    Raises:
        UsageError: A tool has one.
    """
    for name in taken:
        if name in names:
            raise UsageError(f"tools: {taken[name]} adds a tool named {name!r}; rename yours")


def _differ(one: Any, other: Any) -> bool:
    return one is not other and one != other


def _is_plain(tool: Tool) -> TypeIs[types.FunctionType | types.MethodType]:
    return type(tool) is types.FunctionType or (
        isinstance(tool, types.MethodType) and type(tool.__func__) is types.FunctionType
    )


def _sound(function: Function) -> Function:
    """Check that the tool has a schema, unless an annotation refers to a name that is defined later."""
    if function.evaluated:
        assert function.parameters is not None
    return function


def _read(function: Callable[..., Any]) -> str:
    return _sound(Function.from_callable(function)).name


_name_of: PerFunction[str] = PerFunction(_read)
"""Returns the name of a plain function's tool, after a check that it can be a tool; computed once."""
