"""Two states that grew out of one: the three-way merge of what two processes did to a session.

At each place, with base, theirs, ours:

1. One side equals base: the other's value.
2. Both are objects: key by key; that a key is absent is a value too.
3. Both are lists: index by index if all three have one length. Otherwise each element of base is kept,
   removed or changed by each side, and each gap between them may have insertions: what either removed is
   gone, all insertions stay, theirs before ours; a removed value that appears again was moved.
4. Both made the same change, and not to a number: that.
5. Otherwise a conflict: ours. Two equal new numbers are one too, since both may have counted.

An application's policy replaces rules 2 to 5 at its place.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from kern._error_text import message_of
from kern.errors import InvalidStateError, UsageError
from kern.state.codec import copy, same
from kern.state.list_changes import list_changes
from kern.state.pointer import MISSING, join
from kern.state.policies import MergePolicy

Policies = Mapping[str, MergePolicy]
"""Rules for single places, each under a top-level key ("count"), a dotted path ("cart.total") or, for keys
with dots in them, a JSON Pointer ("/cart/total")."""


@dataclass(slots=True, frozen=True)
class Conflict:
    """A place where both sides changed the same value differently; ours was taken.

    Args:
        path: A JSON Pointer; list elements are counted as base has them.
        base, theirs, ours: The values; MISSING where a side has none.
    """

    path: str
    base: Any
    theirs: Any
    ours: Any

    def to_dict(self) -> dict[str, Any]:
        """As JSON; a value that is missing is left out."""
        values = {"base": self.base, "theirs": self.theirs, "ours": self.ours}
        return {"path": self.path} | {name: v for name, v in values.items() if v is not MISSING}


class Merged(NamedTuple):
    """The outcome of a merge. `value` shares parts with what was merged."""

    value: Any
    conflicts: list[Conflict]


def merge(base: Any, theirs: Any, ours: Any, policies: Policies | None = None) -> Merged:
    """Merge two JSON trees that both grew out of `base`.

    Args:
        base: What both started from.
        theirs: What was committed first.
        ours: What is to be committed now.
        policies: The application's own rules for single places.

    Raises:
        InvalidStateError: A policy failed, or returned what is not JSON; `path` says which.
        UsageError: A policy's path makes no sense.
    """
    merging = _Merging({policy_path(name): policy for name, policy in (policies or {}).items()})
    return Merged(merging.value(base, theirs, ours, ""), merging.conflicts)


def policy_path(name: str) -> str:
    """The JSON Pointer of the place that a policy is named for.

    Raises:
        UsageError: `name` is empty, or has an empty part.
    """
    if name.startswith("/"):
        return name
    path = ""
    for part in name.split("."):
        if not part:
            raise UsageError(
                "the key of a merge policy must be a state key, a dotted path or a JSON Pointer, "
                f"not {name!r}"
            )
        path = join(path, part)
    return path


class _Merging:
    """One merge at work."""

    __slots__ = ("_policies", "conflicts")

    def __init__(self, policies: dict[str, MergePolicy]) -> None:
        self._policies = policies
        self.conflicts: list[Conflict] = []

    def value(self, base: Any, theirs: Any, ours: Any, path: str) -> Any:
        # The order of keys decides only where nothing else does.
        for equal in (same, _alike):
            if equal(ours, base):
                return theirs
            if equal(theirs, base):
                return ours
        if (policy := self._policies.get(path)) is not None:
            return _decide(policy, base, theirs, ours, path)
        if type(theirs) is dict and type(ours) is dict:
            return self._objects(base if type(base) is dict else {}, theirs, ours, path)
        if type(theirs) is list and type(ours) is list:
            return self._lists(base if type(base) is list else [], theirs, ours, path)
        if same(theirs, ours) and type(ours) not in (int, float):
            return ours
        self.conflicts.append(Conflict(path, base, theirs, ours))
        return ours

    def _objects(
        self, base: dict[str, Any], theirs: dict[str, Any], ours: dict[str, Any], path: str
    ) -> dict[str, Any]:
        merged = {}
        for key in theirs | ours:
            value = self.value(
                base.get(key, MISSING), theirs.get(key, MISSING), ours.get(key, MISSING), join(path, key)
            )
            if value is not MISSING:
                merged[key] = value
        return merged

    def _lists(self, base: list[Any], theirs: list[Any], ours: list[Any], path: str) -> list[Any]:
        if base and len(base) == len(theirs) == len(ours):
            values = zip(base, theirs, ours, strict=True)
            return [self.value(b, t, o, join(path, i)) for i, (b, t, o) in enumerate(values)]
        a, b = _Side(base, theirs), _Side(base, ours)
        both_took = Counter(
            _text(value)
            for value, t, o in zip(base, a.elements, b.elements, strict=True)
            if t is MISSING and o is MISSING
        )
        # What both took away stands where ours has put it, if anywhere, and only if theirs has put it
        # somewhere too.
        gone_there, gone_here = a.removed & both_took, b.removed & both_took
        not_theirs, not_ours = both_took - gone_there, gone_there - gone_here
        merged: list[Any] = []
        for i in range(len(base) + 1):
            merged += a.insertions(i, not_theirs)
            merged += b.insertions(i, not_ours)
            if i < len(base) and not (a.elements[i] is MISSING and b.elements[i] is MISSING):
                value = self.value(base[i], a.elements[i], b.elements[i], join(path, i))
                if value is not MISSING:
                    merged.append(value)
        return merged


class _Side:
    """What one side did to a list.

    Attributes:
        elements: Per element of base: what it is now; MISSING if it was taken away.
        removed: How often each value was taken away without being put in elsewhere: that would be a move.
    """

    __slots__ = ("_gaps", "elements", "removed")

    def __init__(self, base: list[Any], new: list[Any]) -> None:
        self.elements: list[Any] = []
        self._gaps: list[list[Any]] = [[] for _ in range(len(base) + 1)]
        taken: list[Any] = []
        done = 0
        for block in list_changes(base, new, _text):
            old_at, new_at, old_to, new_to = block.old_from, block.new_from, block.old_to, block.new_to
            self.elements += new[done:new_at]
            # An object in the place of an object is the same element, changed.
            while old_at < old_to and new_at < new_to and type(base[old_at]) is type(new[new_at]) is dict:
                self.elements.append(new[new_at])
                old_at, new_at = old_at + 1, new_at + 1
            self.elements += [MISSING] * (old_to - old_at)
            taken += base[old_at:old_to]
            self._gaps[old_to] += new[new_at:new_to]
            done = new_to
        self.elements += new[done:]
        self.removed = Counter(_text(value) for value in taken)
        self.removed -= Counter(_text(value) for gap in self._gaps for value in gap)

    def insertions(self, gap: int, leave_out: Counter[str]) -> list[Any]:
        """What to put before element `gap` of base, without so many of each value; uses `leave_out` up."""
        inserted = []
        for value in self._gaps[gap]:
            text = _text(value)
            if leave_out[text]:
                leave_out[text] -= 1
            else:
                inserted.append(value)
        return inserted


def _decide(policy: MergePolicy, base: Any, theirs: Any, ours: Any, path: str) -> Any:
    """What the policy says; it works on copies, so that it can change nothing by accident."""
    values = (value if value is MISSING else copy(value, path) for value in (base, theirs, ours))
    name = getattr(policy, "__name__", repr(policy))
    try:
        decided = policy(*values)
    except Exception as error:
        raise InvalidStateError(f"the merge policy {name} failed: {message_of(error)}", path=path) from error
    return decided if decided is MISSING else copy(decided, path)


def _text(value: Any) -> str:
    """The JSON text, whatever the order of the keys."""
    return json.dumps(value, sort_keys=True)


def _alike(a: Any, b: Any) -> bool:
    """The same apart from the order of keys."""
    return type(a) is type(b) and a == b and (a is MISSING or _text(a) == _text(b))
