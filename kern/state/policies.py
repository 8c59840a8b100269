"""Ready rules for a key that two processes change at the same time: `merge={"count": add, "tags": union}`.

A policy is any pure function of (base, theirs, ours): the value that both started from, what the other
process has committed, what this one wants to commit. It returns what is to stand there. It is called only
when both have changed the value, and not when both deleted it. Where there is no value (a new key, or one
that a side deleted) it gets `MISSING`, which is false; it may return `MISSING` to leave the key out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kern.state.codec import same
from kern.state.pointer import MISSING

MergePolicy = Callable[[Any, Any, Any], Any]


def add(base: Any, theirs: Any, ours: Any) -> Any:
    """A number that is counted up and down: both changes count. No value counts as 0."""
    start, *ends = (_number(value) for value in (base, theirs, ours))
    return sum(ends) - start


def union(base: Any, theirs: Any, ours: Any) -> Any:
    """A list that is a set: what either added is there once, what either removed is gone.

    Theirs come first, then what only ours has.
    """
    start, theirs, ours = (_list(value) for value in (base, theirs, ours))
    merged: list[Any] = []
    for value in theirs + ours:
        removed = _has(start, value) and not (_has(theirs, value) and _has(ours, value))
        if not removed and not _has(merged, value):
            merged.append(value)
    return merged


def maximum(base: Any, theirs: Any, ours: Any) -> Any:
    """The larger of the two; a side that deleted it does not count."""
    present = [value for value in (ours, theirs) if value is not MISSING]
    return max(present)


def minimum(base: Any, theirs: Any, ours: Any) -> Any:
    """The smaller of the two; a side that deleted it does not count."""
    present = [value for value in (ours, theirs) if value is not MISSING]
    return min(present)


def ours(base: Any, theirs: Any, ours: Any) -> Any:
    """The later commit wins, and that is no conflict."""
    return ours


def theirs(base: Any, theirs: Any, ours: Any) -> Any:
    """The earlier commit stays, and that is no conflict."""
    return theirs


def _number(value: Any) -> int | float:
    if value is MISSING:
        return 0
    if type(value) is int or type(value) is float:
        return value
    raise TypeError(f"a number is needed, not a {type(value).__name__}")


def _list(value: Any) -> list[Any]:
    if value is MISSING:
        return []
    if type(value) is list:
        return value
    raise TypeError(f"a list is needed, not a {type(value).__name__}")


def _has(values: list[Any], value: Any) -> bool:
    return any(same(value, other) for other in values)
