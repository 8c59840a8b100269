"""What a call's copy of the state holds at one moment, to go back to."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import is_dataclass
from typing import Any

import pydantic

_MODEL_PARTS = ("__dict__", "__pydantic_extra__", "__pydantic_private__", "__pydantic_fields_set__")


class Savepoint:
    """The content of every container and model that can be reached from `root`.

    No copy of the tree: going back puts the content into the very objects that had it, so that whatever a
    function keeps of its state (`items = state["items"]`) is a part of the state as before.
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
        """Put everything back."""
        for step in self._steps:
            step()

    def _keep(self, value: Any) -> Iterable[Any]:
        """Note what `value` holds; returns the objects in it."""
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
