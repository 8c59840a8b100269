"""What stands round a function, and other ways to say its signature, make no difference to the model."""

from __future__ import annotations

import functools
import typing
from collections.abc import Callable
from typing import Annotated, Any, NotRequired, Required, TypedDict

import pytest
import typing_extensions
from pydantic import BaseModel, Field

from kern import Agent, RunContext, UsageError
from kern.messages import ToolCall
from kern.testing import ScriptedModel
from kern.tools import Function


class Place(BaseModel):
    city: str


def forecast(place: Place, days: int = 3) -> str:
    """Tell the weather to come.

    Args:
        place: Where.
        days: How far ahead.
    """
    return f"{place.city} {days}"


class Updated:
    """Counts calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return self.__wrapped__(*args, **kwargs)  # type: ignore[attr-defined]


class Saying:
    """Says whom it wraps, and no more."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__wrapped__ = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return self.__wrapped__(*args, **kwargs)


class Slotted:
    """Has no __dict__."""

    __slots__ = ("__wrapped__",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__wrapped__ = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def marked(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        """Say nothing of what is wrapped."""
        return function(*args, **kwargs)

    call.__wrapped__ = function  # type: ignore[attr-defined]
    return call


WRAPPERS: list[Callable[[Callable[..., Any]], Callable[..., Any]]] = [
    functools.cache,
    functools.lru_cache(maxsize=3),
    functools.partial,
    Updated,
    Saying,
    Slotted,
    wrapped,
    marked,
]


@pytest.mark.parametrize("outer", [None, *WRAPPERS])
@pytest.mark.parametrize("inner", WRAPPERS)
def test_the_model_is_shown_the_function(inner: Callable[..., Any], outer: Callable[..., Any] | None) -> None:
    made = Function(inner(forecast) if outer is None else outer(inner(forecast)))
    bare = Function(forecast)
    assert (made.name, made.description) == ("forecast", "Tell the weather to come.")
    assert made.parameters == bare.parameters
    assert made.parameters["properties"]["days"]["description"] == "How far ahead."


def test_a_wrapper_with_a_name_of_its_own_keeps_it() -> None:
    renamed = wrapped(forecast)
    renamed.__name__ = "weather"
    renamed.__doc__ = "Another text."
    assert (Function(renamed).name, Function(renamed).description) == ("weather", "Another text.")


def test_a_signature_of_its_own_goes_before_that_of_what_is_wrapped() -> None:
    import inspect

    other = wrapped(forecast)
    other.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter("days", inspect.Parameter.KEYWORD_ONLY, annotation=str)]
    )
    properties = Function(other).parameters["properties"]
    assert {key: value["type"] for key, value in properties.items()} == {"days": "string"}


async def test_the_context_finds_its_way_through_wrappers() -> None:
    def add(run_context: RunContext, n: int) -> str:
        run_context.session_state["n"] = n
        return "added"

    model = ScriptedModel([ToolCall("1", "add", '{"n": 3}'), "done"])
    output = await Agent(model=model, tools=[Updated(wrapped(add))], session_state={}).arun("x")
    assert output.session_state == {"n": 3}


# **kwargs: Unpack[...]


class Options(TypedDict):
    limit: Annotated[int, Field(ge=1, description="At most so many.")]
    language: NotRequired[str]


class More(Options, total=False):
    near: Required[Place]
    exact: bool


def search(query: str, **options: typing_extensions.Unpack[More]) -> dict[str, Any]:
    """Search.

    Args:
        query: For what.
        language: In which language.
    """
    return {"query": query, **options}


def old(query: str, **options: typing.Unpack[Options]) -> dict[str, Any]:
    """Search."""
    return {"query": query, **options}


def test_the_keys_of_a_typed_dict_are_the_parameters() -> None:
    schema = Function(search).parameters
    assert sorted(schema["properties"]) == ["exact", "language", "limit", "near", "query"]
    assert sorted(schema["required"]) == ["limit", "near", "query"]
    assert schema["properties"]["language"] == {"type": "string", "description": "In which language."}
    assert schema["properties"]["limit"]["description"] == "At most so many."
    assert schema["additionalProperties"] is False
    assert sorted(Function(old).parameters["required"]) == ["limit", "query"]


@pytest.mark.parametrize("strict", [False, True])
async def test_the_function_gets_them_as_keywords(strict: bool) -> None:
    arguments = '{"query": "a", "limit": "3", "near": {"city": "Ulm"}}'
    if strict:
        arguments = arguments[:-1] + ', "language": null, "exact": null}'
    values = Function(search, strict=strict).validate(arguments)
    assert values == {"query": "a", "limit": 3, "near": Place(city="Ulm")}
    for bad in ('{"query": "a"}', '{"query": "a", "limit": 3, "x": 1}', '{"query": "a", "limit": 0}'):
        model = ScriptedModel([ToolCall("1", "old", bad), "done"])
        output = await Agent(model=model, tools=[old]).arun("x")
        assert output.tools[0].tool_call_error


def test_any_keyword_stays_any_keyword() -> None:
    def typed(**options: int) -> str:
        return ""

    def free(**options: Any) -> str:
        return ""

    assert Function(typed).validate('{"a": "3"}') == {"a": 3}
    assert Function(free).validate('{"a": "3"}') == {"a": "3"}


def test_a_key_that_is_another_parameter_is_refused() -> None:
    def twice(limit: int, **options: typing.Unpack[Options]) -> str:
        return ""

    with pytest.raises(UsageError, match="has the key 'limit'"):
        Function(twice)


class Asked(TypedDict):
    session_id: str
    user_id: NotRequired[str]


async def test_a_hook_may_ask_in_that_way_too() -> None:
    got: dict[str, Any] = {}

    def hook(**asked: typing.Unpack[Asked]) -> None:
        got.update(asked)

    await Agent(model=ScriptedModel(["x"]), pre_hooks=[hook]).arun("x", session_id="s", user_id="u")
    assert got == {"session_id": "s", "user_id": "u"}
