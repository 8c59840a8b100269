"""Calls functions with positional-only parameters by name, since a model names its arguments."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any


class ByKeyword:
    """Wraps a callable with positional-only parameters, and accepts them by name, too."""

    def __init__(self, function: Callable[..., Any], parameters: Sequence[inspect.Parameter]) -> None:
        self.__wrapped__ = function
        functools.update_wrapper(self, function)
        self._parameters = parameters

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, with each argument at its position."""
        last = max((at for at, p in enumerate(self._parameters, 1) if p.name in kwargs), default=0)
        named = [kwargs.pop(p.name, p.default) for p in self._parameters[len(args) : last]]
        return self.__wrapped__(*args, *named, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., Any]:
        return self if instance is None else types.MethodType(self.__wrapped__, instance)


def without_keywords(entrypoint: Callable[..., Any]) -> Callable[..., Any]:
    """The callable inside a `ByKeyword`; any other as it is."""
    return entrypoint.__wrapped__ if isinstance(entrypoint, ByKeyword) else entrypoint
