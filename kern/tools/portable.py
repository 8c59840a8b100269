"""Makes callables picklable that pickle rejects: decorated functions and their methods.

Pickle stores a function by its name. The name of a decorated function (`@tool`) refers to what the decorator
returned, so pickle refuses the function inside. It is stored as the decorated object and the way into it.
"""

from __future__ import annotations

import importlib
import operator
import types
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True, frozen=True)
class _Bound:
    """A bound method. Pickle would look it up on the object, and may find a decorated one there."""

    function: Any
    instance: Any


@dataclass(slots=True, frozen=True)
class _Undecorated:
    """The function inside `decorated`, below this number of wrappers."""

    decorated: Any
    wrappers: int


def place_of(function: Any) -> tuple[str, str] | None:
    """The module and the qualified name of a callable; None if it has none."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return (module, name) if isinstance(module, str) and isinstance(name, str) else None


def found_at(module: str, name: str) -> Any:
    """The object in a module under a dotted name; None if there is none."""
    try:
        return operator.attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError):
        return None


def portable(function: Any) -> Any:
    """A picklable form of a callable; `restored` is the reverse."""
    if isinstance(function, types.MethodType):
        return _Bound(portable(function.__func__), function.__self__)
    place = place_of(function)
    found = None if place is None else found_at(*place)
    inner: Any = found
    wrappers = 0
    while inner is not function and hasattr(inner, "__wrapped__"):
        inner, wrappers = inner.__wrapped__, wrappers + 1
    return _Undecorated(found, wrappers) if wrappers and inner is function else function


def restored(function: Any) -> Any:
    """The callable from its `portable` form."""
    if isinstance(function, _Bound):
        return types.MethodType(restored(function.function), function.instance)
    if not isinstance(function, _Undecorated):
        return function
    inner = function.decorated
    for _ in range(function.wrappers):
        inner = inner.__wrapped__
    return inner
