"""`@tool`: makes a `Function` of a function, with options."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, overload

from typing_extensions import ParamSpec, TypeVar, Unpack

from kern.tools.function import Function
from kern.tools.options import ToolOptions

P = ParamSpec("P")
R = TypeVar("R")


class _Decorator:
    """What `@tool(...)` returns: a decorator that holds the options."""

    def __init__(self, options: ToolOptions) -> None:
        self._options = options

    def __call__(self, function: Callable[P, R]) -> Function[P, R]:
        return Function(function, **self._options)


@overload
def tool(function: Callable[P, R], /, **options: Unpack[ToolOptions]) -> Function[P, R]: ...
@overload
def tool(**options: Unpack[ToolOptions]) -> _Decorator: ...
def tool(function: Callable[..., Any] | None = None, /, **options: Unpack[ToolOptions]) -> Any:
    """Make a tool of a function; used as `@tool` or, with options, as `@tool(...)`.

    The tool can still be called like the function. In a class it binds like a method.

        @tool
        def add_item(run_context: RunContext, item: str) -> str: ...

        @tool(requires_confirmation=True, timeout=30)
        async def order(article: str, quantity: int = 1) -> str: ...

    Args:
        function: The function or any other callable.
        options: The keywords of `Function`.

    Raises:
        UsageError: The function cannot be a tool, or the options contradict each other.
        TypeError: An option does not exist.
    """
    if function is not None:
        return Function(function, **options)
    known = sorted(ToolOptions.__annotations__)
    for name in options.keys() - ToolOptions.__annotations__.keys():
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"its options are: {', '.join(known)}"
        raise TypeError(f"tool() has no option {name!r}; {hint}")
    return _Decorator(options)
