"""How functions see the session state: as a dict (here) or as a pydantic model (`kern.state.model_state`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pydantic

from kern.errors import UsageError
from kern.state.codec import decode
from kern.state.overlay import deep_merge


class StateType(Protocol):
    """Converts between the JSON text of the state and the object that a call edits."""

    def load(self, text: bytes) -> Any:
        """Parse the text into a private object for one call."""

    def load_tree(self, tree: Any) -> Any:
        """Make the same object from parsed data, which the caller gives away."""

    def dump(self, value: Any) -> Any:
        """The object as plain JSON data, for the commit."""

    def fit(self, tree: Any) -> Any:
        """The state as this type writes it; `tree` itself if that is the same.

        Raises:
            InvalidStateError: The state does not fit this type.
        """

    def accept(self, value: Any) -> None:
        """Check a value that is assigned to `session_state`.

        Raises:
            TypeError: It is not of this type.
        """

    def restore(self, target: Any, source: Any) -> None:
        """Give `target` the content of `source`, in place; see `put_back`."""

    def update(self, value: Any, updates: Mapping[str, Any]) -> None:
        """Set top-level keys of an object that a call edits."""

    def lay_over(self, base: Mapping[str, Any], given: Any) -> dict[str, Any]:
        """Merge a run's `session_state=` into the state `base`, deeply.

        Raises:
            UsageError: `given` is neither a dict nor an instance of the model.
        """
        ...


class DictStateType:
    """The state as a dict."""

    def load(self, text: bytes) -> Any:
        """A new dict."""
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
        """Refuse with a TypeError what is not a dict."""
        if not isinstance(value, dict):
            raise TypeError(
                f"session_state must be a dict, not {type(value).__name__}; to empty it, assign {{}}"
            )

    def restore(self, target: Any, source: Any) -> None:
        """Give `target` the content of `source`."""
        put_back(target, source)

    def update(self, value: Any, updates: Mapping[str, Any]) -> None:
        """Set the keys."""
        check_updates(updates)
        value.update(updates)

    def lay_over(self, base: Mapping[str, Any], given: Any) -> dict[str, Any]:
        """Merge deeply: dicts merge key by key, any other value is replaced."""
        if not isinstance(given, Mapping):
            raise UsageError(f"session_state must be a dict, not {type(given).__name__}")
        return deep_merge(base, given)


DICT = DictStateType()


def put_back(target: Any, source: Any) -> Any:
    """Give `target` the content of `source`, reusing the containers of `target` where both have one.

    References that a function keeps into its state (`items = state["items"]`) therefore stay valid when the
    commit of a nested run, or the end of a savepoint, changes the state.

    Args:
        target: The object to change.
        source: The new content. Parts of it become parts of `target`, so the caller must not use it any more.

    Returns:
        `target`, or `source` if the two are of different kinds.
    """
    return _PutBack().value(target, source)


class _PutBack:
    """A `put_back` in progress. A container that occurs at two places of the target is reused only once."""

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
        """Reuse equal elements at the start and at the end, and all elements if the length is the same."""
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
    """Check the argument of `update_session_state`.

    Raises:
        UsageError: It is not a dict.
    """
    if not isinstance(updates, Mapping):
        raise UsageError(
            f"update_session_state takes a dict of the keys to set, not {type(updates).__name__}"
        )
