"""The three-way merge of two states that two processes made from the same one.

`base` is the state that both started from, `theirs` what the other process committed first, `ours` what is to
be committed now. At each place of the state the first rule that applies decides:

1. If one side equals base, the other side's value is taken.
2. Two objects are merged key by key. An absent key counts as a value.
3. Two lists are merged index by index if both sides only changed elements where they stand. Otherwise each
   side keeps, changes or removes each element of base, and may insert elements between them. An element that
   either side removed is gone. All insertions stay, theirs before ours. A value that a side removed and
   inserted elsewhere was moved. Two objects with an "id" (or "_id", "uuid", "key") are the same element if
   their ids are equal.
4. If both sides made the same change, and the value is not a number, that change is taken.
5. Otherwise it is a conflict, and ours is taken. Two equal new numbers are a conflict as well: both sides may
   have counted up.

A policy of the application replaces rules 2 to 5 at its place. For the background see Khanna, Kunal and
Pierce, "A Formal Investigation of Diff3" (2007).
"""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from kern._error_text import message_of
from kern.errors import InvalidStateError, UsageError
from kern.state.codec import copy, same
from kern.state.list_changes import ListChange, list_changes
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


def check_policies(policies: Any) -> None:
    """Check that `merge` is a dict of functions of three values. A wrong one would lose the first run that
    meets a conflict.

    Raises:
        UsageError: It is not.
    """
    if not isinstance(policies, Mapping):
        raise UsageError(f"merge must be a dict of functions, such as {{'count': add}}, not {policies!r}")
    for name, policy in policies.items():
        if not isinstance(name, str):
            raise UsageError(f"a key of merge must be a str, not {name!r}")
        policy_path(name)
        if not callable(policy):
            raise UsageError(
                f"merge[{name!r}] must be a function of three values (base, theirs, ours), not {policy!r}; "
                "kern.state has add, union, maximum, minimum, ours and theirs"
            )
        try:
            inspect.signature(policy).bind(None, None, None)
        except ValueError:  # a function of C without a signature
            continue
        except TypeError as error:
            raise UsageError(
                f"merge[{name!r}] must be a function of three values (base, theirs, ours): {error}"
            ) from error


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
        a, b = _Side(base, theirs), _Side(base, ours)
        if base and a.in_place and b.in_place:
            values = zip(base, theirs, ours, strict=True)
            return [self.value(b, t, o, join(path, i)) for i, (b, t, o) in enumerate(values)]
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
        in_place: Whether the side only changed elements, each where it stands.
    """

    __slots__ = ("_gaps", "_taken", "elements", "in_place", "removed")

    def __init__(self, base: list[Any], new: list[Any]) -> None:
        self.elements: list[Any] = []
        self.in_place = len(base) == len(new)
        self._gaps: list[list[Any]] = [[] for _ in range(len(base) + 1)]
        self._taken: list[Any] = []
        done = 0
        for block in list_changes(base, new, _element):
            self.elements += new[done : block.new_from]
            self._replace(base, new, block)
            done = block.new_to
        self.elements += new[done:]
        self.removed = Counter(_text(value) for value in self._taken)
        self.removed -= Counter(_text(value) for gap in self._gaps for value in gap)

    def _replace(self, base: list[Any], new: list[Any], block: ListChange) -> None:
        """Pair the elements of a block that are the same, changed; the others were removed or inserted."""
        old_at, old_to = block.old_from, block.old_to
        in_place = old_to - old_at == block.new_to - block.new_from
        self.in_place = self.in_place and in_place
        for value in new[block.new_from : block.new_to]:
            places = range(old_at, min(old_at + (1 if in_place else _NEAR), old_to))
            at = next((at for at in places if _is_same_element(base[at], value, in_place)), None)
            if at is None and in_place:
                at = self._replaced_whole(base, value, old_at)
            elif at is None:
                self._gaps[old_at].append(value)
            else:
                self._remove(base, old_at, at)
                self.elements.append(value)
            old_at = old_at if at is None else at + 1
        self._remove(base, old_at, old_to)

    def _replaced_whole(self, base: list[Any], value: Any, at: int) -> int:
        """Note that another element stands where one was. In a list of plain values that is a change."""
        if _identity(value) is not None or _identity(base[at]) is not None:
            self.in_place = False
        self._remove(base, at, at + 1)
        self._gaps[at + 1].append(value)
        return at

    def _remove(self, base: list[Any], start: int, end: int) -> None:
        self.elements += [MISSING] * (end - start)
        self._taken += base[start:end]

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


def _is_same_element(old: Any, new: Any, in_place: bool) -> bool:
    """Whether a side took `new` for the element `old`, changed.

    Args:
        old: An object or a list of base.
        new: What stands there, or near there, now.
        in_place: As many elements stand there now as before.
    """
    if type(old) is not type(new) or type(old) not in (dict, list):
        return False
    if type(old) is list:
        return in_place or any(same(a, b) for a, b in zip(old, new, strict=False))
    ids = _identity(old), _identity(new)
    if None not in ids:
        return ids[0] == ids[1]
    if in_place:
        return not old.keys().isdisjoint(new)
    return any(same(value, new.get(key, MISSING)) for key, value in old.items())


_NEAR = 16
"""How far from its place an element is looked for among those that were removed there."""

_IDS = ("id", "_id", "uuid", "key")


def _identity(value: Any) -> str | None:
    """What tells an object from others whatever else changes in it; None if nothing does."""
    if type(value) is dict:
        for name in _IDS:
            if type(value.get(name)) in (str, int):
                return f"{name} {value[name]!r}"
    return None


def _element(value: Any) -> str:
    """The key by which elements of lists are aligned."""
    return _identity(value) or _text(value)


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
