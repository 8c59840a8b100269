from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from kern._json import value_text


class Colour(enum.Enum):
    red = "red"


class Shade(str, enum.Enum):  # noqa: UP042  # formatted as its name
    light = "light"


class Size(enum.IntEnum):
    small = 1


class Item(BaseModel):
    name: str
    count: int = Field(default=1, serialization_alias="n")


@dataclasses.dataclass
class Point:
    x: int
    item: Item | None = None


class Opaque:
    def __str__(self) -> str:
        return "opaque"


CIRCLE: dict[str, Any] = {}
CIRCLE["self"] = CIRCLE


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"),
        ('{"a": 1}', '{"a": 1}'),
        ("", ""),
        (None, ""),
        (3, "3"),
        (True, "True"),
        (1.5, "1.5"),
        (Colour.red, "red"),
        (Shade.light, "light"),
        (Size.small, "1"),
        (Item(name="Käse"), '{"name":"Käse","n":1}'),
        (Point(1, Item(name="x")), '{"x":1,"item":{"name":"x","n":1}}'),
        ({"größe": [1, None, True]}, '{"größe":[1,null,true]}'),
        ([Item(name="x"), Colour.red], '[{"name":"x","n":1},"red"]'),
        ((1, 2), "[1,2]"),
        ({3}, "[3]"),
        ({1: "x"}, '{"1":"x"}'),
        ({"when": datetime.date(2026, 1, 2), "id": uuid.UUID(int=0)}, None),
        ([Decimal("1.10")], '["1.10"]'),
        ([Opaque()], '["opaque"]'),
        ([float("nan"), float("inf")], "[null,null]"),
        (Opaque(), "opaque"),
        (CIRCLE, "{'self': {...}}"),
        ({"raw": b"\xff"}, "{'raw': b'\\xff'}"),
        ([], "[]"),
    ],
)
def test_value_text(value: Any, text: str | None) -> None:
    result = value_text(value)
    if text is None:
        assert json.loads(result) == {"when": "2026-01-02", "id": str(uuid.UUID(int=0))}
    else:
        assert result == text


def test_a_class_is_no_dataclass_value() -> None:
    assert value_text(Point) == str(Point)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.lists(JSON, max_size=4) | st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_json_values_come_back_from_the_text(value: Any) -> None:
    assert json.loads(value_text(value)) == value
