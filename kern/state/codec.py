"""The session state and its JSON text: what may stand in a state, and what counts as equal.

A state consists of exactly dict with str keys, list, str, int, finite float, bool and None. Two states are
equal when their JSON text is: 1, 1.0 and True differ, and so do two orders of the same keys.
"""

from __future__ import annotations

import math
from operator import is_
from typing import Any

from pydantic_core import from_json, to_json

from kern.errors import InvalidStateError
from kern.state.pointer import join

MAX_DEPTH = 100
"""Objects and lists may be nested this deep. The parser stops at 201, and a state is also written inside of
larger documents: outputs, which hold the outputs of members, and events."""

_GUARD = 201 - MAX_DEPTH
"""Wrapped in this many lists, a text that is nested deeper than MAX_DEPTH is refused by the parser."""

_LARGE_MEMBER = 500
"""Bytes, on average, from which members are worth being looked at one by one."""

_MAX_DIGITS = 4300
"""Python's own limit for an int that is read from text (`sys.int_info.default_max_str_digits`)."""

_TOO_LARGE = 10**_MAX_DIGITS
_ONLY = "a session state holds dict, list, str, int, float, bool and None only"


def encode(value: object) -> tuple[bytes, dict[str, Any]]:
    """Check a state and make its JSON text and a private copy of it.

    A tuple becomes a list. A subclass of one of the allowed types (an OrderedDict, a StrEnum) becomes what
    it holds; nothing else is converted.

    Args:
        value: The state; neither changed nor kept.

    Returns:
        The compact text (UTF-8, key order kept), and the tree that it stands for.

    Raises:
        InvalidStateError: Something in it is not JSON; `path` says where.
    """
    if not isinstance(value, dict):
        raise InvalidStateError(f"must be a dict, not a {_name(value)}")
    return _encode(value, "")


def encode_edited(value: object, text: bytes, tree: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """`encode(value)`, for a state that was edited from a copy of `tree`, whose text is `text`.

    Where the members are large, those that are what they were are neither parsed again nor kept twice: the
    new tree shares them with the old one, and whoever compares the two sees that without looking inside.
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
    """A fresh tree of the state that `encode` wrote.

    Raises:
        InvalidStateError: It is not the JSON text of an object.
    """
    try:
        tree = from_json(data, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidStateError(f"the stored text is not JSON: {error}") from error
    if type(tree) is not dict:
        raise InvalidStateError(f"the stored text holds a {_name(tree)}, not an object")
    return tree


def copy(value: object, path: str = "") -> Any:
    """A checked, private copy of any value that may stand in a state, at `path`.

    Raises:
        InvalidStateError: Something in it is not JSON; its `path` starts with the one given.
    """
    return _encode(value, path)[1]


def same(a: Any, b: Any) -> bool:
    """Whether two JSON trees have the same text."""
    if a is b:
        return True
    if type(a) is not type(b) or a != b:
        return False
    # Equal in Python: only 1 == 1.0 == True, 0.0 == -0.0 and the order of keys can still differ.
    if type(a) in _PLAIN:
        return True
    if type(a) is list and _PLAIN.issuperset(map(type, a)):
        return all(map(is_, map(type, a), map(type, b)))
    return bool(to_json(a) == to_json(b))


_PLAIN = frozenset((str, int, bool, type(None)))


def _encode(value: object, path: str) -> tuple[bytes, Any]:
    # pydantic writes much that is not JSON as if it were (sets, dates, NaN as null). What it has written is
    # the value if it reads back equal to it: two passes in C that are far cheaper than a walk in Python.
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
    """What is stored must be read again: older pydantic-core writes numbers that it does not read."""
    try:
        from_json(text)
    except ValueError as error:
        raise InvalidStateError(f"cannot be read back from its JSON text: {error}", path=path) from error


def _kept_members(value: dict[str, Any], text: bytes, tree: dict[str, Any]) -> dict[str, bytes]:
    """What stands in `value` as it does in `tree`, whose text is `text`: each member's own text, by key."""
    kept: dict[str, bytes] = {}
    start = 1
    for key, old in tree.items():
        name = to_json(key) + b":"
        at = start + len(name)
        if not text.startswith(name, start):
            return {}  # not written by `encode`
        now = _text_of(value[key], old) if key in value else None
        if now is not None and text.startswith(now, at) and text[at + len(now)] in b",}":
            kept[key] = name + now
            start = at + len(now) + 1
        else:
            start = at + len(to_json(old)) + 1
    return kept


def _text_of(value: object, old: Any) -> bytes | None:
    """The text of `value` if it is JSON and equal to `old`, which was parsed."""
    try:
        # Equal, so that what pydantic only writes as if it were JSON does not pass; see `_encode`.
        return to_json(value, inf_nan_mode="null") if old == value else None
    except Exception:  # noqa: BLE001
        return None


def _parse(text: bytes) -> Any:
    """Read a text, refusing what is nested deeper than MAX_DEPTH."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return from_json(text)
    tree = from_json(b"[" * _GUARD + text + b"]" * _GUARD)
    for _ in range(_GUARD):
        tree = tree[0]
    return tree


class _Walk:
    """The slow way: copies value by value, and knows where it is.

    Args:
        root: The pointer at which the walk starts.
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
                raise self._refused(f"{float(value)} is no number in JSON")
            return float.__float__(value)
        if isinstance(value, (dict, list, tuple)):
            return self._container(value)
        raise self._refused(f"a {_name(value)} is not JSON; {_ONLY}")

    def _text(self, value: str) -> str:
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise self._refused("a str with a lone surrogate is no Unicode text") from None
        return str.__str__(value)

    def _container(self, value: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> Any:
        if id(value) in self._above:
            raise self._refused(f"a {_name(value)} that contains itself")
        if len(self._above) == MAX_DEPTH:
            del self._trail[1:]
            raise self._refused(f"nested more than {MAX_DEPTH} levels deep")
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
                raise self._refused(f"the key {key!r} is a {_name(key)}; keys are str")
            self._trail.append(key)
            name = self._text(key)
            if name in members:
                raise self._refused("two keys with the same text")
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
