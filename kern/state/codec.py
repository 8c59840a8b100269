"""The session state and its JSON text: which values a state may hold, and when two states are equal.

A state consists of dict with str keys, list, str, int, finite float, bool and None, and nothing else. Two
states are equal if their JSON texts are equal: 1, 1.0 and True differ, and so do two orders of the same keys.
"""

from __future__ import annotations

import math
from operator import is_
from typing import Any

from pydantic_core import from_json, to_json

from kern.errors import InvalidStateError
from kern.state.pointer import join

MAX_DEPTH = 100
"""How deep objects and lists may be nested. pydantic's JSON parser stops at 201 levels, and a state is also
written inside larger documents: events, and outputs that hold the outputs of members."""

_GUARD = 201 - MAX_DEPTH
"""The number of lists to wrap a text in so that the parser refuses it if it is deeper than MAX_DEPTH."""

_LARGE_MEMBER = 500
"""The average size of a member in bytes from which it pays to compare members one by one."""

_MAX_DIGITS = 4300
"""Python's limit for an int that is read from text (`sys.int_info.default_max_str_digits`)."""

_TOO_LARGE = 10**_MAX_DIGITS
_ONLY = "a session state holds dict, list, str, int, float, bool and None only"


def encode(value: object) -> tuple[bytes, dict[str, Any]]:
    """Check a state; return its JSON text and a private copy.

    A tuple becomes a list. An instance of a subclass of an allowed type (an OrderedDict, a StrEnum) becomes
    that type. Nothing else is converted.

    Args:
        value: The state; it is neither changed nor kept.

    Returns:
        The compact text (UTF-8, key order kept), and the tree that the text parses to.

    Raises:
        InvalidStateError: Something in it is not JSON; `path` says where.
    """
    if not isinstance(value, dict):
        raise InvalidStateError(f"must be a dict, not a {_name(value)}")
    return _encode(value, "")


def encode_edited(value: object, text: bytes, tree: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """A faster `encode(value)` for a state that was edited from a copy of `tree`, whose text is `text`.

    If the members are large, unchanged ones are not parsed again. The new tree shares them with the old one,
    so that a comparison of the two trees finds the same object and need not look inside.
    """
    if type(value) is not dict or len(text) < _LARGE_MEMBER * len(tree) or set(map(type, value)) != {str}:
        return encode(value)
    kept = _kept_members(value, text, tree)
    parts: list[bytes] = []
    edited: dict[str, Any] = {}
    for key, member in value.items():
        if key in kept:
            parts.append(kept[key])
            edited[key] = tree[key]
        else:
            part, made = _encode({key: member}, "")
            parts.append(part[1:-1])
            edited.update(made)
    return b"{%b}" % b",".join(parts), edited


def decode(data: bytes) -> dict[str, Any]:
    """Parse the text of a state; the tree belongs to the caller.

    Raises:
        InvalidStateError: The text is not JSON, or not that of an object.
    """
    try:
        tree = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidStateError(f"the stored text is not JSON: {error}") from error
    if type(tree) is not dict:
        raise InvalidStateError(f"the stored text holds a {_name(tree)}, not an object")
    return tree


def copy(value: object, path: str = "") -> Any:
    """Check any part of a state and return a private copy of it.

    Args:
        value: The part.
        path: Where it stands in the state, as a JSON Pointer.

    Raises:
        InvalidStateError: Something in it is not JSON; the error's `path` starts with `path`.
    """
    return _encode(value, path)[1]


def same(a: Any, b: Any) -> bool:
    """Whether two JSON trees have the same text."""
    if a is b:
        return True
    if type(a) is not type(b) or a != b:
        return False
    # They are equal in Python. The texts can still differ by 1 == 1.0 == True, 0.0 == -0.0 and key order.
    if type(a) in _PLAIN:
        return True
    if type(a) is list and _PLAIN.issuperset(map(type, a)):
        return all(map(is_, map(type, a), map(type, b)))
    return bool(to_json(a) == to_json(b))


_PLAIN = frozenset((str, int, bool, type(None)))


def _encode(value: object, path: str) -> tuple[bytes, Any]:
    # pydantic also writes values that are not JSON (sets, dates, NaN as null). The text is right if it parses
    # to an equal value: two passes in native code, which are far cheaper than a walk in Python.
    # On any failure fall back to the slow walk, which converts the value or reports its path.
    try:
        text = to_json(value, inf_nan_mode="null")
        tree = _parse(text)
        if tree == value:
            return text, tree
    except Exception:  # noqa: BLE001, S110
        pass
    tree = _Walk(path).copy(value)
    text = to_json(tree)
    _check_readable(text, path)
    return text, tree


def _check_readable(text: bytes, path: str) -> None:
    """Check that the text can be parsed: older versions of pydantic-core write numbers that they cannot read.

    Raises:
        InvalidStateError: It cannot.
    """
    try:
        from_json(text)
    except ValueError as error:
        raise InvalidStateError(f"cannot be read back from its JSON text: {error}", path=path) from error


def _kept_members(value: dict[str, Any], text: bytes, tree: dict[str, Any]) -> dict[str, bytes]:
    """The texts, by key, of the members of `value` that are unchanged from `tree`, whose text is `text`."""
    kept: dict[str, bytes] = {}
    start = 1
    for key, old in tree.items():
        name = to_json(key) + b":"
        at = start + len(name)
        if not text.startswith(name, start):
            return {}  # `encode` did not write this text
        now = _text_of(value[key], old) if key in value else None
        if now is not None and text.startswith(now, at) and text[at + len(now)] in b",}":
            kept[key] = name + now
            start = at + len(now) + 1
        else:
            start = at + len(to_json(old)) + 1
    return kept


def _text_of(value: object, old: Any) -> bytes | None:
    """The text of `value` if it is equal to `old`, which came from a parser; None otherwise."""
    try:
        # Only if equal: pydantic also writes values that are not JSON; see `_encode`.
        return to_json(value, inf_nan_mode="null") if old == value else None
    except Exception:  # noqa: BLE001
        return None


def _parse(text: bytes) -> Any:
    """Parse a text; a ValueError if it is nested deeper than MAX_DEPTH."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return from_json(text)
    tree = from_json(b"[" * _GUARD + text + b"]" * _GUARD)
    for _ in range(_GUARD):
        tree = tree[0]
    return tree


class _Walk:
    """The slow way: copies value by value and keeps track of the path, for the error.

    Args:
        root: The JSON Pointer at which the walk starts.
    """

    __slots__ = ("_above", "_root", "_trail")

    def __init__(self, root: str) -> None:
        self._root = root
        self._trail: list[str | int] = []
        self._above: set[int] = set()

    def copy(self, value: object) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int):
            number = int.__int__(value)
            if abs(number) >= _TOO_LARGE:
                raise self._refused(f"an int of more than {_MAX_DIGITS} digits")
            return number
        if isinstance(value, float):
            if not math.isfinite(value):
                raise self._refused(f"{float(value)} is not a number in JSON")
            return float.__float__(value)
        if isinstance(value, (dict, list, tuple)):
            return self._container(value)
        raise self._refused(f"a {_name(value)} is not JSON; {_ONLY}")

    def _text(self, value: str) -> str:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise self._refused("a str with a lone surrogate is not valid Unicode text") from None
        return str.__str__(value)

    def _container(self, value: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> Any:
        if id(value) in self._above:
            raise self._refused(f"a {_name(value)} contains itself")
        if len(self._above) == MAX_DEPTH:
            del self._trail[1:]
            raise self._refused(f"is nested more than {MAX_DEPTH} levels deep")
        self._above.add(id(value))
        copied = self._members(value) if isinstance(value, dict) else self._elements(value)
        self._above.discard(id(value))
        return copied

    def _elements(self, value: list[Any] | tuple[Any, ...]) -> list[Any]:
        elements = []
        for place, item in enumerate(value):
            self._trail.append(place)
            elements.append(self.copy(item))
            self._trail.pop()
        return elements

    def _members(self, value: dict[Any, Any]) -> dict[str, Any]:
        members: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise self._refused(f"the key {key!r} is a {_name(key)}; keys must be str")
            self._trail.append(key)
            name = self._text(key)
            if name in members:
                raise self._refused("two keys have the same text")
            members[name] = self.copy(item)
            self._trail.pop()
        return members

    def _refused(self, message: str) -> InvalidStateError:
        path = self._root
        for token in self._trail:
            path = join(path, str.__str__(token) if isinstance(token, str) else token)
        return InvalidStateError(message, path=path.encode(errors="backslashreplace").decode())


def _name(value: object) -> str:
    return type(value).__name__
