"""The three-way merge of two states that two processes made from the same one.

`base` is the state that both started from, `theirs` what the other process committed first, `ours` what is to
be committed now. At each place of the state the first rule that applies decides:

1. If one side equals base, the other side's value is taken.
2. Two objects are merged key by key. An absent key counts as a value.
3. Two lists are merged index by index if base and both sides have the same length. Otherwise each side keeps,
   changes or removes each element of base, and may insert elements between them. An element that either side
   removed is gone. All insertions stay, theirs before ours. A value that a side removed and inserted
   elsewhere was moved.
4. If both sides made the same change, and the value is not a number, that change is taken.
5. Otherwise it is a conflict, and ours is taken. Two equal new numbers are a conflict as well: both sides may
   have counted up.

A policy of the application replaces rules 2 to 5 at its place. For the background see Khanna, Kunal and
Pierce, "A Formal Investigation of Diff3" (2007).
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
"""Merge rules by place: a top-level key ("count"), a dotted path ("cart.total") or, for keys that contain
dots, a JSON Pointer ("/cart/total")."""


@dataclass(slots=True, frozen=True)
class Conflict:
    """A place where both sides changed the same value in different ways; ours was taken.

    Args:
        path: The place, as a JSON Pointer. List indexes are those in base.
        base, theirs, ours: The values; MISSING if there is none.
    """

    path: str
    base: Any
    theirs: Any
    ours: Any

    def to_dict(self) -> dict[str, Any]:
        """The conflict as JSON. Values that are MISSING are left out."""
        values = {"base": self.base, "theirs": self.theirs, "ours": self.ours}
        return {"path": self.path} | {name: v for name, v in values.items() if v is not MISSING}


class Merged(NamedTuple):
    """The outcome of a merge. `value` shares parts with the trees that were merged."""

    value: Any
    conflicts: list[Conflict]


def merge(base: Any, theirs: Any, ours: Any, policies: Policies | None = None) -> Merged:
    """Merge two JSON trees that were both made from `base`.

    Args:
        base: The tree that both sides started from.
        theirs: The tree that was committed first.
        ours: The tree that is to be committed now.
        policies: The application's own rules, by place.

    Raises:
        InvalidStateError: A policy failed, or returned a value that is not JSON; `path` says where.
        UsageError: The key of a policy is not a valid path.
    """
    merging = _Merging({policy_path(name): policy for name, policy in (policies or {}).items()})
    return Merged(merging.value(base, theirs, ours, ""), merging.conflicts)


def policy_path(name: str) -> str:
    """The JSON Pointer of the place that the key of a policy names.

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
    """A merge in progress; collects the conflicts."""

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
        # A value that both sides took away was moved by both or removed by one. If both moved it, it goes
        # where ours has put it; if either removed it, it is gone.
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
        elements: For each element of base its value now; MISSING if it was taken away.
        removed: How often each value was removed. A value that was inserted elsewhere was moved and does not
            count.
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
            # An object that replaces an object is taken as the same element, changed.
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
        """The elements that this side inserted before element `gap` of base.

        Args:
            gap: The index in base.
            leave_out: How many of each value are to be skipped; counted down.
        """
        inserted = []
        for value in self._gaps[gap]:
            text = _text(value)
            if leave_out[text]:
                leave_out[text] -= 1
            else:
                inserted.append(value)
        return inserted


def _decide(policy: MergePolicy, base: Any, theirs: Any, ours: Any, path: str) -> Any:
    """The value that the policy decides on. It gets copies, so that it cannot change the states by accident.

    Raises:
        InvalidStateError: The policy failed, or returned a value that is not JSON.
    """
    values = (value if value is MISSING else copy(value, path) for value in (base, theirs, ours))
    name = getattr(policy, "__name__", repr(policy))
    try:
        decided = policy(*values)
    except Exception as error:
        raise InvalidStateError(f"the merge policy {name} failed: {message_of(error)}", path=path) from error
    return decided if decided is MISSING else copy(decided, path)


def _text(value: Any) -> str:
    """The JSON text with sorted keys, so that the order of keys does not count."""
    return json.dumps(value, sort_keys=True)


def _alike(a: Any, b: Any) -> bool:
    """Whether the values are the same apart from the order of keys."""
    return type(a) is type(b) and a == b and (a is MISSING or _text(a) == _text(b))
