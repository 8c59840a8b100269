"""Places in a session state as JSON Pointers (RFC 6901), and `MISSING` for the absence of a value."""

from __future__ import annotations

import re
from enum import Enum
from typing import Any, Final, Literal

from kern.errors import UsageError


class Missing(Enum):
    """The type of `MISSING`, its only value, which is false."""

    MISSING = "MISSING"

    def __bool__(self) -> Literal[False]:
        return False

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing.MISSING
"""There is no value at this place. (None is a value.)"""

# 18 digits: no list has more elements, and Python refuses to parse numbers of thousands of digits.
_INDEX = re.compile(r"0|[1-9][0-9]{0,17}")


def join(path: str, token: str | int) -> str:
    """The pointer of the member `token` of the value at `path`."""
    if isinstance(token, str):
        token = token.replace("~", "~0").replace("/", "~1")
    return f"{path}/{token}"


def split(path: str) -> list[str]:
    """The tokens of a pointer, unescaped. The pointer "" stands for the whole document and has none.

    Raises:
        UsageError: The pointer is not empty and does not start with "/".
    """
    if not path:
        return []
    if path[0] != "/":
        raise UsageError(f'{path!r} is not a JSON Pointer: it must start with "/"')
    return [token.replace("~1", "/").replace("~0", "~") for token in path[1:].split("/")]


def index(token: str) -> int | None:
    """The list index that a token stands for, or None."""
    return int(token) if _INDEX.fullmatch(token) else None


def step(tree: Any, token: str) -> Any:
    """The member of `tree` that `token` names, or MISSING."""
    if type(tree) is dict:
        return tree.get(token, MISSING)
    if type(tree) is list:
        at = index(token)
        return tree[at] if at is not None and at < len(tree) else MISSING
    return MISSING


def lookup(tree: Any, path: str) -> Any:
    """The value at the pointer `path` in `tree`, or MISSING."""
    for token in split(path):
        tree = step(tree, token)
    return tree
