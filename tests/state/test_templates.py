"""Templates: values go in once, everything else stays as it was written."""

from __future__ import annotations

import datetime
import re
from collections import defaultdict
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kern import _keywords
from kern.errors import UsageError
from kern.state import templates
from kern.state.templates import render
from tests.logs import kern_messages

STATE = {
    "name": "Ann",
    "n": 3,
    "ratio": 0.5,
    "done": True,
    "nothing": None,
    "items": ["milk", {"k": "é"}],
    "trip": {"city": "Rome", "days": {"first": 1}, "a-b": "dash", "2026": "year"},
    "": "empty",
    "0": "zero",
    "a b": "spaced",
    "a.b": "dotted",
    "größe": "XL",
    "_x": "under",
    "self": "me",
}


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("{name}", "Ann"),
        ("Hi {name}, {n} of {n}.", "Hi Ann, 3 of 3."),
        ("{ratio} {done} {nothing}", "0.5 True None"),
        ("{items}", '["milk",{"k":"é"}]'),
        ("{trip.days}", '{"first":1}'),
        ("{trip.city} {trip.days.first} {trip.a-b} {trip.2026}", "Rome 1 dash year"),
        ("{größe} {_x} {self}", "XL under me"),
        ("${n} and $name", "$3 and $name"),
        ('{"name": "{name}", "n": {n}}', '{"name": "Ann", "n": 3}'),
        ("{{n}, {name}}", "{3, Ann}"),
        ("<{name}>{name}{name}", "<Ann>AnnAnn"),
        ("{unknown} {name}", "{unknown} Ann"),
    ],
)
def test_placeholders_are_replaced(template: str, rendered: str) -> None:
    assert render(template, STATE) == rendered


@pytest.mark.parametrize(
    "template",
    [
        "",
        "plain",
        "{}",
        "{0}",
        "{ name }",
        "{name }",
        "{ name}",
        "{{name}}",
        "{{{name}}}",
        "{{trip.city}}",
        "$name",
        "{unknown}",
        "{trip.unknown}",
        "{trip.city.upper}",
        "{trip.}",
        "{.trip}",
        "{trip..city}",
        "{name",
        "name}",
        "{name!r}",
        "{n:>10}",
        "{n + 1}",
        "{items.0}",
        "{items[0]}",
        "{name.__class__}",
        "{n.real}",
        "{__class__}",
        "{a b}",
        "{a.b}",
        "{name\n}",
        '{"name": 1}',
        "{'name'}",
        "def f(): return {k: v for k, v in d.items()}",
        "f'{x!r:>{width}}'",
        "\\frac{1}{2}",
        "%(name)s %s",
    ],
)
def test_everything_else_stays_as_it_is_written(template: str) -> None:
    assert render(template, STATE) == template


def test_a_text_without_a_brace_is_the_same_object() -> None:
    template = "x" * 1000
    assert render(template, STATE) is template


def test_the_first_source_that_has_the_whole_path_gives_the_value() -> None:
    sources: tuple[dict[str, Any], ...] = (
        {"a": {"x": "state"}, "none": None},
        {"a": {"y": "dependency"}, "b": "dependency", "none": 1},
        {"b": "metadata", "c": "metadata"},
        {"c": "id", "user_id": "u1"},
    )
    assert render("{a.x} {a.y} {b} {c} {user_id} {none}", *sources) == (
        "state dependency dependency metadata u1 None"
    )
    assert render("{a}") == "{a}"


def test_a_value_is_not_expanded_again() -> None:
    sources = {"a": "{b}", "b": "{a}{c}", "c": {"d": "{a}"}}
    assert render("{a} {b} {c} {c.d}", sources) == '{b} {a}{c} {"d":"{a}"} {a}'


def test_a_value_that_completes_braces_is_not_expanded_either() -> None:
    assert render("{{open}secret}", {"open": "{", "secret": "S"}) == "{{secret}"
    assert render("{open}secret}", {"open": "{", "secret": "S"}) == "{secret}"


def test_a_source_is_only_read() -> None:
    source: defaultdict[str, Any] = defaultdict(list)
    assert render("{new}", source) == "{new}"
    assert source == {}
    assert render("{a.b}", MappingProxyType({"a": MappingProxyType({"b": 1})})) == "1"


def test_other_objects_go_in_as_str_makes_them_and_no_attribute_is_reached() -> None:
    class Account:
        api_key = "sk-secret"

        def __str__(self) -> str:
            return "an account"

    sources = {"account": Account(), "day": datetime.date(2026, 1, 2), "pair": (1, 2)}
    assert render("{account} {account.api_key} {day} {pair}", sources) == (
        "an account {account.api_key} 2026-01-02 (1, 2)"
    )
    assert render("{list}", {"list": [datetime.date(2026, 1, 2)]}) == '["2026-01-02"]'


def test_a_list_that_cannot_be_json_is_named() -> None:
    with pytest.raises(UsageError, match=re.escape("{deps.bad}")):
        render("{deps.bad}", {"deps": {"bad": [object()]}})


def test_changed_values_show_up_in_a_text_that_was_rendered_before() -> None:
    assert [render("{n}!", {"n": n}) for n in (1, 2)] == ["1!", "2!"]


def test_a_very_long_text_is_rendered_too() -> None:
    assert render("{n}" + "x" * 100_000 + "{n}", {"n": 1}) == "1" + "x" * 100_000 + "1"


pieces = st.lists(
    st.one_of(
        st.text(max_size=5),
        st.sampled_from(["{", "}", "{{", "}}", "{a}", "{a.b}", "{c}", "{{a}}", " ", "$", ".", "a", "{ a }"]),
    ),
    max_size=12,
)
properties = settings(deadline=None, max_examples=300)


@given(pieces)
@properties
def test_a_text_without_known_names_is_unchanged(parts: list[str]) -> None:
    text = "".join(parts)
    assert render(text, {"\x00": 1, "a.b": 2, "": 3}) == text


@given(pieces, pieces, pieces)
@properties
def test_values_go_in_where_the_names_stand_and_nowhere_else(
    parts: list[str], a: list[str], b: list[str]
) -> None:
    """The oracle puts in marks that mean nothing, and then the values for the marks."""
    text = "".join(parts)
    assume("\x01" not in text)
    values = {"\x01a": "".join(a), "\x01b": "".join(b)}
    marked = render(text, {"c": "\x01a"}, {"a.b": 0, "a": "\x01b"})
    rendered = render(text, {"c": values["\x01a"]}, {"a.b": 0, "a": values["\x01b"]})
    assert rendered == re.sub("\x01[ab]", lambda match: values[match[0]], marked)


def test_the_search_for_a_misspelt_placeholder_is_bounded(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []

    def nearest(name: str, names: list[str], cutoff: float) -> str | None:
        compared.append(len(names))
        return real(name, names, cutoff)

    real = _keywords.nearest
    monkeypatch.setattr(templates, "nearest", nearest)
    monkeypatch.setattr(templates, "_looked", {})
    for session in range(20):
        state = {f"customer_{session}_{at}": at for at in range(1000)} | {"x" * 10_000: 1, "cust\n": 1}
        assert render("{unlike} {name.first}", state, {"name": {}}) == "{unlike} {name.first}"
    assert compared == [100] * 8
    assert kern_messages(caplog) == []
    for session in range(20):
        render("{customer_9}", {f"customer_{session}_{at}": at for at in range(1000)})
    assert len(kern_messages(caplog)) == 1
    for at in range(1000):
        render(f"{{name_{at}}}", {"other": 1})
    assert len(templates._looked) == 256


def test_a_misspelt_placeholder_stays_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        assert render("Hello {nmae}, {other}", {"name": "Ann"}) == "Hello {nmae}, {other}"
    assert kern_messages(caplog) == [
        "a text has the placeholder {nmae}, but there is no such value; did you mean {name}? "
        "The placeholder stays in the text"
    ]
