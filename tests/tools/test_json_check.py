"""A JSON value against a JSON schema: whole, or still being written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic_core import from_json

from kern.tools.json_check import misfits

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 2},
        "age": {"type": "integer", "minimum": 18},
        "kind": {"enum": ["guest", "staff"]},
        "friends": {"type": "array", "items": {"$ref": "#"}, "maxItems": 2},
    },
    "required": ["name"],
    "additionalProperties": False,
}

FITS: list[tuple[Any, Any]] = [
    ({"type": "string"}, "a"),
    ({"type": "integer"}, 3),
    ({"type": "integer"}, 3.0),
    ({"type": "number"}, 3),
    ({"type": "null"}, None),
    ({"type": ["string", "null"]}, None),
    ({"type": "boolean"}, True),
    ({"const": 1}, 1),
    ({"enum": ["a", 1, None]}, None),
    ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, 1),
    ({"oneOf": [{"type": "string"}, {"type": "integer"}]}, "a"),
    ({"allOf": [{"minimum": 1}, {"maximum": 3}]}, 2),
    ({"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}}, [1, "a", "b"]),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, {"a": 1}),
    ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "integer"}}}, 1),
    ({"multipleOf": 0.1}, 0.3),
    ({"pattern": "^a"}, "ab"),
    ({"pattern": "(?<name>a)\\p{L}"}, "a pattern that only JavaScript knows refuses nothing"),
    ({"uniqueItems": True}, [1, 2]),
    ({"format": "email"}, "formats are not judged"),
    ({}, {"any": ["thing"]}),
    ({"allOf": [True]}, 1),
    (PERSON, {"name": "Ann", "age": 30, "kind": "guest", "friends": [{"name": "Bob"}]}),
]


@pytest.mark.parametrize(("schema", "value"), FITS, ids=[json.dumps(case) for case in FITS])
def test_what_fits_has_no_complaint(schema: Any, value: Any) -> None:
    assert misfits(value, schema) == []


FAILS: list[tuple[Any, Any, str]] = [
    ({"type": "string"}, 1, "the value: must be string, not 1"),
    ({"type": "integer"}, True, "the value: must be integer, not true"),
    ({"type": "integer"}, 1.5, "the value: must be integer, not 1.5"),
    ({"type": "number"}, "1", 'the value: must be number, not "1"'),
    ({"type": ["string", "null"]}, 1, "the value: must be string or null, not 1"),
    ({"const": 1}, True, "the value: must be 1, not true"),
    ({"enum": ["a", "b"]}, "c", 'the value: must be "a" or "b", not "c"'),
    ({"anyOf": [{"type": "string"}, {"type": "null"}]}, 1, "the value: must be string, not 1"),
    ({"allOf": [{"minimum": 1}, {"maximum": 3}]}, 4, "the value: must be at most 3, not 4"),
    ({"exclusiveMinimum": 1}, 1, "the value: must be more than 1, not 1"),
    ({"multipleOf": 2}, 3, "the value: must be a multiple of 2, not 3"),
    ({"minLength": 2}, "a", "the value: needs at least 2 characters"),
    ({"maxLength": 1}, "ab", "the value: may have at most 1 character"),
    ({"pattern": "^a"}, "b", "the value: must match '^a', not \"b\""),
    ({"minItems": 1}, [], "the value: has 0 items, but needs at least 1"),
    ({"maxItems": 1}, [1, 2], "the value: has 2 items, but may have at most 1"),
    ({"uniqueItems": True}, [{"a": 1}, {"a": 1}], "the value: contains the same item twice"),
    ({"items": {"type": "integer"}}, [1, "a"], '/1: must be integer, not "a"'),
    ({"prefixItems": [{"type": "integer"}], "items": False}, [1, 2], "/1: is not expected here"),
    ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "integer"}}}, "a", 'the value: must be integer, not "a"'),
    (PERSON, {}, "/name: required, but missing"),
    (PERSON, {"name": "Ann", "age": 3}, "/age: must be at least 18, not 3"),
    (PERSON, {"name": "Ann", "shoe": 1}, "/shoe: is not expected here"),
    (PERSON, {"name": "Ann", "friends": [{"name": "B"}]}, "/friends/0/name: needs at least 2 characters"),
]


@pytest.mark.parametrize(("schema", "value", "complaint"), FAILS, ids=[case[2] for case in FAILS])
def test_what_does_not_fit_is_told_with_its_place(schema: Any, value: Any, complaint: str) -> None:
    assert misfits(value, schema) == [complaint]


WHOLE = json.dumps(
    {"age": 30, "name": "Ann Lee", "kind": "staff", "friends": [{"name": "Bob", "kind": "guest"}]}
)


@pytest.mark.parametrize("end", range(1, len(WHOLE) + 1))
def test_what_will_fit_fits_at_every_moment_of_its_being_written(end: int) -> None:
    value = from_json(WHOLE[:end], allow_partial="trailing-strings")
    assert misfits(value, PERSON, unfinished=True) == []


WILL_NOT: list[tuple[str, str]] = [
    ('{"name": "Ann", "kind": "x', '/kind: must be "guest" or "staff", not "x"'),
    ('{"age": 3, "name": "', "/age: must be at least 18, not 3"),
    ('{"shoe": ', "/shoe: is not expected here"),
    ('{"friends": [{"age": 1, "name": "B', "/friends/0/age: must be at least 18, not 1"),
    ('{"friends": [{"name": "Bob"}, {"name": "Cy"}, {"na', "/friends: has 3 items, but may have at most 2"),
    ('{"friends": [{"age": 20}, {', "/friends/0/name: required, but missing"),
    ('["', 'the value: must be object, not [""]'),
]


@pytest.mark.parametrize(("text", "complaint"), WILL_NOT)
def test_what_can_no_longer_fit_is_told_before_it_ends(text: str, complaint: str) -> None:
    value = from_json(text + ("1" if text.endswith(": ") else ""), allow_partial="trailing-strings")
    assert misfits(value, PERSON, unfinished=True) == [complaint]


def test_a_number_too_long_to_be_written_is_a_misfit_like_others() -> None:
    assert misfits(10**5000, {"type": "string"}) == [
        "the value: must be string, not a value that is too long to be shown"
    ]
