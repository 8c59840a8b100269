"""The three-way merge: nothing lost, nothing doubled, and a conflict is called one."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kern.errors import InvalidStateError, UsageError
from kern.state.codec import encode
from kern.state.merge import Conflict, merge, policy_path
from kern.state.pointer import MISSING
from kern.state.policies import MergePolicy, add, maximum, minimum, ours, theirs, union
from tests.state.json_documents import few_values, near_states, text, trees

properties = settings(deadline=None, max_examples=150)


def unordered(value: Any) -> str:
    """The text with keys and list elements sorted: what is there, wherever it stands."""

    def sort(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: sort(item) for key, item in sorted(value.items())}
        return sorted((sort(item) for item in value), key=text) if isinstance(value, list) else value

    return text(sort(value))


@pytest.mark.parametrize(
    ("base", "a", "b", "merged", "conflicts"),
    [
        pytest.param([1], [1, 2], [1, 3], [1, 2, 3], [], id="both append"),
        pytest.param(
            ["a"], ["a", "milk"], ["a", "milk"], ["a", "milk", "milk"], [], id="both append the same"
        ),
        pytest.param([1, 2, 3], [1, 2, 3, 9], [1, 2], [1, 2, 9], [], id="append, remove the last"),
        pytest.param([1, 2, 3], [2, 3], [1, 2], [2], [], id="remove different ones"),
        pytest.param([1, 2, 3], [1, 3], [1, 3], [1, 3], [], id="remove the same one"),
        pytest.param([3, 1, 2], [1, 2, 3], [3, 1, 2, 0], [1, 2, 3, 0], [], id="sort, append"),
        pytest.param([1, 2, 3, 4], [4, 1, 2, 3], [1, 2, 3], [1, 2, 3], [], id="reorder, remove"),
        pytest.param([1, 2, 3], [3, 1, 2], [1, 3, 2, 4], [1, 3, 2, 4], [], id="both move the same one"),
        pytest.param(["a", "a"], ["b", "a", "a"], ["a"], ["b", "a"], [], id="one of two equal ones"),
        pytest.param(
            ["a", "a", 1, 2, 3], [1, 2, 3, "a"], [1, 2, "a", 3], [1, 2, "a", 3], [], id="both move one of two"
        ),
        pytest.param([1, 2, 3], [1, 9, 3], [1, 8, 2, 3], [1, 8, 9, 3], [], id="replace, insert before it"),
        pytest.param([3, 4], [3, 5], [9, 4], [9, 5], [], id="a position, each its own part"),
        pytest.param([3, 4], [3, 5], [3, 6], [3, 6], ["/x/1"], id="a position, the same part"),
        pytest.param(
            [{"a": 0, "b": 0}],
            [{"a": 1, "b": 0}],
            [{"a": 0, "b": 2}],
            [{"a": 1, "b": 2}],
            [],
            id="one item's fields",
        ),
        pytest.param(
            [{"a": 0}], [{"a": 1}], [{"a": 0}, {"c": 1}], [{"a": 1}, {"c": 1}], [], id="edit, append"
        ),
        pytest.param(
            ["milk", "eggs", "tea"],
            ["eggs", "tea", "soap"],
            ["milk", "6 eggs", "tea"],
            ["6 eggs", "tea", "soap"],
            [],
            id="buy one and add one, rename another",
        ),
        pytest.param(["a", "b"], ["b", "x"], ["b", "y"], ["b", "x", "y"], [], id="a log of two lines"),
        pytest.param([1, 2, 3], [2, 3, 4], [1, 3, 5], [3, 4, 5], [], id="each removes one and adds one"),
        pytest.param([[1], [2]], [[2], [3]], [[1], [2, 22]], [[2, 22], [3]], [], id="lists that move up"),
        pytest.param(
            [{"id": 1, "n": 1}, {"id": 2, "n": 1}, {"id": 3, "n": 1}],
            [{"id": 2, "n": 1}, {"id": 3, "n": 1}, {"id": 4, "n": 1}],
            [{"id": 1, "n": 1}, {"id": 2, "n": 1}, {"id": 3, "n": 5}],
            [{"id": 2, "n": 1}, {"id": 3, "n": 5}, {"id": 4, "n": 1}],
            [],
            id="records that move up keep their own changes",
        ),
        pytest.param(
            [{"id": 1, "n": 1}, {"id": 2, "n": 1}],
            [{"id": 2, "n": 7}],
            [{"id": 1, "n": 1}, {"id": 2, "n": 1, "m": 2}],
            [{"id": 2, "n": 7, "m": 2}],
            [],
            id="remove one and edit the next",
        ),
        pytest.param(
            [{"id": 1, "n": 1}],
            [{"id": 7, "n": 1}],
            [{"id": 1, "n": 5}],
            [{"id": 1, "n": 5}, {"id": 7, "n": 1}],
            ["/x/0"],
            id="a record that replaces another takes none of its changes",
        ),
        pytest.param(
            [{"a": 1, "b": 1}, {"a": 2, "b": 2}],
            [{"a": 2, "b": 3}],
            [{"a": 1, "b": 1}, {"a": 2, "b": 2, "c": 3}],
            [{"a": 2, "b": 3, "c": 3}],
            [],
            id="objects without ids are paired by what they share",
        ),
        pytest.param(
            [{"a": 0}, {"b": 0}],
            [{"a": 1}, {"b": 0}],
            [{"b": 0}],
            [{"b": 0}],
            ["/x/0"],
            id="edit, delete an item",
        ),
        pytest.param(
            [{"a": 0}, {"b": 0}],
            [{"b": 0}],
            [{"a": 1}, {"b": 0}],
            [{"a": 1}, {"b": 0}],
            ["/x/0"],
            id="delete, edit",
        ),
        pytest.param(MISSING, ["a"], ["b"], ["a", "b"], [], id="a list that both begin"),
        pytest.param(MISSING, {"a": 1}, {"b": 2}, {"a": 1, "b": 2}, [], id="an object that both begin"),
        pytest.param(5, 6, 6, 6, ["/x"], id="two equal counts are not one"),
        pytest.param(5, 6, 7, 7, ["/x"], id="two counts"),
        pytest.param(0.5, 1.5, 1.5, 1.5, ["/x"], id="two equal fractions"),
        pytest.param(False, True, True, True, [], id="a flag that both set"),
        pytest.param("a", "b", "b", "b", [], id="a text that both set"),
        pytest.param("a", "b", "c", "c", ["/x"], id="two texts"),
        pytest.param(1, MISSING, MISSING, MISSING, [], id="both delete"),
        pytest.param({"a": 1}, MISSING, {"a": 2}, {"a": 2}, ["/x"], id="delete, edit a key"),
        pytest.param({"a": 1}, {"a": 2}, MISSING, MISSING, ["/x"], id="edit, delete a key"),
        pytest.param({"a": 1}, {"a": 1}, MISSING, MISSING, [], id="one deletes"),
        pytest.param(1, {"a": 1}, 2, 2, ["/x"], id="an object, a number"),
        pytest.param(
            {"p": 1, "q": 2}, {"q": 2, "p": 1}, 5, 5, [], id="an order of keys is no rival of a value"
        ),
        pytest.param({"p": 1, "q": 2}, 5, {"q": 2, "p": 1}, 5, [], id="nor the other way round"),
        pytest.param(1, True, 1, True, [], id="1 and true differ"),
        pytest.param(None, MISSING, 1, 1, ["/x"], id="None is a value"),
        pytest.param({"k/~": 1}, {"k/~": 2}, {"k/~": 3}, {"k/~": 3}, ["/x/k~1~0"], id="a pointer is escaped"),
    ],
)
def test_the_rules(base: Any, a: Any, b: Any, merged: Any, conflicts: list[str]) -> None:
    def state(value: Any) -> dict[str, Any]:
        return {} if value is MISSING else {"x": value}

    result = merge(state(base), state(a), state(b))
    assert text(result.value) == text(state(merged))
    assert [conflict.path for conflict in result.conflicts] == conflicts


def test_a_conflict_tells_all_three_values() -> None:
    [conflict] = merge({}, {"n": 1}, {"n": 2}).conflicts
    assert conflict == Conflict("/n", MISSING, 1, 2)
    assert conflict.to_dict() == {"path": "/n", "theirs": 1, "ours": 2}
    [conflict] = merge({"n": None}, {"n": 1}, {}).conflicts
    assert conflict.to_dict() == {"path": "/n", "base": None, "theirs": 1}
    json.dumps(conflict.to_dict())


@given(near_states, near_states)
@properties
@example({"a": 1, "b": 2}, {"b": 2, "a": 1})
def test_where_one_side_did_nothing_the_other_is_the_result(base: Any, changed: Any) -> None:
    for result in (merge(base, base, changed), merge(base, changed, base)):
        assert text(result.value) == text(changed)
        assert result.conflicts == []


documents = st.dictionaries(
    st.sampled_from(["x", "y", "z"]), trees(few_values, st.sampled_from(["p", "q", "r"])), max_size=3
)


@given(documents, documents, documents)
@settings(deadline=None, max_examples=400)
def test_both_sides_see_the_same_conflicts_and_without_any_the_same_result(base: Any, a: Any, b: Any) -> None:
    kept = text([base, a, b])
    one, other = merge(base, a, b), merge(base, b, a)
    assert sorted(c.path for c in one.conflicts) == sorted(c.path for c in other.conflicts)
    if not one.conflicts:
        assert unordered(one.value) == unordered(other.value)
    assert text([base, a, b]) == kept
    encode(one.value)


@given(documents, documents, documents)
@properties
def test_disjoint_keys_survive_at_any_depth(base: Any, a: Any, b: Any) -> None:
    start = {"shared": {"deep": base}}
    mine = {"shared": {"deep": base, "mine": a}, "mine": a}
    yours = {"shared": {"yours": b, "deep": base}, "yours": b}
    result = merge(start, yours, mine)
    assert result.conflicts == []
    assert result.value == {"shared": {"deep": base, "yours": b, "mine": a}, "yours": b, "mine": a}


def edits(base: list[str], tag: str, rnd: random.Random) -> list[str]:
    """What a program of appends, inserts, removes and sorts makes of a list; what it adds bears its tag."""
    values = list(base)
    for number in range(rnd.randint(0, 4)):
        match rnd.choice(["append", "insert", "remove", "sort"]):
            case "append":
                values.append(f"{tag}{number}")
            case "insert":
                values.insert(rnd.randint(0, len(values)), f"{tag}{number}")
            case "sort":
                values.sort(reverse=rnd.random() < 0.5)
            case "remove":
                if olds := [value for value in values if value in base]:
                    values.remove(rnd.choice(olds))
    return values


@given(st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=500)
def test_programs_on_one_list_lose_and_double_nothing(rnd: random.Random) -> None:
    base = [f"b{number}" for number in range(rnd.randint(0, 6))]
    a, b = edits(base, "t", rnd), edits(base, "o", rnd)
    if base and len(base) == len(a) == len(b):
        return  # merged by position
    merged, conflicts = merge({"l": base}, {"l": a}, {"l": b})
    survivors = {value for value in base if value in a and value in b}
    added = {value for value in a + b if value not in base}
    assert sorted(merged["l"]) == sorted(survivors | added)
    assert conflicts == []


@given(
    st.lists(st.sampled_from("ab"), max_size=5),
    st.lists(st.sampled_from("ab")),
    st.lists(st.sampled_from("ab")),
)
@properties
def test_appends_of_equal_values_are_all_kept(base: list[str], a: list[str], b: list[str]) -> None:
    merged, _ = merge({"l": base}, {"l": base + a}, {"l": base + b})
    if a and b and not base:
        assert merged["l"] == a + b
    elif len(a) != 0 or len(b) != 0:
        assert merged["l"] == base + a + b


@given(st.lists(st.sampled_from("abc"), max_size=7), st.data())
@properties
@example(["a", "a", "x", "y", "z"], None)
def test_moving_and_removing_equal_values_keeps_count_of_them(
    base: list[str], data: st.DataObject | None
) -> None:
    if data is None:  # both are moved by one side, and one is removed by the other
        a, b = ["x", "y", "z", "a", "a"], ["a", "x", "y", "z"]
    else:
        a = [*data.draw(st.permutations(base)), "new"]
        b = data.draw(st.permutations(base))
        b = b[: data.draw(st.integers(0, len(b)))]
    merged, conflicts = merge({"l": base}, {"l": a}, {"l": b})
    swapped, _ = merge({"l": base}, {"l": b}, {"l": a})
    assert sorted(merged["l"]) == sorted(swapped["l"]) == sorted([*b, *(v for v in a if v == "new")])
    assert conflicts == []


@given(st.lists(st.sampled_from("ab"), max_size=8), st.data())
@properties
def test_equal_values_that_both_remove_are_removed_once_or_twice(
    base: list[str], data: st.DataObject
) -> None:
    a, b = (data.draw(st.permutations(base)) for _ in range(2))
    a, b = a[: data.draw(st.integers(0, len(a)))], b[: data.draw(st.integers(0, len(b)))]
    merged, _ = merge({"l": base}, {"l": a}, {"l": b})
    if len(base) == len(a) == len(b):
        return  # merged by position
    for value in "ab":
        left_by_a, left_by_b, start = a.count(value), b.count(value), base.count(value)
        assert left_by_a + left_by_b - start <= merged["l"].count(value) <= min(left_by_a, left_by_b)


def test_long_lists_of_few_values_are_merged_in_good_time() -> None:
    base = [n % 2 for n in range(4000)]
    a, b = [n % 3 % 2 for n in range(4001)], [1, *base]
    merged, _ = merge({"l": base}, {"l": a}, {"l": b})
    assert len(merged["l"]) >= 4001


# Policies


@pytest.mark.parametrize(
    ("policy", "base", "a", "b", "merged"),
    [
        (add, 5, 6, 6, 7),
        (add, 5, 6, 9, 10),
        (add, 5, 2, 4, 1),
        (add, MISSING, 2, 3, 5),
        (add, 5, MISSING, 7, 2),
        (add, 0.5, 1.5, 1, 2.0),
        (add, 2**80, 2**80 + 1, 2**80 + 2, 2**80 + 3),
        (union, ["a"], ["a", "b"], ["a", "b", "c"], ["a", "b", "c"]),
        (union, MISSING, ["a"], ["b", "a"], ["a", "b"]),
        (union, ["a", "b", "c"], ["b", "c", "x"], ["a", "c"], ["c", "x"]),
        (union, ["a"], MISSING, ["a", "b"], ["b"]),
        (union, [], [1, {"k": 1}], [1.0, True, {"k": 1}], [1, {"k": 1}, 1.0, True]),
        (maximum, 1, 3, 2, 3),
        (maximum, MISSING, "a", "b", "b"),
        (maximum, 1, MISSING, 2, 2),
        (minimum, 5, 3, 2, 2),
        (minimum, 5, 3, MISSING, 3),
        (ours, "a", "b", "c", "c"),
        (ours, "a", "b", MISSING, MISSING),
        (theirs, "a", "b", "c", "b"),
        (theirs, "a", MISSING, "c", MISSING),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
def test_ready_policies(policy: MergePolicy, base: Any, a: Any, b: Any, merged: Any) -> None:
    def state(value: Any) -> dict[str, Any]:
        return {"other": 0} if value is MISSING else {"x": value, "other": 0}

    result = merge(state(base), {**state(a), "a": 1}, {**state(b), "b": 1}, {"x": policy})
    assert result.conflicts == []
    expected = {**({} if merged is MISSING else {"x": merged}), "other": 0, "a": 1, "b": 1}
    assert unordered(result.value) == unordered(expected)


@given(st.integers(), st.lists(st.integers(), max_size=6))
@properties
def test_counting_with_add_loses_no_count(start: int, counts: list[int]) -> None:
    """Processes that all started from the same state commit one after the other."""
    base = stored = {"n": start}
    for count in counts:
        stored = merge(base, stored, {"n": start + count}, {"n": add}).value
    assert stored == {"n": start + sum(counts)}


def test_a_policy_is_not_asked_where_only_one_side_changed_or_both_deleted() -> None:
    def never(*values: Any) -> Any:
        raise AssertionError("asked")

    policies = {"n": never}
    assert merge({"n": 1}, {"n": 1}, {"n": 2}, policies).value == {"n": 2}
    assert merge({"n": 1}, {"n": 2}, {"n": 1}, policies).value == {"n": 2}
    assert merge({"n": 1}, {}, {}, policies).value == {}
    assert merge({"n": 1}, {"n": 1}, {"n": 1}, policies).value == {"n": 1}


@pytest.mark.parametrize("name", ["cart.total", "/cart/total"])
def test_a_policy_is_named_by_a_dotted_path_or_a_pointer(name: str) -> None:
    base, a, b = ({"cart": {"total": n}, "total": 1} for n in (1, 2, 3))
    result = merge(base, a, b, {name: add})
    assert result.value == {"cart": {"total": 4}, "total": 1}
    assert result.conflicts == []


def test_a_pointer_reaches_keys_with_dots() -> None:
    assert merge({"a.b": 1}, {"a.b": 2}, {"a.b": 2}, {"/a.b": add}).value == {"a.b": 3}
    assert policy_path("a.b/c") == "/a/b~1c"


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b"])
def test_a_policy_needs_a_name(name: str) -> None:
    with pytest.raises(UsageError, match="merge policy"):
        merge({}, {}, {}, {name: add})


def test_a_policy_may_put_tuples_but_nothing_that_is_not_json() -> None:
    base, a, b = {"x": [1]}, {"x": [2]}, {"x": [3]}
    assert merge(base, a, b, {"x": lambda *_: (1, 2)}).value == {"x": [1, 2]}
    with pytest.raises(InvalidStateError) as caught:
        merge(base, a, b, {"x": lambda *_: [{1}]})
    assert caught.value.path == "/x/0"


def test_a_policy_that_fails_is_named_with_its_place() -> None:
    with pytest.raises(
        InvalidStateError, match=r"/cart/n: the merge policy add failed.*number.*str"
    ) as caught:
        merge({"cart": {"n": 1}}, {"cart": {"n": "x"}}, {"cart": {"n": 2}}, {"cart.n": add})
    assert caught.value.path == "/cart/n"
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(InvalidStateError, match=r"union failed.*list"):
        merge({}, {"x": [1]}, {"x": {"a": 1}}, {"x": union})
    with pytest.raises(InvalidStateError, match="add failed"):
        merge({}, {"x": True}, {"x": 1}, {"x": add})


def test_a_policy_can_spoil_nothing() -> None:
    def greedy(base: Any, theirs: Any, ours: Any) -> Any:
        theirs += ours
        base.clear()
        return theirs

    base, a, b = {"x": [[1]]}, {"x": [[1], [2]]}, {"x": [[3]]}
    kept = copy.deepcopy([base, a, b])
    assert merge(base, a, b, {"x": greedy}).value == {"x": [[1], [2], [3]]}
    assert [base, a, b] == kept
