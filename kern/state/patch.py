"""The changes between two states as JSON Patches (RFC 6902): makes, applies, inverts and searches them.

`diff` makes the operations "add", "remove" and "replace" of the RFC. So that they can be undone, they have
two fields more: `old`, the value that was replaced or removed, and `before`, the key that followed a removed
key. `wire` leaves both out. Any other implementation of the RFC that applies the patch gets the same JSON
text, key order included.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from pydantic_core import from_json, to_json

from kern.errors import InvalidStateError, UsageError
from kern.state.codec import same
from kern.state.list_changes import list_changes
from kern.state.pointer import index, join, lookup, split, step

Operation = dict[str, Any]


def diff(old: Any, new: Any) -> list[Operation]:
    """The operations that turn `old` into `new`; none if their JSON texts are the same.

    The operations share values with both trees: encode them before you change a tree.
    """
    operations: list[Operation] = []
    _diff(old, new, "", operations)
    return operations


def wire(operations: Iterable[Operation]) -> list[Operation]:
    """The operations as plain RFC 6902, without the fields for undoing. They share nothing with a state."""
    return [
        {
            name: from_json(to_json(value)) if name == "value" else value
            for name, value in operation.items()
            if name not in ("old", "before")
        }
        for operation in operations
    ]


def apply(tree: Any, operations: Iterable[Operation]) -> Any:
    """Apply the operations and return the new tree; `tree` itself is not changed.

    The result shares unchanged parts with `tree`, and new parts with the operations.

    Raises:
        InvalidStateError: An operation does not fit the tree; the error's `path` is that of the operation.
    """
    draft = _Draft(tree)
    for operation in operations:
        draft.apply(operation)
    draft.put_in_order()
    return draft.tree


def invert(operations: Iterable[Operation]) -> list[Operation]:
    """The operations that undo these, key order included. Only `apply` knows their field `before`.

    Raises:
        UsageError: The operations lack the old values; `wire` leaves those out.
    """
    return [_inverse(operation) for operation in reversed(list(operations))]


def touches(operations: Iterable[Operation], path: str) -> bool:
    """Whether an operation may change the value at the JSON Pointer `path`.

    That is an operation at, above or below `path`, or one that shifts it by adding or removing an earlier
    element of a list. A number in a path may be an index or a key; it is taken as an index, so the answer may
    be True although the value stays the same. Compare the values to be sure.
    """
    tokens = split(path)
    return any(_touches(operation, tokens) for operation in operations)


def values_at(before: Any, operations: Iterable[Operation], path: str) -> tuple[Any, Any]:
    """The value at the JSON Pointer `path` before and after the operations; MISSING if there is none."""
    return lookup(before, path), lookup(apply(before, operations), path)


def _diff(old: Any, new: Any, path: str, operations: list[Operation]) -> None:
    if same(old, new):
        return
    if type(old) is dict and type(new) is dict:
        if _diff_objects(old, new, path, operations):
            return
    elif type(old) is list and type(new) is list and _diff_lists(old, new, path, operations):
        return
    operations.append({"op": "replace", "path": path, "value": new, "old": old})


def _diff_objects(old: dict[str, Any], new: dict[str, Any], path: str, operations: list[Operation]) -> bool:
    """Add the operations for an object. Returns False if it is simpler to replace the whole object."""
    kept = _kept_keys(old, new)
    moved = sum(key in new for key in old) - len(kept)
    nothing_stays = bool(old) and not kept and len(old) + len(new) > 1
    if nothing_stays or moved > len(kept):
        return False
    keys = list(old)
    for at, key in enumerate(keys):
        if key not in kept:
            removed: Operation = {"op": "remove", "path": join(path, key), "old": old[key]}
            if at + 1 < len(keys):
                removed["before"] = keys[at + 1]
            operations.append(removed)
    for key in kept:
        _diff(old[key], new[key], join(path, key), operations)
    operations += [
        {"op": "add", "path": join(path, key), "value": value}
        for key, value in new.items()
        if key not in kept
    ]
    return True


def _kept_keys(old: dict[str, Any], new: dict[str, Any]) -> dict[str, None]:
    """The keys that can stay in place. An "add" appends, so all other keys of `new` come after them."""
    places = {key: place for place, key in enumerate(old)}
    kept: dict[str, None] = {}
    last = -1
    for key in new:
        place = places.get(key, -1)
        if place <= last:
            break
        kept[key] = None
        last = place
    return kept


def _diff_lists(old: list[Any], new: list[Any], path: str, operations: list[Operation]) -> bool:
    """Add the operations for a list. Returns False if it is simpler to replace the whole list."""
    blocks = list_changes(old, new, to_json)
    nothing_stays = bool(old) and blocks == [(0, len(old), 0, len(new))] and len(old) + len(new) > 2
    if nothing_stays and not any(type(a) is type(b) in (dict, list) for a, b in zip(old, new, strict=False)):
        return False
    # The changes come in order: when one is reached, the list is already right up to its `new_from`.
    for block in blocks:
        pairs = min(block.old_to - block.old_from, block.new_to - block.new_from)
        for k in range(pairs):
            at = block.new_from + k
            _diff(old[block.old_from + k], new[at], join(path, at), operations)
        at = block.new_from + pairs
        operations += [
            {"op": "remove", "path": join(path, at), "old": value}
            for value in old[block.old_from + pairs : block.old_to]
        ]
        operations += [{"op": "add", "path": join(path, k), "value": new[k]} for k in range(at, block.new_to)]
    return True


class _Draft:
    """A copy-on-write tree: each container is copied at most once, when it is first written to."""

    __slots__ = ("_orders", "_own", "tree")

    def __init__(self, tree: Any) -> None:
        self.tree = tree
        self._own: dict[int, Any] = {}
        self._orders: dict[int, _KeyOrder] = {}

    def apply(self, operation: Operation) -> None:
        path = operation["path"]
        tokens = split(path)
        op = operation["op"]
        if op not in ("add", "remove", "replace"):
            raise InvalidStateError(
                f"the state patch has the operation {op!r}; it must be add, remove or replace", path=path
            )
        if not tokens:
            if op == "remove":
                raise InvalidStateError("the state itself cannot be removed")
            self.tree = operation["value"]
            return
        parent = self._open(tokens[:-1], path)
        if isinstance(parent, dict):
            fits = self._edit_object(parent, tokens[-1], operation)
        else:
            fits = _edit_list(parent, tokens[-1], operation)
        if not fits:
            raise InvalidStateError(f"there is nothing to {op} at this path", path=path)

    def _open(self, tokens: list[str], path: str) -> dict[str, Any] | list[Any]:
        """The container at `tokens`; it and all containers above it are private copies."""
        self.tree = node = self._private(self.tree, path)
        for token in tokens:
            child = self._private(step(node, token), path)
            if isinstance(node, dict):
                node[token] = child
            else:
                node[int(token)] = child
            node = child
        return node

    def _edit_object(self, parent: dict[str, Any], key: str, operation: Operation) -> bool:
        op, order = operation["op"], self._orders.get(id(parent))
        if op == "remove":
            if key not in parent:
                return False
            del parent[key]
            if order is not None:
                order.remove(key)
        elif op == "replace":
            if key not in parent:
                return False
            parent[key] = operation["value"]
        else:
            before = operation.get("before")
            if "before" in operation and (before not in parent or key in parent):
                return False
            if before is not None and order is None:
                order = self._orders[id(parent)] = _KeyOrder(parent)
            if order is not None and key not in parent:
                order.insert(key, before)
            parent[key] = operation["value"]
        return True

    def put_in_order(self) -> None:
        """Put the keys of objects into the order that the operations ask for."""
        for order in self._orders.values():
            order.put_in_order()

    def _private(self, node: Any, path: str) -> dict[str, Any] | list[Any]:
        if type(node) is not dict and type(node) is not list:
            raise InvalidStateError("there is no object or list to change at this path", path=path)
        if id(node) in self._own:
            return node
        private = node.copy()
        self._own[id(private)] = private
        return private


class _KeyOrder:
    """The order of an object's keys, as a linked list. The dict itself is rewritten once, at the end."""

    __slots__ = ("_after", "_before", "_node")

    def __init__(self, node: dict[str, Any]) -> None:
        self._node = node
        keys = [None, *node, None]
        self._after: dict[str | None, str | None] = dict(pairwise(keys))
        self._before: dict[str | None, str | None] = {after: key for key, after in self._after.items()}

    def insert(self, key: str, after: str | None) -> None:
        """Put `key` before `after`; None stands for the end."""
        before = self._before[after]
        self._after[before] = self._before[after] = key
        self._before[key], self._after[key] = before, after

    def remove(self, key: str) -> None:
        before, after = self._before.pop(key), self._after.pop(key)
        self._after[before], self._before[after] = after, before

    def put_in_order(self) -> None:
        ordered = {}
        key = self._after[None]
        while key is not None:
            ordered[key] = self._node[key]
            key = self._after[key]
        self._node.clear()
        self._node.update(ordered)


def _edit_list(parent: list[Any], token: str, operation: Operation) -> bool:
    at = index(token)
    if at is None or at >= len(parent) + (operation["op"] == "add"):
        return False
    if operation["op"] == "remove":
        del parent[at]
    elif operation["op"] == "replace":
        parent[at] = operation["value"]
    else:
        parent.insert(at, operation["value"])
    return True


def _inverse(operation: Operation) -> Operation:
    path, op = operation["path"], operation["op"]
    if op != "add" and "old" not in operation:
        raise UsageError(f"cannot undo {op!r} at {path!r}: the operation does not keep the old value")
    if op == "replace":
        return {"op": op, "path": path, "value": operation["old"], "old": operation["value"]}
    if op == "add":
        inverse = {"op": "remove", "path": path, "old": operation["value"]}
    else:
        inverse = {"op": "add", "path": path, "value": operation["old"]}
    if "before" in operation:
        inverse["before"] = operation["before"]
    return inverse


def _touches(operation: Operation, tokens: list[str]) -> bool:
    own = split(operation["path"])
    common = min(len(own), len(tokens))
    if own[:common] == tokens[:common]:
        return True
    if operation["op"] == "replace" or len(own) > len(tokens):
        return False
    moved_from, at = index(own[-1]), index(tokens[len(own) - 1])
    return (
        own[:-1] == tokens[: len(own) - 1] and moved_from is not None and at is not None and moved_from < at
    )
