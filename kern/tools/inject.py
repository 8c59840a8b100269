"""Selects the arguments for the application's functions (hooks, instructions) by the parameters they
declare.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from kern.errors import UsageError
from kern.tools.signature import PerFunction, context_parameter, describe, signature_of

__all__ = ["call_kwargs", "context_parameter"]

_CONTEXT = "run_context"


class _Wanted:
    """The parameters of a function, each as (parameter, key of the value, whether it is required)."""

    __slots__ = ("items", "open")

    def __init__(self, items: tuple[tuple[str, str, bool], ...], *, open: bool) -> None:
        self.items = items
        self.open = open


def _read(function: Callable[..., Any]) -> _Wanted:
    signature = signature_of(function)
    if signature.positional_only:
        names = ", ".join(parameter.name for parameter in signature.positional_only)
        raise UsageError(
            f"{describe(function)} has positional-only parameters ({names}), but Kern passes "
            "arguments by name: remove the /"
        )
    named = [
        (parameter.name, parameter.name, parameter.default is inspect.Parameter.empty)
        for parameter in signature.parameters
        if parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    ]
    if signature.context_parameter is not None:
        named.append((signature.context_parameter, _CONTEXT, True))
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters)
    return _Wanted(tuple(named), open=takes_all)


_wanted: PerFunction[_Wanted] = PerFunction(_read)


def call_kwargs(function: Callable[..., Any], available: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments for a function: the available values that its parameters name.

    A parameter annotated as `RunContext` receives `available["run_context"]` under any name. A function with
    `**kwargs` receives all values.

    Raises:
        UsageError: A parameter without a default is not available.
    """
    wanted = _wanted(function)
    kwargs = {}
    for parameter, key, required in wanted.items:
        if key in available:
            kwargs[parameter] = available[key]
        elif required:
            raise UsageError(
                f"{describe(function)} has the parameter {parameter!r}, which Kern cannot fill here; "
                f"it may take: {', '.join(sorted(available)) or 'no parameters'}"
            )
    if wanted.open:
        taken = {key for _, key, _ in wanted.items}
        kwargs.update((key, value) for key, value in available.items() if key not in taken)
    return kwargs
