"""Signatures, the schemas that they make, and what becomes of a model's arguments."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import json
import uuid
from collections.abc import Callable
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, Optional, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

import kern.run
from kern.errors import ToolArgumentsError, UsageError
from kern.run import RunContext
from kern.tools import Function

if TYPE_CHECKING:
    from somewhere import Unknown  # type: ignore[import-not-found]

    from kern.agent import Agent  # only its name matters here
    from kern.run import RunContext as Hidden


class Colour(enum.Enum):
    red = "red"
    blue = "blue"


class Item(BaseModel):
    """A thing to buy."""

    name: str
    quantity: int = Field(default=1, ge=1)


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Options(TypedDict):
    loud: bool
    volume: NotRequired[int]


class Team(BaseModel):
    """An application's own team: data, not a runner."""

    city: str


UNSET = object()


def no_parameters() -> None: ...
def plain(a: str, b: int, c: float, d: bool) -> None: ...
def with_defaults(a: str = "x", b: int = 3, c: list[str] = ["y"]) -> None: ...  # noqa: B006
def optional(a: Optional[int], b: int | None, c: Union[int, str, None] = None) -> None: ...  # noqa: UP007, UP045
def implicit_optional(a: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013
def literal(a: Literal["x", "y"], b: Literal[1, 2] = 1) -> None: ...
def enumeration(a: Colour, b: Colour = Colour.red) -> None: ...
def containers(a: list[int], b: dict[str, float], c: tuple[int, str], d: set[str], e: list[Item]) -> None: ...
def model(a: Item) -> None: ...
def dataclass(a: Point) -> None: ...
def typed_dict(a: Options) -> None: ...
def annotated(
    a: Annotated[int, Field(description="A number.", ge=1, le=9)], b: Annotated[str, "A text."]
) -> None: ...
def field_default(a: int = Field(5, description="Five.", lt=10), b: str = Field(...)) -> None: ...
def annotated_default(
    a: Annotated[int, Field(default=7)], b: Annotated[list[int], Field(default_factory=list)]
) -> None: ...
def scalars(a: datetime.datetime, b: datetime.date, c: uuid.UUID, d: Decimal) -> None: ...
def anything(a, b: Any, c: object = UNSET) -> None: ...  # type: ignore[no-untyped-def]
def keyword_only(a: int, *, b: int = 2) -> None: ...
def positional_only(a: int, b: int = 2, /, c: int = 3) -> None: ...
def open_ended(a: int, **rest: Any) -> None: ...
def open_typed(a: int, **rest: int) -> None: ...
def awkward_names(
    schema: int, json: int, model_config: int, _x: int, copy: int, class_: int, self_: int
) -> None: ...
def own_team(a: Team) -> None: ...
def with_context(run_context: RunContext, a: int) -> None: ...


def documented(a: int, b: Item, c: Annotated[str, Field(description="Told by the field.")] = "x") -> None:
    """Do it.

    Args:
        a: Told by the docstring.
        b: The item.
        c: Not this one.
    """


ITEM = {
    "description": "A thing to buy.",
    "properties": {"name": {"type": "string"}, "quantity": {"default": 1, "minimum": 1, "type": "integer"}},
    "required": ["name"],
    "type": "object",
}
INTEGER = {"type": "integer"}
STRING = {"type": "string"}
NULL = {"type": "null"}

SCHEMAS: list[tuple[Callable[..., Any], dict[str, Any], list[str]]] = [
    (no_parameters, {}, []),
    (
        plain,
        {"a": STRING, "b": INTEGER, "c": {"type": "number"}, "d": {"type": "boolean"}},
        ["a", "b", "c", "d"],
    ),
    (
        with_defaults,
        {
            "a": {**STRING, "default": "x"},
            "b": {**INTEGER, "default": 3},
            "c": {"type": "array", "items": STRING, "default": ["y"]},
        },
        [],
    ),
    (
        optional,
        {
            "a": {"anyOf": [INTEGER, NULL]},
            "b": {"anyOf": [INTEGER, NULL]},
            "c": {"anyOf": [INTEGER, STRING, NULL], "default": None},
        },
        ["a", "b"],
    ),
    (implicit_optional, {"a": {"anyOf": [INTEGER, NULL], "default": None}}, []),
    (literal, {"a": {**STRING, "enum": ["x", "y"]}, "b": {**INTEGER, "enum": [1, 2], "default": 1}}, ["a"]),
    (
        enumeration,
        {"a": {"$ref": "#/$defs/Colour"}, "b": {"$ref": "#/$defs/Colour", "default": "red"}},
        ["a"],
    ),
    (
        containers,
        {
            "a": {"type": "array", "items": INTEGER},
            "b": {"type": "object", "additionalProperties": {"type": "number"}},
            "c": {"type": "array", "prefixItems": [INTEGER, STRING], "minItems": 2, "maxItems": 2},
            "d": {"type": "array", "items": STRING, "uniqueItems": True},
            "e": {"type": "array", "items": {"$ref": "#/$defs/Item"}},
        },
        ["a", "b", "c", "d", "e"],
    ),
    (model, {"a": {"$ref": "#/$defs/Item"}}, ["a"]),
    (dataclass, {"a": {"$ref": "#/$defs/Point"}}, ["a"]),
    (typed_dict, {"a": {"$ref": "#/$defs/Options"}}, ["a"]),
    (
        annotated,
        {
            "a": {**INTEGER, "description": "A number.", "minimum": 1, "maximum": 9},
            "b": {**STRING, "description": "A text."},
        },
        ["a", "b"],
    ),
    (
        field_default,
        {"a": {**INTEGER, "default": 5, "description": "Five.", "exclusiveMaximum": 10}, "b": STRING},
        ["b"],
    ),
    (anything, {"a": {}, "b": {}, "c": {}}, ["a", "b"]),
    (keyword_only, {"a": INTEGER, "b": {**INTEGER, "default": 2}}, ["a"]),
    (positional_only, {"a": INTEGER, "b": {**INTEGER, "default": 2}, "c": {**INTEGER, "default": 3}}, ["a"]),
    (open_ended, {"a": INTEGER}, ["a"]),
    (open_typed, {"a": INTEGER}, ["a"]),
    (
        awkward_names,
        dict.fromkeys(["schema", "json", "model_config", "_x", "copy", "class_", "self_"], INTEGER),
        ["schema", "json", "model_config", "_x", "copy", "class_", "self_"],
    ),
    (annotated_default, {"a": {**INTEGER, "default": 7}, "b": {"type": "array", "items": INTEGER}}, []),
    (with_context, {"a": INTEGER}, ["a"]),
    (own_team, {"a": {"$ref": "#/$defs/Team"}}, ["a"]),
    (
        documented,
        {
            "a": {**INTEGER, "description": "Told by the docstring."},
            "b": {"$ref": "#/$defs/Item", "description": "The item."},
            "c": {**STRING, "description": "Told by the field.", "default": "x"},
        },
        ["a", "b"],
    ),
]


@pytest.mark.parametrize(
    ("function", "properties", "required"), SCHEMAS, ids=lambda v: getattr(v, "__name__", "")
)
def test_schema(function: Callable[..., Any], properties: dict[str, Any], required: list[str]) -> None:
    schema = Function.from_callable(function).parameters
    assert schema["type"] == "object"
    assert schema["properties"] == properties
    assert schema.get("required", []) == required
    json.dumps(schema)


@pytest.mark.parametrize(
    ("function", "open_to"),
    [(open_ended, True), (open_typed, INTEGER), (plain, False), (no_parameters, False)],
)
def test_only_a_signature_with_keywords_takes_further_arguments(
    function: Callable[..., Any], open_to: Any
) -> None:
    assert Function.from_callable(function).parameters["additionalProperties"] == open_to


def test_models_are_described_by_their_own_schema() -> None:
    assert Function.from_callable(model).parameters["$defs"] == {"Item": ITEM}


def test_formats_of_scalars_are_named() -> None:
    properties = Function.from_callable(scalars).parameters["properties"]
    assert [properties[name].get("format") for name in "abc"] == ["date-time", "date", "uuid"]


NOON = datetime.datetime(2026, 1, 2, 12, tzinfo=datetime.timezone.utc)  # noqa: UP017
ID = uuid.UUID(int=7)

VALUES: list[tuple[Callable[..., Any], str, dict[str, Any]]] = [
    (no_parameters, "", {}),
    (no_parameters, " \n", {}),
    (no_parameters, "{}", {}),
    (plain, '{"a": "None", "b": "7", "c": 1, "d": "true"}', {"a": "None", "b": 7, "c": 1.0, "d": True}),
    (with_defaults, "{}", {}),
    (with_defaults, '{"b": 4}', {"b": 4}),
    (optional, '{"a": null, "b": 1, "c": "x"}', {"a": None, "b": 1, "c": "x"}),
    (implicit_optional, '{"a": null}', {"a": None}),
    (enumeration, '{"a": "blue"}', {"a": Colour.blue}),
    (
        containers,
        '{"a": ["1"], "b": {"x": 1}, "c": [1, "y"], "d": ["z", "z"], "e": [{"name": "milk"}]}',
        {"a": [1], "b": {"x": 1.0}, "c": (1, "y"), "d": {"z"}, "e": [Item(name="milk")]},
    ),
    (model, '{"a": {"name": "milk", "quantity": 2}}', {"a": Item(name="milk", quantity=2)}),
    (dataclass, '{"a": {"x": 1}}', {"a": Point(1)}),
    (typed_dict, '{"a": {"loud": true}}', {"a": {"loud": True}}),
    (field_default, '{"b": "x"}', {"a": 5, "b": "x"}),
    (annotated_default, "{}", {"a": 7, "b": []}),
    (annotated_default, '{"a": 1, "b": [2]}', {"a": 1, "b": [2]}),
    (
        scalars,
        json.dumps({"a": "2026-01-02T12:00:00Z", "b": "2026-01-02", "c": str(ID), "d": "1.10"}),
        {"a": NOON, "b": NOON.date(), "c": ID, "d": Decimal("1.10")},
    ),
    (anything, '{"a": [1, {"x": null}], "b": "y"}', {"a": [1, {"x": None}], "b": "y"}),
    (open_ended, '{"a": 1, "x": [2]}', {"a": 1, "x": [2]}),
    (open_typed, '{"a": 1, "x": "2"}', {"a": 1, "x": 2}),
    (
        awkward_names,
        '{"schema": 1, "json": 2, "model_config": 3, "_x": 4, "copy": 5, "class_": 6, "self_": 7}',
        {"schema": 1, "json": 2, "model_config": 3, "_x": 4, "copy": 5, "class_": 6, "self_": 7},
    ),
]


@pytest.mark.parametrize(("function", "arguments", "values"), VALUES)
def test_arguments_become_python_values(
    function: Callable[..., Any], arguments: str, values: dict[str, Any]
) -> None:
    result = Function.from_callable(function).validate(arguments)
    assert result == values
    assert {name: type(value) for name, value in result.items()} == {
        name: type(value) for name, value in values.items()
    }


ERRORS: list[tuple[Callable[..., Any], str, list[str]]] = [
    (plain, '{"a": "x"', ["not valid JSON", "line 1 column 9"]),
    (plain, "[1]", ["one JSON object, not [1]"]),
    (plain, '"x"', ["one JSON object"]),
    (plain, "null", ["one JSON object, not null"]),
    (
        plain,
        '{"a": 1, "b": "x", "c": 1}',
        ["- a: ", "valid string", "not 1", "- b: ", "integer", '"x"', "- d: required"],
    ),
    (plain, '{"a": "", "b": 1, "c": 1, "d": true, "e": 1}', ["- e: no such", "are: a, b, c, d"]),
    (no_parameters, '{"x": 1}', ["- x: no such argument", "are: none"]),
    (annotated, '{"a": 10, "b": ""}', ["- a: ", "less than or equal to 9", "not 10"]),
    (enumeration, '{"a": "green"}', ["- a: ", "'red' or 'blue'", '"green"']),
    (
        containers,
        '{"a": [1, "x"], "b": {}, "c": [1, "y"], "d": [], "e": [{}]}',
        ["- a[1]: ", "- e[0].name: required"],
    ),
    (open_typed, '{"a": 1, "x": "y"}', ["- x: ", "integer"]),
    (with_context, '{"a": 1, "run_context": {}}', ["- run_context: no such argument"]),
]


@pytest.mark.parametrize(("function", "arguments", "said"), ERRORS)
def test_arguments_that_do_not_fit_are_refused_with_a_text_to_act_on(
    function: Callable[..., Any], arguments: str, said: list[str]
) -> None:
    with pytest.raises(ToolArgumentsError) as caught:
        Function.from_callable(function).validate(arguments)
    assert caught.value.tool == function.__name__
    assert function.__name__ in str(caught.value)
    for part in said:
        assert part in str(caught.value)


def test_a_long_bad_value_and_many_errors_are_cut_short() -> None:
    names = [f"x{at}" for at in range(50)]
    text = json.dumps({"a": "y" * 100_000, **dict.fromkeys(names, 1)})
    with pytest.raises(ToolArgumentsError) as caught:
        Function.from_callable(implicit_optional).validate(text)
    assert len(str(caught.value)) < 2000
    assert "more" in str(caught.value)


def hidden_context(ctx: Hidden, a: int) -> None: ...  # a name that is known to type checkers only


def context_by_name(a: int, run_context: Any = None) -> None: ...
def context_by_type(a: int, ctx: RunContext) -> None: ...
def context_optional(a: int, ctx: RunContext | None = None) -> None: ...
def context_of_state(a: int, ctx: RunContext[Item]) -> None: ...
def context_in_union(a: int, ctx: Optional[RunContext[Item]] = None) -> None: ...  # noqa: UP045
def context_annotated(a: int, ctx: Annotated[RunContext, "the run"]) -> None: ...
def context_by_path(a: int, ctx: kern.run.RunContext) -> None: ...
def context_unknown_name(a: int, run_context: Unknown) -> None: ...
def context_beside_unknown_return(a: int, ctx: RunContext) -> Unknown: ...


def context_as_text(a: int, ctx: RunContext[Unknown] | None) -> None: ...


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (context_by_name, "run_context"),
        (context_by_type, "ctx"),
        (context_optional, "ctx"),
        (context_of_state, "ctx"),
        (context_in_union, "ctx"),
        (context_annotated, "ctx"),
        (context_by_path, "ctx"),
        (context_unknown_name, "run_context"),
        (context_beside_unknown_return, "ctx"),
        (context_as_text, "ctx"),
        (plain, None),
    ],
)
def test_the_context_is_found_and_hidden(function: Callable[..., Any], name: str | None) -> None:
    tool = Function.from_callable(function)
    assert tool.context_parameter == name
    if name is not None:
        assert list(tool.parameters["properties"]) == ["a"]
        assert tool.validate('{"a": 1}') == {"a": 1}
        with pytest.raises(ToolArgumentsError, match=name):
            tool.validate(json.dumps({"a": 1, name: None}))


def test_a_context_under_a_name_that_only_type_checkers_know_is_refused_when_the_schema_is_made() -> None:
    with pytest.raises(UsageError, match=r"'ctx'.*'Hidden' cannot be evaluated"):
        _ = Function.from_callable(hidden_context).parameters


def asks_for_agent(agent: Agent, a: int) -> None: ...
def asks_for_optional_agent(a: int, who: Agent | None = None) -> None: ...
def asks_for_two_contexts(run_context: RunContext, other: RunContext) -> None: ...
def asks_for_many(*items: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (asks_for_agent, "'agent' is annotated as an Agent or a Team.*run_context"),
        (asks_for_optional_agent, "'who' is annotated as an Agent or a Team"),
        (asks_for_two_contexts, r"several RunContext parameters \(run_context, other\)"),
        (asks_for_many, r"\*items.*items: list\["),
        (max, "max has no readable signature"),
    ],
)
def test_what_no_tool_can_have_is_refused_at_once(function: Callable[..., Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Function.from_callable(function)


def test_an_agent_class_by_its_name_is_refused() -> None:
    class Agent:
        pass

    def ask(who: Any) -> None: ...

    ask.__annotations__["who"] = Agent
    with pytest.raises(UsageError, match="'who' is annotated as an Agent"):
        Function.from_callable(ask)


def unresolved(a: Unknown) -> None: ...
def no_schema(a: int, b: Callable[[], int]) -> None: ...


class Opaque:
    pass


def opaque(a: int, b: Opaque) -> None: ...


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (unresolved, "unresolved: the parameter 'a'.*'Unknown' cannot be evaluated"),
        (no_schema, "no_schema: the parameter 'b'"),
        (opaque, "opaque: the parameter 'b'.*Opaque"),
    ],
)
def test_an_annotation_without_a_schema_is_refused_by_name(function: Callable[..., Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        _ = Function.from_callable(function).parameters


def test_a_type_that_is_defined_after_the_function_is_found() -> None:
    namespace: dict[str, Any] = {"__name__": "later"}
    exec("from __future__ import annotations\ndef f(a: Later): ...", namespace)
    tool = Function.from_callable(namespace["f"])
    exec("class Later(str): ...\nimport enum\nclass Later(enum.Enum):\n    x = 'x'", namespace)
    assert tool.validate('{"a": "x"}') == {"a": namespace["Later"].x}


def test_a_partial_hides_what_it_has_fixed() -> None:
    tool = Function.from_callable(functools.partial(plain, "x", d=True))
    assert tool.name == "plain"
    assert list(tool.parameters["properties"]) == ["b", "c"]
    with pytest.raises(ToolArgumentsError, match="- d: no such argument"):
        tool.validate('{"b": 1, "c": 1, "d": false}')


def test_an_open_partial_does_not_let_the_model_override_what_it_has_fixed() -> None:
    def send(text: str, user_id: int, **more: Any) -> int:
        return user_id

    tool = Function.from_callable(functools.partial(send, user_id=5))
    with pytest.raises(ToolArgumentsError, match="user_id"):
        tool.validate('{"text": "x", "user_id": 6}')


def test_a_default_that_is_no_json_is_left_out_and_kept_by_python() -> None:
    def look(a: Any = UNSET) -> bool:
        return a is UNSET

    tool = Function.from_callable(look)
    assert "default" not in tool.parameters["properties"]["a"]
    assert tool.entrypoint(**tool.validate("")) is True


STRICT: list[tuple[Callable[..., Any], str, dict[str, Any]]] = [
    (with_defaults, '{"a": null, "b": null, "c": null}', {}),
    (optional, '{"a": null, "b": 1, "c": null}', {"a": None, "b": 1}),
    (model, '{"a": {"name": "milk", "quantity": null}}', {"a": Item(name="milk")}),
    (field_default, '{"a": null, "b": "x"}', {"a": 5, "b": "x"}),
]


@pytest.mark.parametrize(("function", "arguments", "values"), STRICT)
def test_in_strict_mode_null_means_the_default(
    function: Callable[..., Any], arguments: str, values: dict[str, Any]
) -> None:
    tool = Function(function, strict=True)
    assert tool.parameters["required"] == list(tool.parameters["properties"])
    assert tool.validate(arguments) == values


def test_a_signature_that_the_strict_dialect_cannot_say_is_refused_by_the_tools_name() -> None:
    with pytest.raises(UsageError, match=r"the tool open_ended: .*open object"):
        _ = Function(open_ended, strict=True).parameters


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.text(max_size=50) | JSON.map(json.dumps))
def test_whatever_a_model_writes_is_taken_or_refused_with_a_tool_arguments_error(text: str) -> None:
    tool = Function.from_callable(containers)
    try:
        values = tool.validate(text)
    except ToolArgumentsError:
        return
    assert values.keys() == tool.parameters["properties"].keys()


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1).filter(lambda name: name != "a"), JSON, max_size=4))
def test_an_open_signature_takes_any_json_as_it_is(more: dict[str, Any]) -> None:
    assert Function.from_callable(open_ended).validate(json.dumps({**more, "a": 1})) == {**more, "a": 1}


@settings(deadline=None)
@given(st.builds(Item, name=st.text(), quantity=st.integers(1)))
def test_a_model_comes_back_equal_from_its_own_json(item: Item) -> None:
    text = f'{{"a": {item.model_dump_json()}}}'
    assert Function.from_callable(model).validate(text) == {"a": item}
    assert Function(model, strict=True).validate(text) == {"a": item}
