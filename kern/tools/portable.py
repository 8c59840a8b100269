"""Callables as pickle takes them.

Pickle writes a function down by its name. The name of a function that is decorated, as by `@tool`, stands for
what the decorator made of it, so pickle refuses the function itself: it is found by way of that.
"""

from __future__ import annotations

import importlib
import operator
import types
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True, frozen=True)
class _Bound:
    """A method: pickle would look it up on the object, and may find what a decorator made of it."""

    function: Any
    instance: Any


@dataclass(slots=True, frozen=True)
class _Undecorated:
    """What `decorated` wraps, by so many wrappers."""

    decorated: Any
    wrappers: int


def place_of(function: Any) -> tuple[str, str] | None:
    """The module and the dotted name under which a callable was defined, if it has such."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    return (module, name) if isinstance(module, str) and isinstance(name, str) else None


def found_at(module: str, name: str) -> Any:
    """What a module has under a dotted name; None if there is nothing."""
    try:
        return operator.attrgetter(name)(importlib.import_module(module))
    except (ImportError, AttributeError):
        return None


def portable(function: Any) -> Any:
    """A callable, as pickle takes it; `restored` is the reverse."""
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
    """The callable that `portable` was given."""
    if isinstance(function, _Bound):
        return types.MethodType(restored(function.function), function.instance)
    if not isinstance(function, _Undecorated):
        return function
    inner = function.decorated
    for _ in range(function.wrappers):
        inner = inner.__wrapped__
    return inner
