"""Ready-made policies for values that two processes change at the same time: `merge={"count": add, "tags":
union}`.

A policy is a pure function of (base, theirs, ours): the value that both processes started from, the value
that the other one has committed, and the value that this one wants to commit. It returns the merged value. It
is called only if both have changed the value, and not if both deleted it. It gets `MISSING`, which is false,
if there is no value: for a new key, or one that a side deleted. It may return `MISSING` to leave the key out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kern.state.codec import same
from kern.state.pointer import MISSING

MergePolicy = Callable[[Any, Any, Any], Any]


def add(base: Any, theirs: Any, ours: Any) -> Any:
    """For counters: the changes of both sides are added up. A missing value counts as 0."""
    start, *ends = (_number(value) for value in (base, theirs, ours))
    return sum(ends) - start


def union(base: Any, theirs: Any, ours: Any) -> Any:
    """For lists that are used as sets: the additions of both sides are kept, the removals of both are made.

    Each value occurs once. Theirs come first, then those that only ours has.
    """
    start, theirs, ours = (_list(value) for value in (base, theirs, ours))
    merged: list[Any] = []
    for value in theirs + ours:
        removed = _has(start, value) and not (_has(theirs, value) and _has(ours, value))
        if not removed and not _has(merged, value):
            merged.append(value)
    return merged


def maximum(base: Any, theirs: Any, ours: Any) -> Any:
    """The larger of the two values. A side that deleted the value does not count."""
    present = [value for value in (ours, theirs) if value is not MISSING]
    return max(present)


def minimum(base: Any, theirs: Any, ours: Any) -> Any:
    """The smaller of the two values. A side that deleted the value does not count."""
    present = [value for value in (ours, theirs) if value is not MISSING]
    return min(present)


def ours(base: Any, theirs: Any, ours: Any) -> Any:
    """The later commit wins; no conflict is reported."""
    return ours


def theirs(base: Any, theirs: Any, ours: Any) -> Any:
    """The earlier commit wins; no conflict is reported."""
    return theirs


def _number(value: Any) -> int | float:
    if value is MISSING:
        return 0
    if type(value) is int or type(value) is float:
        return value
    raise TypeError(f"the policy `add` merges numbers, and this value is a {type(value).__name__}")


def _list(value: Any) -> list[Any]:
    if value is MISSING:
        return []
    if type(value) is list:
        return value
    raise TypeError(f"the policy `union` merges lists, and this value is a {type(value).__name__}")


def _has(values: list[Any], value: Any) -> bool:
    return any(same(value, other) for other in values)
