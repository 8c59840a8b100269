"""`tools` and `tool_hooks`: checked when an agent or a team is made, made ready when they are needed."""

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
"""The tools and hooks that were made ready, and what came of them, by name."""


def compiled(tools: Sequence[Tool], hooks: Sequence[Callable[..., Any]], known: Compiled | None) -> Compiled:
    """The tools made ready: `known`, as long as they and their hooks are the same objects.

    Raises:
        UsageError: Two different tools have one name, or something is not a tool.
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
    """See that all of them can be what they are meant to be, but for sources, which are asked at each run.

    Plain functions are looked at once, however many agents have them: making an agent of them is cheap.

    Args:
        taken: Names that no tool may have, with who has them.

    Returns:
        The tools made ready, if that was the way to see it.

    Raises:
        UsageError: Two different tools have one name, or something is not a tool or not a hook.
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
    """The tools are plain functions of different names, none of which is taken."""
    names = {_name_of(tool) for tool in tools if _is_plain(tool)}
    if len(names) < len(tools):
        return False
    check_names(names, taken)
    return True


def check_names(names: Container[str], taken: Mapping[str, str]) -> None:
    """See that no tool has a name that is taken.

    Args:
        taken: The names, with who has them.

    Raises:
        UsageError: One has.
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
    """The tool, which has a schema, unless that waits for a name which is defined later."""
    if function.evaluated:
        assert function.parameters is not None
    return function


def _read(function: Callable[..., Any]) -> str:
    return _sound(Function.from_callable(function)).name


_name_of: PerFunction[str] = PerFunction(_read)
"""The name of the tool that a function makes, which can be one."""
