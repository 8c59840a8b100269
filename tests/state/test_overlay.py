"""How states are laid over each other."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings

from kern.errors import InvalidStateError
from kern.state.overlay import deep_merge, fill
from tests.state.json_documents import near_states, text

properties = settings(deadline=None, max_examples=150)


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ({}, {}, {}),
        ({"a": 1, "b": 2}, {"b": 3, "c": 4}, {"a": 1, "b": 3, "c": 4}),
        ({"a": {"x": 1, "y": {"z": 1}}}, {"a": {"y": {"w": 2}}}, {"a": {"x": 1, "y": {"z": 1, "w": 2}}}),
        ({"a": {"x": 1}}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"x": 1}}, {"a": {}}, {"a": {"x": 1}}),
        ({"a": 1}, {"a": None}, {"a": None}),
        ({"a": (1,)}, {"b": (2,)}, {"a": [1], "b": [2]}),
    ],
)
def test_objects_merge_and_anything_else_is_replaced(base: Any, over: Any, merged: Any) -> None:
    assert text(deep_merge(base, over)) == text(merged)


@pytest.mark.parametrize(
    ("base", "defaults", "filled"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 1}, {"a": 2, "b": 3}, {"a": 1, "b": 3}),
        ({"a": None}, {"a": 2}, {"a": None}),
        ({"cart": {"items": []}}, {"cart": {"items": [1], "total": 0}}, {"cart": {"items": [], "total": 0}}),
        ({"a": 1}, {"a": {"x": 1}}, {"a": 1}),
        ({"a": {"x": 1}}, {"a": 1}, {"a": {"x": 1}}),
        ({"z": 1}, {"a": 1, "z": 2}, {"z": 1, "a": 1}),
    ],
)
def test_only_what_is_lacking_is_filled_in(base: Any, defaults: Any, filled: Any) -> None:
    assert text(fill(base, defaults)) == text(filled)


def containers(value: Any) -> list[int]:
    if not isinstance(value, (dict, list)):
        return []
    children = value.values() if isinstance(value, dict) else value
    return [id(value), *(found for child in children for found in containers(child))]


@given(near_states, near_states)
@properties
def test_arguments_are_neither_changed_nor_kept(a: Any, b: Any) -> None:
    kept = copy.deepcopy([a, b])
    for result in (deep_merge(a, b), fill(a, b)):
        assert text([a, b]) == text(kept)
        assert set(containers(result)).isdisjoint(containers([a, b]))


@given(near_states, near_states)
@properties
def test_filling_is_laying_over_the_other_way_round(a: Any, b: Any) -> None:
    assert fill(a, b) == deep_merge(b, a)
    assert text(fill(a, a)) == text(deep_merge(a, a)) == text(a)
    assert text(deep_merge(deep_merge(a, b), b)) == text(deep_merge(a, b))
    assert text(fill(fill(a, b), b)) == text(fill(a, b))


@pytest.mark.parametrize("function", [deep_merge, fill])
def test_what_is_no_json_is_refused_with_its_place(function: Any) -> None:
    circle: dict[str, Any] = {}
    circle["again"] = circle
    for bad, path in (({"a": {"b": {1}}}, "/a/b"), ({"x": circle}, "/x/again")):
        for arguments in (({}, bad), (bad, {})):
            with pytest.raises(InvalidStateError) as caught:
                function(*arguments)
            assert caught.value.path == path
