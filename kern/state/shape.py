"""What the session state looks like to the functions that edit it: a plain dict."""

from __future__ import annotations

from typing import Any, Protocol

from kern.state.codec import decode


class Shape(Protocol):
    """Between the JSON text of the state and the object that a call edits."""

    def load(self, text: bytes) -> Any:
        """A private object for one call."""

    def load_tree(self, tree: Any) -> Any:
        """The same, from parsed data that nobody else keeps."""

    def dump(self, value: Any) -> Any:
        """The object as plain JSON data, for the commit."""

    def accept(self, value: Any) -> None:
        """Refuse with a TypeError what cannot be assigned to `session_state`."""

    def restore(self, target: Any, source: Any) -> None:
        """Make the content of `target` that of `source`, in place."""


class DictShape:
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

    def accept(self, value: Any) -> None:
        """Only a dict will do."""
        if not isinstance(value, dict):
            raise TypeError(
                f"session_state takes a dict, not {type(value).__name__}; to empty it, assign {{}}"
            )

    def restore(self, target: Any, source: Any) -> None:
        """Replace the keys."""
        if target is not source:
            target.clear()
            target.update(source)


DICT = DictShape()
