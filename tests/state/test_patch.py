"""Patches: exact for us and for an independent implementation, undone exactly, small where it matters."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from typing import Any

import jsonpatch
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kern.errors import InvalidStateError, UsageError
from kern.state.patch import Operation, _Draft, apply, diff, invert, touches, values_at, wire
from kern.state.pointer import MISSING, join, lookup, split
from tests.state.json_documents import near_states, states, text

properties = settings(deadline=None, max_examples=150)

pairs = st.tuples(near_states, near_states) | st.tuples(states(), states())


@st.composite
def edited(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A state, and the same after a few edits as tools make them."""
    old = draw(near_states)
    old["list"] = draw(st.lists(st.sampled_from(["a", "b", "c", 1, 1.0, True, {"n": 1}, [2]]), max_size=8))
    new = copy.deepcopy(old)
    for _ in range(draw(st.integers(1, 4))):
        items = new.get("list")
        match draw(st.sampled_from(["append", "insert", "pop", "sort", "set", "delete", "again", "first"])):
            case "append" if items is not None:
                items.append(draw(st.sampled_from(["new", 1, {"n": 2}])))
            case "insert" if items is not None:
                items.insert(draw(st.integers(0, len(items))), "in")
            case "pop" if items:
                items.pop(draw(st.integers(0, len(items) - 1)))
            case "sort" if items is not None:
                items.sort(key=str)
            case "set":
                new[draw(st.sampled_from(["p", "q", "fresh"]))] = draw(st.sampled_from([1, [], {"x": 1}]))
            case "delete" if new:
                del new[draw(st.sampled_from(sorted(new)))]
            case "again" if new:
                key = draw(st.sampled_from(sorted(new)))
                new[key] = new.pop(key)
            case "first":
                new = {"first": 1, **new}
    return old, new


@given(pairs | edited())
@properties
@example(({"a": 1, "b": 2}, {"b": 2, "a": 1}))
@example(({"a": 1}, {"a": 1.0}))
@example(({"a": [True, 0]}, {"a": [1, 0.0]}))
@example(({"a": {"~": 1}}, {"a": {"/": 1, "~": 1}}))
@example(({"": {"": 1}}, {"": {"": 2}}))
def test_the_patch_makes_exactly_the_new_state(pair: tuple[Any, Any]) -> None:
    old, new = pair
    kept = text(old), text(new)
    operations = diff(old, new)
    assert text(apply(old, operations)) == text(new)
    assert (text(old), text(new)) == kept
    assert (operations == []) == (text(old) == text(new))


@given(pairs | edited())
@properties
def test_an_independent_implementation_makes_the_same_of_it(pair: tuple[Any, Any]) -> None:
    old, new = pair
    operations = json.loads(json.dumps(wire(diff(old, new))))
    assert text(jsonpatch.apply_patch(old, operations)) == text(new)
    for operation in operations:
        assert set(operation) == {"op", "path"} | ({"value"} if operation["op"] != "remove" else set())


@given(pairs | edited())
@properties
@example(({"a": 1, "b": 2, "c": 3}, {"b": 2}))
@example(({"a": 1, "b": 2, "c": 3, "d": 4}, {"c": 3, "d": 4, "b": 2}))
def test_undoing_restores_the_text(pair: tuple[Any, Any]) -> None:
    old, new = pair
    stored = json.loads(json.dumps(diff(old, new)))  # as the log keeps it
    undo = invert(stored)
    assert invert(undo) == stored
    assert text(apply(new, undo)) == text(old)
    assert text(apply(apply(new, undo), invert(undo))) == text(new)


@given(st.lists(near_states, min_size=2, max_size=6))
@properties
def test_a_log_leads_forward_and_back(history: list[Any]) -> None:
    steps = [diff(a, b) for a, b in pairwise(history)]
    log = [operation for patch in steps for operation in patch]
    assert text(apply(history[0], log)) == text(history[-1])
    assert text(apply(history[-1], invert(log))) == text(history[0])


def pointers(tree: Any, path: str = "") -> list[str]:
    found = [path]
    if isinstance(tree, dict):
        for key, value in tree.items():
            found += pointers(value, join(path, key))
    elif isinstance(tree, list):
        for place, value in enumerate(tree):
            found += pointers(value, join(path, place))
    return found


@given(pairs | edited())
@properties
def test_every_path_whose_value_changed_is_touched(pair: tuple[Any, Any]) -> None:
    old, new = pair
    operations = diff(old, new)
    for path in {*pointers(old), *pointers(new)}:
        before, after = values_at(old, operations, path)
        assert before is MISSING or text(before) == text(lookup(old, path))
        assert after is MISSING or text(after) == text(lookup(new, path))
        if (before is MISSING) != (after is MISSING) or (
            before is not MISSING and text(before) != text(after)
        ):
            assert touches(operations, path)


@pytest.mark.parametrize(
    ("old", "new", "operations"),
    [
        ({}, {}, []),
        ({}, {"a": 1}, [{"op": "add", "path": "/a", "value": 1}]),
        ({"a": 1}, {}, [{"op": "remove", "path": "/a", "old": 1}]),
        ({"a": 1}, {"a": 2}, [{"op": "replace", "path": "/a", "value": 2, "old": 1}]),
        ({"a": None}, {"a": 0}, [{"op": "replace", "path": "/a", "value": 0, "old": None}]),
        (
            {"a": 1, "b": 2, "c": 3},
            {"b": 2, "c": 3},
            [{"op": "remove", "path": "/a", "old": 1, "before": "b"}],
        ),
        (  # set again: it moves to the end
            {"a": 1, "b": 2, "c": 3},
            {"b": 2, "c": 3, "a": 1},
            [
                {"op": "remove", "path": "/a", "old": 1, "before": "b"},
                {"op": "add", "path": "/a", "value": 1},
            ],
        ),
        (  # out of reach for removing and appending
            {"o": {"a": 1, "b": 2}},
            {"o": {"new": 0, "a": 1, "b": 2}},
            [
                {
                    "op": "replace",
                    "path": "/o",
                    "value": {"new": 0, "a": 1, "b": 2},
                    "old": {"a": 1, "b": 2},
                }
            ],
        ),
        (  # the last comes first: little would stay in place
            {"o": {"a": 1, "b": 2, "c": 3}},
            {"o": {"c": 3, "a": 1, "b": 2}},
            [
                {
                    "op": "replace",
                    "path": "/o",
                    "value": {"c": 3, "a": 1, "b": 2},
                    "old": {"a": 1, "b": 2, "c": 3},
                }
            ],
        ),
        ({"/": {"~": [0]}}, {"/": {"~": [1]}}, [{"op": "replace", "path": "/~1/~0/0", "value": 1, "old": 0}]),
        ({"l": []}, {"l": [7]}, [{"op": "add", "path": "/l/0", "value": 7}]),
        ({"l": [1, 2]}, {"l": [1, 2, 3]}, [{"op": "add", "path": "/l/2", "value": 3}]),
        ({"l": [1, 2]}, {"l": [1, 9, 2]}, [{"op": "add", "path": "/l/1", "value": 9}]),
        ({"l": [1, 2, 3]}, {"l": [1, 3]}, [{"op": "remove", "path": "/l/1", "old": 2}]),
        (  # a queue: out in front, in at the back
            {"l": [1, 2, 3]},
            {"l": [2, 3, 4]},
            [{"op": "remove", "path": "/l/0", "old": 1}, {"op": "add", "path": "/l/2", "value": 4}],
        ),
        (
            {"l": [{"id": 1, "n": 0}, {"id": 2, "n": 0}]},
            {"l": [{"id": 1, "n": 0}, {"id": 2, "n": 5}]},
            [{"op": "replace", "path": "/l/1/n", "value": 5, "old": 0}],
        ),
        ({"l": [1, 2]}, {"l": []}, [
            {"op": "remove", "path": "/l/0", "old": 1},
            {"op": "remove", "path": "/l/0", "old": 2},
        ]),
        ({"l": [1, 2, 3]}, {"l": []}, [{"op": "replace", "path": "/l", "value": [], "old": [1, 2, 3]}]),
        ({"l": [1, 2]}, {"l": [3, 4]}, [{"op": "replace", "path": "/l", "value": [3, 4], "old": [1, 2]}]),
        ({"s": "x" * 50 + "a"}, {"s": "x" * 50 + "b"}, [
            {"op": "replace", "path": "/s", "value": "x" * 50 + "b", "old": "x" * 50 + "a"},
        ]),
    ],
    ids=lambda value: text(value)[:40],
)  # fmt: skip
def test_patches_say_what_was_done(old: Any, new: Any, operations: list[Operation]) -> None:
    assert diff(old, new) == operations
    assert text(apply(old, operations)) == text(new)
    assert text(apply(new, invert(operations))) == text(old)


def test_numbers_of_other_types_are_other_values() -> None:
    assert [op["path"] for op in diff({"a": 1, "b": 1, "c": 0.0}, {"a": 1.0, "b": True, "c": -0.0})] == [
        "/a",
        "/b",
        "/c",
    ]


def test_two_edits_in_a_long_list_are_two_operations() -> None:
    old = {"l": [{"id": n, "tags": ["a", "b"]} for n in range(1000)]}
    new = copy.deepcopy(old)
    del new["l"][500]
    new["l"].insert(10, {"id": -1})
    assert [(op["op"], op["path"]) for op in diff(old, new)] == [("add", "/l/10"), ("remove", "/l/501")]


def test_a_long_list_of_the_same_few_values_is_not_searched_for_ever() -> None:
    old = {"l": [n % 2 for n in range(6000)]}
    new = {"l": [n % 3 % 2 for n in range(6000)]}
    assert text(apply(old, diff(old, new))) == text(new)


def test_many_operations_on_one_container_copy_it_once() -> None:
    old = {"l": list(range(10)), "other": {"x": 1}}
    draft = _Draft(old)
    copies = set()
    for number in range(20):
        draft.apply({"op": "add", "path": "/l/0", "value": number})
        copies.add((id(draft.tree), id(draft.tree["l"])))
    assert len(copies) == 1
    assert draft.tree["l"] == [*range(19, -1, -1), *range(10)]
    assert draft.tree["other"] is old["other"]
    assert old["l"] == list(range(10))


def test_a_value_that_was_added_is_not_written_to() -> None:
    operations = [
        {"op": "add", "path": "/a", "value": {"list": []}},
        {"op": "add", "path": "/a/list/0", "value": 1},
    ]
    assert apply({}, operations) == {"a": {"list": [1]}}
    assert operations[0]["value"] == {"list": []}
    assert apply({}, operations) == {"a": {"list": [1]}}


def test_what_goes_over_the_wire_shares_nothing_with_the_state() -> None:
    new = {"a": [1]}
    sent = wire(diff({}, new))
    sent[0]["value"].append("spoilt")
    assert new == {"a": [1]}


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": "/none"},
        {"op": "replace", "path": "/none", "value": 1},
        {"op": "add", "path": "/none/x", "value": 1},
        {"op": "add", "path": "/scalar/x", "value": 1},
        {"op": "add", "path": "/list/4", "value": 1},
        {"op": "replace", "path": "/list/3", "value": 1},
        {"op": "remove", "path": "/list/3"},
        {"op": "remove", "path": "/list/-1"},
        {"op": "add", "path": "/list/-", "value": 1},
        {"op": "add", "path": "/list/01", "value": 1},
        {"op": "add", "path": "/list/x", "value": 1},
        {"op": "add", "path": "/list/x/y", "value": 1},
        {"op": "add", "path": "/new", "value": 1, "before": "none"},
        {"op": "add", "path": "/list", "value": 1, "before": "scalar"},
        {"op": "remove", "path": ""},
        {"op": "test", "path": "/scalar", "value": 1},
        {"op": "move", "path": "/new", "from": "/scalar"},
    ],
    ids=str,
)
def test_an_operation_that_does_not_fit_is_refused(operation: Operation) -> None:
    tree = {"list": [1, 2, 3], "scalar": 1}
    with pytest.raises(InvalidStateError) as caught:
        apply(tree, [operation])
    assert caught.value.path == operation["path"]
    assert tree == {"list": [1, 2, 3], "scalar": 1}


def test_a_patch_from_the_wire_cannot_be_undone() -> None:
    for new in ({}, {"a": 2}):
        with pytest.raises(UsageError, match="old value"):
            invert(wire(diff({"a": 1}, new)))


@pytest.mark.parametrize(
    ("operation", "path", "expected"),
    [
        ({"op": "replace", "path": "/a/b", "value": 1}, "/a/b", True),
        ({"op": "replace", "path": "/a/b", "value": 1}, "/a", True),
        ({"op": "replace", "path": "/a/b", "value": 1}, "", True),
        ({"op": "replace", "path": "/a", "value": 1}, "/a/b/c", True),
        ({"op": "replace", "path": "", "value": {}}, "/a/b/c", True),
        ({"op": "replace", "path": "/a/b", "value": 1}, "/a/c", False),
        ({"op": "replace", "path": "/a/b", "value": 1}, "/a/bb", False),
        ({"op": "replace", "path": "/a~1b", "value": 1}, "/a/b", False),
        ({"op": "add", "path": "/l/1", "value": 1}, "/l/2/x", True),
        ({"op": "remove", "path": "/l/1"}, "/l/2", True),
        ({"op": "remove", "path": "/l/2"}, "/l/1", False),
        ({"op": "replace", "path": "/l/1", "value": 1}, "/l/2", False),
        ({"op": "add", "path": "/l/1/x", "value": 1}, "/l/2/x", False),
        ({"op": "add", "path": "/l/x", "value": 1}, "/l/y", False),
        ({"op": "add", "path": "/k/1", "value": 1}, "/l/2", False),
    ],
    ids=str,
)
def test_touching_is_standing_at_above_or_below_or_moving(
    operation: Operation, path: str, expected: bool
) -> None:
    assert touches([{"op": "add", "path": "/unrelated", "value": 0}, operation], path) is expected
    assert touches([], path) is False


def test_values_at_a_path_before_and_after() -> None:
    before = {"list": ["a", "b"], "gone": 1}
    operations = diff(before, {"list": ["b"], "new": None})
    assert values_at(before, operations, "/list/0") == ("a", "b")
    assert values_at(before, operations, "/list/1") == ("b", MISSING)
    assert values_at(before, operations, "/gone") == (1, MISSING)
    assert values_at(before, operations, "/new") == (MISSING, None)
    assert values_at(before, operations, "/list/x/y") == (MISSING, MISSING)


def test_a_pointer_starts_with_a_slash() -> None:
    with pytest.raises(UsageError, match="JSON Pointer"):
        touches([], "list")
    assert split("/~01/~1") == ["~1", "/"]
    assert lookup({"~1": {"/": 5}}, join(join("", "~1"), "/")) == 5
