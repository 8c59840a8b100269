"""The codec: exactly JSON passes, everything else is named with its place."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import math
import re
import uuid
from collections import OrderedDict, defaultdict, deque, namedtuple
from contextlib import suppress
from pathlib import Path
from typing import Any

import pydantic
import pydantic_core
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kern.errors import InvalidStateError
from kern.state import codec
from kern.state.codec import MAX_DEPTH, copy, decode, encode, encode_edited, same
from tests.state.json_documents import near_states, scalars, states, text


class Model(pydantic.BaseModel):
    x: int = 1


@dataclasses.dataclass
class Data:
    x: int = 1


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Name(enum.StrEnum):
    ANN = "ann"


class Shouting(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"


class Distance(float):
    pass


class OddEq:
    """Not JSON, whatever it says it is equal to."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


class BrokenEq(str):
    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")


class Identity(str):
    """Two keys with one text that a dict holds apart."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


Pair = namedtuple("Pair", "left right")


def exactly(value: Any) -> Any:
    """The value with the exact type of everything in it."""
    if isinstance(value, dict):
        return dict, [(exactly(key), exactly(item)) for key, item in value.items()]
    if isinstance(value, list):
        return list, [exactly(item) for item in value]
    return type(value), repr(value)


def nested(levels: int, innermost: Any = None) -> Any:
    """A dict, with lists in it: `levels` containers in all."""
    value: Any = [] if innermost is None else innermost
    for _ in range(levels - 2):
        value = [value]
    return {"deep": value}


@given(states())
@settings(deadline=None)
def test_the_text_is_the_json_of_the_state(state: dict[str, Any]) -> None:
    data, tree = encode(state)
    assert exactly(json.loads(data)) == exactly(state)
    assert exactly(tree) == exactly(state)
    assert exactly(decode(data)) == exactly(state)


@given(states())
@settings(deadline=None)
def test_the_tree_is_private(state: dict[str, Any]) -> None:
    before = text(state)
    _, tree = encode(state)

    def spoil(value: Any) -> None:
        for child in value.values() if isinstance(value, dict) else value:
            if isinstance(child, (dict, list)):
                spoil(child)
        value.clear()

    spoil(tree)
    assert text(state) == before


def tuples(value: Any) -> Any:
    """The value with its lists made tuples."""
    if isinstance(value, dict):
        return {key: tuples(item) for key, item in value.items()}
    return tuple(tuples(item) for item in value) if isinstance(value, list) else value


@pytest.fixture
def members_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small states are looked at as large ones are."""
    monkeypatch.setattr(codec, "_LARGE_MEMBER", 0)


@given(near_states, near_states, st.booleans())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_edited_state_is_encoded_as_any_other(
    members_one_by_one: None, before: dict[str, Any], after: dict[str, Any], whole: bool
) -> None:
    data, tree = encode(before)
    edited = after if whole else {**decode(data), **after}
    assert encode_edited(edited, data, tree) == encode(edited)
    assert exactly(encode_edited(edited, data, tree)[1]) == exactly(encode(edited)[1])


@pytest.mark.parametrize("blanks", [False, True])
def test_what_was_not_edited_is_shared(members_one_by_one: None, blanks: bool) -> None:
    before = {"n": 1, "kept": [1, {"a": 1.0}], "gone": {"x": [2]}, "also": {"b": "12"}, "number": 12}
    data, tree = encode(before)
    if blanks:  # as another program may have written it
        data = json.dumps(before).encode()
    edited = decode(data)
    edited["n"], edited["number"] = 10, 1
    del edited["gone"]
    new_data, new_tree = encode_edited(edited, data, tree)
    assert (new_data, exactly(new_tree)) == (encode(edited)[0], exactly(edited))
    assert [new_tree[key] is tree[key] for key in ("kept", "also")] == [not blanks] * 2
    assert new_tree["kept"] is not edited["kept"]


class Member(dict[str, Any]):
    """A dict by another name."""


@pytest.mark.parametrize("other", [{1, 2}, {1: 2}, math.nan, OddEq(), Model(), b"12", {"a": ({0},)}])
@pytest.mark.parametrize("now", [[1, 2], {"1": 2}, None, {"x": 1}, "12", {"a": [[0]]}])
def test_what_is_written_as_before_but_is_not_json_is_refused(
    members_one_by_one: None, now: Any, other: Any
) -> None:
    data, tree = encode({"first": 0, "member": now})
    with pytest.raises(InvalidStateError) as edited:
        encode_edited({"first": 0, "member": other}, data, tree)
    with pytest.raises(InvalidStateError) as plain:
        encode({"first": 0, "member": other})
    assert edited.value.path == plain.value.path
    assert edited.value.path.startswith("/member")


@pytest.mark.parametrize(
    "value", [Member(a=1), {"a": Member(b=(1,))}, {Name.ANN: 1}, {"a": 1, Identity("a"): 2}, {1: 2}, [], {}]
)
def test_odd_states_are_edited_as_they_are_encoded(members_one_by_one: None, value: Any) -> None:
    data, tree = encode({"a": {"b": [1]}, "ann": 1})
    try:
        wanted = encode(value)
    except InvalidStateError as error:
        with pytest.raises(InvalidStateError, match=re.escape(str(error))):
            encode_edited(value, data, tree)
    else:
        assert exactly(encode_edited(value, data, tree)[1]) == exactly(wanted[1])


@given(states())
@settings(deadline=None)
def test_tuples_become_lists_and_the_slow_way_agrees_with_the_fast_one(state: dict[str, Any]) -> None:
    slow = {"force": (), **tuples(state)}
    fast = {"force": [], **state}
    assert encode(slow)[0] == encode(fast)[0]
    assert exactly(encode(slow)[1]) == exactly(fast)


def since(version: str) -> pytest.MarkDecorator:
    """What pydantic-core gets right from this version on; older ones that Kern takes write it otherwise."""
    parts = tuple(map(int, version.split(".")))
    installed = tuple(map(int, pydantic_core.__version__.split(".")[:3]))
    return pytest.mark.skipif(installed < parts, reason=f"pydantic-core before {version}")


def test_a_number_that_could_not_be_read_again_is_never_stored() -> None:
    """pydantic-core before 2.50.2 writes it and cannot read it."""
    with suppress(InvalidStateError):
        stored, tree = encode({"x": -(10**4300 - 1)})
        assert decode(stored) == tree


def test_text_is_compact_utf8_in_the_order_of_the_keys() -> None:
    assert encode({"z": "é\u2028", "a": [1, 2.5]})[0] == '{"z":"é\u2028","a":[1,2.5]}'.encode()


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (-0.0, b"-0.0"),
        (0.0, b"0.0"),
        pytest.param(1e308, b"1e+308", marks=since("2.46"), id="1e+308"),
        (5e-324, b"5e-324"),
        (2**63, b"9223372036854775808"),
        (-(2**70), str(-(2**70)).encode()),
        (10**400, b"1" + b"0" * 400),
        pytest.param(-(10**4300 - 1), b"-" + b"9" * 4300, marks=since("2.50.2"), id="-9999999999999999999"),
        ('\x00\x7f"\\', rb'"\u0000' + b"\x7f" + rb'\"\\"'),
        (True, b"true"),
        (None, b"null"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_numbers_and_text_are_kept_exactly(value: Any, data: bytes) -> None:
    encoded, tree = encode({"x": value})
    assert encoded == b'{"x":' + data + b"}"
    assert exactly(tree["x"]) == exactly(decode(encoded)["x"]) == exactly(value)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, a=[1]), {"a": [1]}),
        (Pair(1, "r"), [1, "r"]),
        (Name.ANN, "ann"),
        (Level.LOW, 1),
        (Distance(1.5), 1.5),
        (Shouting("soft"), "soft"),
        (BrokenEq("x"), "x"),
        ({Name.ANN: 1}, {"ann": 1}),
        ([(Shouting("soft"), Level.LOW, Distance(1.5))], [["soft", 1, 1.5]]),
    ],
    ids=repr,
)
def test_subclasses_become_what_they_hold(value: Any, plain: Any) -> None:
    assert exactly(encode({"x": value})[1]) == exactly({"x": plain})
    assert exactly(encode({"x": value, "t": ()})[1]) == exactly({"x": plain, "t": []})


@since("2.50")
def test_an_ordered_dict_keeps_its_own_order() -> None:
    value = OrderedDict(a=1, b=2)
    value.move_to_end("a")
    assert encode({"x": value})[0] == b'{"x":{"b":2,"a":1}}'


REFUSED = [
    {1, 2},
    frozenset({1}),
    b"bytes",
    bytearray(b"x"),
    math.nan,
    math.inf,
    -math.inf,
    Distance("nan"),
    decimal.Decimal("1.0"),
    datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    datetime.date(2026, 1, 1),
    datetime.timedelta(1),
    uuid.UUID(int=1),
    Path("x"),
    Colour.RED,
    Model(),
    Data(),
    OddEq(),
    1 + 0j,
    object(),
    deque([1]),
    range(3),
    (number for number in (1, 2)),
    {}.keys(),
    ValueError("x"),
    len,
    int,
    ...,
    "\ud800",
    "ok \udfff",
    10**4300,
    -(10**4300),
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda value: {"x": value}, "/x"),
        (lambda value: {"a": [1, {"b/c~d": [0, value]}]}, "/a/1/b~1c~0d/1"),
        (lambda value: {"fine": (1,), "a": (0, (value,))}, "/a/1/0"),
    ],
    ids=["top", "deep", "in tuples"],
)
def test_what_is_not_json_is_refused_with_its_place(value: Any, wrap: Any, path: str) -> None:
    with pytest.raises(InvalidStateError) as caught:
        encode(wrap(value))
    assert caught.value.path == path
    assert str(caught.value).startswith(f"session_state{path}: ")
    str(caught.value).encode()


@pytest.mark.parametrize("key", [1, True, None, 1.5, (1, 2), b"x", Colour.RED], ids=repr)
def test_keys_that_are_not_str_are_refused(key: Any) -> None:
    with pytest.raises(InvalidStateError, match="keys must be str") as caught:
        encode({"a": [{key: 1}]})
    assert caught.value.path == "/a/0"


def test_a_key_with_a_lone_surrogate_is_refused_with_a_message_that_can_be_printed() -> None:
    with pytest.raises(InvalidStateError, match="surrogate") as caught:
        encode({"a": {"b\ud800": 1}})
    assert caught.value.path == "/a/b\\ud800"
    str(caught.value).encode()


def test_two_keys_with_one_text_are_refused() -> None:
    with pytest.raises(InvalidStateError, match="same text") as caught:
        encode({"a": {Identity("k"): 1, Identity("k"): 2}})
    assert caught.value.path == "/a/k"


@pytest.mark.parametrize("value", [None, [], [{}], "{}", 1, Model(), ()], ids=repr)
def test_the_state_has_to_be_a_dict(value: Any) -> None:
    with pytest.raises(InvalidStateError, match="must be a dict"):
        encode(value)


def test_a_value_that_contains_itself_is_refused() -> None:
    around: list[Any] = [1]
    around.append({"again": around})
    with pytest.raises(InvalidStateError, match="contains itself") as caught:
        encode({"x": around})
    assert caught.value.path == "/x/1/again"


def test_one_object_in_two_places_is_no_circle() -> None:
    shared = {"n": [1]}
    _, tree = encode({"a": shared, "b": [shared, shared], "t": (shared,)})
    assert tree == {"a": shared, "b": [shared, shared], "t": [shared]}
    assert tree["a"] is not tree["b"][0]


@pytest.mark.parametrize("innermost", [None, (), {"k": ()}, [()]], ids=["list", "tuple", "dict", "mixed"])
def test_nesting_has_one_limit_on_the_fast_way_and_on_the_slow_one(innermost: Any) -> None:
    own = 0 if innermost in (None, ()) else 1  # levels below the innermost container
    assert encode(nested(MAX_DEPTH - own, innermost))
    with pytest.raises(InvalidStateError, match="levels deep") as caught:
        encode(nested(MAX_DEPTH - own + 1, innermost))
    assert caught.value.path == "/deep"


@pytest.mark.parametrize("levels", [101, 150, 250, 900, 50_000])
def test_any_depth_is_refused_in_good_order(levels: int) -> None:
    with pytest.raises(InvalidStateError, match="levels deep"):
        encode(nested(levels))


def test_what_is_deepest_can_still_stand_inside_of_larger_documents() -> None:
    data, _ = encode(nested(MAX_DEPTH))
    assert decode(b'{"x":' + b"[" * 90 + data + b"]" * 90 + b"}")


def test_many_brackets_are_not_depth() -> None:
    state = {"rows": [[[n], {"n": n, "text": "[[[{{{"}] for n in range(500)]}
    assert encode(state)[1] == state


@pytest.mark.parametrize(
    "data", [b"", b"{", b"nonsense", b'{"a":NaN}', b'{"a":1}x', b"\xff", b"[]", b"1", b"null"]
)
def test_a_stored_text_that_is_no_object_fails_loudly(data: bytes) -> None:
    with pytest.raises(InvalidStateError, match="stored text"):
        decode(data)


def test_a_copy_knows_where_it_stands() -> None:
    value = {"a": (1, [2])}
    assert copy(value) == {"a": [1, [2]]}
    assert copy("text") == "text"
    with pytest.raises(InvalidStateError) as caught:
        copy([0, {1}], "/cart/items")
    assert caught.value.path == "/cart/items/1"
    with pytest.raises(InvalidStateError, match="levels deep") as caught:
        copy([[nested(MAX_DEPTH)]], "/cart/items")
    assert caught.value.path == "/cart/items/0"


@given(states() | scalars, states() | scalars)
@settings(deadline=None)
def test_same_means_the_same_text(a: Any, b: Any) -> None:
    assert same(a, b) == (text(a) == text(b))
    assert same(a, json.loads(text(a)))


@given(st.lists(st.sampled_from([0, 1, 1.0, True, False, 0.0, -0.0, None]), max_size=2), st.data())
@settings(deadline=None)
def test_same_tells_numbers_by_their_type(values: list[Any], data: st.DataObject) -> None:
    other = [
        data.draw(st.sampled_from([v for v in [0, 1, 1.0, True, False, 0.0, -0.0, None] if v == w]))
        for w in values
    ]
    assert same(values, other) == (text(values) == text(other))
    assert same({"k": values}, {"k": other}) == (text(values) == text(other))


def test_same_tells_the_order_of_keys() -> None:
    assert not same({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert not same([{"a": 1, "b": 2}], [{"b": 2, "a": 1}])
