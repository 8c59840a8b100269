"""Putting a state back into the objects that a function keeps of it."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from kern.state.state_type import DICT, put_back
from tests.state.json_documents import near_states, text


@settings(deadline=None)
@given(near_states, near_states)
def test_the_content_is_the_source_s_and_the_object_the_target_s(target: Any, source: Any) -> None:
    wanted = text(source)
    assert put_back(target, source) is target
    assert text(target) == wanted


@settings(deadline=None)
@given(near_states)
def test_no_part_comes_to_stand_in_two_places(shared: Any) -> None:
    target = {"a": shared, "b": [shared, shared], "c": shared}
    source: Any = copy.deepcopy({"a": {**shared, "x": 1}, "b": [{"y": 1}, dict(shared)], "c": {}})
    wanted = text(source)
    put_back(target, source)
    assert text(target) == wanted


@given(st.lists(st.integers(0), min_size=1), st.lists(st.integers()), st.lists(st.integers(0)))
def test_elements_stay_the_same_when_others_come_or_go(
    kept: list[int], inserted: list[int], appended: list[int]
) -> None:
    elements = [{"n": n} for n in kept]
    items: list[Any] = list(elements)
    target = {"items": items}
    put_back(target, {"items": [{"n": n} for n in [*kept, *appended]]})
    assert target["items"] is items
    assert all(item is element for item, element in zip(items, elements, strict=False))
    there = list(items)
    new = [{"n": -1 - abs(n)} for n in [0, *inserted]]
    put_back(target, {"items": [*new, *copy.deepcopy(there)]})
    assert items == [*new, *there]
    assert all(item is element for item, element in zip(items[len(new) :], there, strict=True))


def test_a_model_s_fields_are_put_back_in_place() -> None:
    class Inner(BaseModel):
        values: list[int] = []

    class Outer(BaseModel):
        inner: Inner = Inner()
        names: dict[str, Inner] = {}

    target = Outer(names={"a": Inner(values=[1])})
    inner, values, named = target.inner, target.inner.values, target.names["a"]
    put_back(target, Outer(inner=Inner(values=[1, 2]), names={"a": Inner(values=[3]), "b": Inner()}))
    assert target == Outer(inner=Inner(values=[1, 2]), names={"a": Inner(values=[3]), "b": Inner()})
    assert target.inner is inner
    assert target.inner.values is values
    assert target.names["a"] is named
    assert target.model_fields_set == {"inner", "names"}


def test_a_dict_is_laid_over_deep_and_its_keys_are_set_flat() -> None:
    state = {"a": {"b": 1, "c": 2}, "d": 1}
    assert DICT.lay_over(state, {"a": {"c": 3}}) == {"a": {"b": 1, "c": 3}, "d": 1}
    DICT.update(state, {"a": {"c": 3}})
    assert state == {"a": {"c": 3}, "d": 1}
