"""What the session state looks like to the functions that edit it: here a dict, in `typed` a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pydantic

from kern.errors import UsageError
from kern.state.codec import decode
from kern.state.overlay import deep_merge


class StateType(Protocol):
    """Between the JSON text of the state and the object that a call edits."""

    def load(self, text: bytes) -> Any:
        """A private object for one call."""

    def load_tree(self, tree: Any) -> Any:
        """The same, from parsed data that nobody else keeps."""

    def dump(self, value: Any) -> Any:
        """The object as plain JSON data, for the commit."""

    def fit(self, tree: Any) -> Any:
        """A state as this type writes it, `tree` itself if it is that already.

        Raises:
            InvalidStateError: It does not fit this type.
        """

    def accept(self, value: Any) -> None:
        """Refuse with a TypeError what cannot be assigned to `session_state`."""

    def restore(self, target: Any, source: Any) -> None:
        """Make the content of `target` that of `source`, in place; see `put_back`."""

    def update(self, value: Any, updates: Mapping[str, Any]) -> None:
        """Set top-level keys of an object that a call edits."""

    def lay_over(self, base: Mapping[str, Any], given: Any) -> dict[str, Any]:
        """The state `base` with a run's `session_state=` merged deep over it.

        Raises:
            UsageError: `given` is of a type that makes no sense here.
        """
        ...


class DictStateType:
    """The state as a dict."""

    def load(self, text: bytes) -> Any:
        """A fresh dict."""
        return decode(text)

    def load_tree(self, tree: Any) -> Any:
        """The dict itself."""
        return tree

    def dump(self, value: Any) -> Any:
        """The dict itself."""
        return value

    def fit(self, tree: Any) -> Any:
        """Any dict fits."""
        return tree

    def accept(self, value: Any) -> None:
        """Only a dict will do."""
        if not isinstance(value, dict):
            raise TypeError(
                f"session_state must be a dict, not {type(value).__name__}; to empty it, assign {{}}"
            )

    def restore(self, target: Any, source: Any) -> None:
        """Make the content of one dict that of the other."""
        put_back(target, source)

    def update(self, value: Any, updates: Mapping[str, Any]) -> None:
        """Set the keys."""
        check_updates(updates)
        value.update(updates)

    def lay_over(self, base: Mapping[str, Any], given: Any) -> dict[str, Any]:
        """Dicts merge, anything else is replaced."""
        if not isinstance(given, Mapping):
            raise UsageError(f"session_state must be a dict, not {type(given).__name__}")
        return deep_merge(base, given)


DICT = DictStateType()


def put_back(target: Any, source: Any) -> Any:
    """`source`, in the containers of `target` wherever both have one at the same place.

    What a function keeps of its state (`items = state["items"]`) stays a part of it when another's commit, or
    the end of a savepoint, changes the state under its hands. `source` must be nobody else's.
    """
    return _PutBack().value(target, source)


class _PutBack:
    """One `put_back` at work. A container that stands at two places of the target is used once."""

    __slots__ = ("_used",)

    def __init__(self) -> None:
        self._used: set[int] = set()

    def value(self, target: Any, source: Any) -> Any:
        if target is source or id(target) in self._used:
            return source
        if isinstance(target, dict) and isinstance(source, dict):
            self._used.add(id(target))
            old = dict(target)
            target.clear()
            target.update((key, self.value(old.get(key), value)) for key, value in source.items())
            return target
        if isinstance(target, list) and isinstance(source, list):
            self._used.add(id(target))
            target[:] = self._elements(target, source)
            return target
        if isinstance(target, pydantic.BaseModel) and type(target) is type(source):
            self._used.add(id(target))
            state = source.__getstate__()
            old = target.__dict__
            fields = {name: self.value(old.get(name), value) for name, value in state["__dict__"].items()}
            target.__setstate__({**state, "__dict__": fields})
            return target
        return source

    def _elements(self, target: list[Any], source: list[Any]) -> list[Any]:
        """Equal elements at the start and at the end are the same ones; so are all if none came or went."""
        shorter = min(len(target), len(source))
        start, end = shorter, 0
        if len(target) != len(source):
            start = next((i for i in range(shorter) if target[i] != source[i]), shorter)
            rest = shorter - start
            end = next((i for i in range(rest) if target[-1 - i] != source[-1 - i]), rest)
        return [
            *map(self.value, target[:start], source[:start]),
            *source[start : len(source) - end],
            *map(self.value, target[len(target) - end :], source[len(source) - end :]),
        ]


def check_updates(updates: Any) -> None:
    """See that what is to be set is keys with values.

    Raises:
        UsageError: It is not.
    """
    if not isinstance(updates, Mapping):
        raise UsageError(
            f"update_session_state takes a dict of the keys to set, not {type(updates).__name__}"
        )
