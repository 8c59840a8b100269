"""Savepoints: the content of a call's copy of the state at one moment, to which the copy can be reset."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from typing import Any

import pydantic

_MODEL_PARTS = ("__dict__", "__pydantic_extra__", "__pydantic_private__", "__pydantic_fields_set__")


class Savepoint:
    """Remembers the content of every container and model that can be reached from `root`.

    `restore` puts the content back into the same objects. References that a function keeps into its state
    (`items = state["items"]`) therefore stay valid, as they would not with a copy of the tree.
    """

    __slots__ = ("_steps", "root")

    def __init__(self, root: Any) -> None:
        self.root: Any = root
        self._steps: list[Callable[[], None]] = []
        seen: dict[int, Any] = {}
        waiting = [root]
        while waiting:
            value = waiting.pop()
            if id(value) not in seen:
                seen[id(value)] = value
                waiting.extend(self._keep(value))

    def restore(self) -> None:
        """Put the content back."""
        for step in self._steps:
            step()

    def _keep(self, value: Any) -> Iterable[Any]:
        """Remember the content of `value`; return the objects in it."""
        if isinstance(value, dict):
            items = value.copy()
            self._steps.append(lambda: _refill(value, items))
            return items.values()
        if isinstance(value, list):
            elements = value.copy()
            self._steps.append(lambda: value.__setitem__(slice(None), elements))
            return elements
        if isinstance(value, set):
            members = value.copy()
            self._steps.append(lambda: _refill(value, members))
            return ()
        if isinstance(value, tuple):
            return value
        if isinstance(value, pydantic.BaseModel):
            return [getattr(value, part, None) for part in _MODEL_PARTS]
        if is_dataclass(value) and hasattr(value, "__dict__"):
            return [value.__dict__]
        return ()


def _refill(container: Any, content: Any) -> None:
    container.clear()
    container.update(content)
