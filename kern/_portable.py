"""Exceptions that can be copied and pickled, and so cross between processes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any, Self


class Portable(Exception):
    """An exception that can be copied and pickled with its attributes, for any signature of `__init__`."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        return _revived, (type(self), self.args), {k: _picklable(k, v) for k, v in vars(self).items()}

    def __copy__(self) -> Self:
        twin: Self = _revived(type(self), self.args)
        vars(twin).update(vars(self))
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin: Self = _revived(type(self), copy.deepcopy(self.args, memo))
        memo[id(self)] = twin
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin


def _revived(kind: type[Any], args: tuple[Any, ...]) -> Any:
    """Make an error without calling its `__init__`, which would add its words to the message again."""
    error = kind.__new__(kind, *args)
    error.args = args
    return error


def _picklable(name: str, value: Any) -> Any:
    """The value of an attribute as pickle accepts it.

    The content of a run's output may be an object that cannot be pickled. Then the output is converted as
    for the database, with plain JSON for the content.
    """
    if name != "run_output" or value is None:
        return value
    try:
        pickle.dumps(value)
    except Exception:  # noqa: BLE001 - objects of the application may raise anything
        return type(value).from_dict(value.to_dict())
    return value
