from __future__ import annotations

import functools
import gc
import inspect
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from kern.errors import UsageError
from kern.run import RunContext
from kern.tools import Function, tool
from kern.tools.arguments import arguments_of


def sync_tool(a: int) -> int:
    """Give it back.

    Args:
        a: The number.
    """
    return a


async def async_tool(a: int) -> int:
    return a


def generator_tool(a: int) -> Iterator[int]:
    yield a


async def async_generator_tool(a: int) -> AsyncIterator[int]:
    yield a


class Caller:
    """Calls."""

    def __call__(self, a: int) -> int:
        return a


class AsyncCaller:
    async def __call__(self, a: int) -> int:
        """Wait and give it back."""
        return a


class Kit:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def plain(self, a: int) -> int:
        return a * self.factor

    async def waiting(self, a: int) -> int:
        return a * self.factor

    @tool(timeout=3)
    def marked(self, a: int) -> int:
        """Multiply."""
        return a * self.factor

    @tool
    @staticmethod
    def inside(a: int) -> int:
        return a

    @staticmethod
    @tool
    def outside(a: int) -> int:
        return a

    @tool
    def positional(self, run_context: RunContext, a: int, b: int = 5, /) -> int:
        return a * self.factor + b + run_context.session_state["extra"]


@functools.wraps(async_tool)
async def wrapped(*args: Any, **kwargs: Any) -> int:
    return await async_tool(*args, **kwargs)


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (sync_tool, "sync"),
        (async_tool, "async"),
        (generator_tool, "generator"),
        (async_generator_tool, "async_generator"),
        (functools.partial(sync_tool), "sync"),
        (functools.partial(async_tool), "async"),
        (functools.partial(async_generator_tool), "async_generator"),
        (Caller(), "sync"),
        (AsyncCaller(), "async"),
        (functools.partial(AsyncCaller()), "async"),
        (Kit(2).plain, "sync"),
        (Kit(2).waiting, "async"),
        (Kit.inside, "sync"),
        (staticmethod(async_tool), "async"),
        (wrapped, "async"),
    ],
)
async def test_every_kind_of_callable_is_recognised_and_called(
    function: Callable[..., Any], kind: str
) -> None:
    made = Function.from_callable(function)
    assert made.kind == kind
    assert list(made.parameters["properties"]) == ["a"]
    assert made.parameters["properties"]["a"]["type"] == "integer"
    result: Any = made.entrypoint(**made.validate('{"a": "3"}'))
    if kind == "async":
        result = await result
    elif kind == "generator":
        result = next(result)
    elif kind == "async_generator":
        result = await anext(result)
    assert result in (3, 6)


def test_names_and_descriptions_come_from_the_callable() -> None:
    assert (Function(sync_tool).name, Function(sync_tool).description) == ("sync_tool", "Give it back.")
    assert Function(functools.partial(sync_tool)).description == "Give it back."
    assert (Function(Caller()).name, Function(Caller()).description) == ("Caller", "Calls.")
    assert Function(AsyncCaller()).description == "Wait and give it back."
    named = Function(sync_tool, name="give-back", description="Other.")
    assert (named.name, named.description) == ("give-back", "Other.")


@pytest.mark.parametrize("name", ["", "a b", "größe", "x" * 65, "<lambda>", "a.b"])
def test_a_name_that_providers_refuse_is_refused_with_the_remedy(name: str) -> None:
    with pytest.raises(UsageError, match="@tool\\(name="):
        Function(sync_tool, name=name)


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(UsageError, match="<lambda>"):
        Function.from_callable(lambda a: a)
    assert Function(lambda a: a, name="give").validate('{"a": 1}') == {"a": 1}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (Kit, r"Kit is a class; pass an instance of it, Kit\(\)"),
        (3, "3 is not callable"),
        ({"type": "web_search"}, "is not callable"),
        (classmethod(sync_tool), "@classmethod above @tool"),
    ],
)
def test_what_is_no_tool_is_refused(what: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Function.from_callable(what)


def test_a_decorated_function_stays_callable_and_keeps_its_name_and_text() -> None:
    made = tool(sync_tool)
    assert isinstance(made, Function)
    assert made(4) == 4
    assert made(a=4) == 4
    assert made.__name__ == "sync_tool"
    assert made.__doc__ == sync_tool.__doc__
    assert inspect.signature(made) == inspect.signature(sync_tool)
    assert repr(made) == f"Function(name='sync_tool', entrypoint={__name__}.sync_tool)"
    assert (Function.__doc__ or "").startswith("A tool: a callable")
    assert Function.from_callable(made) is made


def test_the_decorator_takes_every_option() -> None:
    def before() -> None: ...
    def after() -> None: ...
    def around() -> None: ...

    @tool(
        name="other",
        description="Text.",
        strict=True,
        instructions="Use it well.",
        show_result=True,
        stop_after_tool_call=False,
        requires_confirmation=True,
        pre_hook=before,
        post_hook=after,
        tool_hooks=[around],
        cache_results=True,
        cache_ttl=60,
        cache_dir="cache",
        timeout=2.5,
        cache="1h",
        effect="once",
    )
    def work(a: int) -> int:
        return a

    options = work.options()
    assert options == {
        "name": "other",
        "description": "Text.",
        "parameters": None,
        "strict": True,
        "instructions": "Use it well.",
        "show_result": True,
        "stop_after_tool_call": False,
        "requires_confirmation": True,
        "requires_user_input": False,
        "user_input_fields": (),
        "external_execution": False,
        "pre_hook": before,
        "post_hook": after,
        "tool_hooks": (around,),
        "cache_results": True,
        "cache_ttl": 60,
        "cache_dir": "cache",
        "timeout": 2.5,
        "cache": "1h",
        "effect": "once",
    }
    assert work.replace(timeout=1).options() == {**options, "timeout": 1}
    assert work(3) == 3


def test_a_misspelt_option_is_a_type_error_that_lists_the_options() -> None:
    with pytest.raises(TypeError, match=r"no option 'descripton'; did you mean 'description'"):
        tool(descripton="x")
    with pytest.raises(TypeError, match="descripton"):
        Function(sync_tool, descripton="x")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"requires_confirmation": True, "external_execution": True},
            "requires_confirmation and external_execution",
        ),
        (
            {"requires_confirmation": True, "user_input_fields": ["a"]},
            "requires_confirmation and requires_user_input",
        ),
        (
            {"user_input_fields": ["b"]},
            "user_input_fields names unknown parameters: b; its parameters are: a",
        ),
        ({"timeout": 0}, "timeout must be a number of seconds above 0, not 0"),
        ({"cache_ttl": -1}, "cache_ttl must be a number of seconds"),
    ],
)
def test_options_that_cannot_be_are_refused(options: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        tool(**options)(sync_tool)


def test_stopping_after_a_call_shows_its_result_unless_told_otherwise() -> None:
    assert Function(sync_tool, stop_after_tool_call=True).show_result is True
    assert Function(sync_tool, stop_after_tool_call=True, show_result=False).show_result is False
    assert Function(sync_tool).show_result is False


def test_what_a_person_fills_in_is_hidden_from_the_model_and_validated_with_the_rest() -> None:
    @tool(user_input_fields=["b"])
    def send(a: str, b: int, c: int = 1) -> None: ...

    assert send.requires_user_input
    assert list(send.parameters["properties"]) == ["a", "c"]
    assert send.parameters["required"] == ["a"]
    assert list(send.user_input_schema["properties"]) == ["b"]
    assert send.validate('{"a": "x", "b": 1}', user_input={"b": "2"}) == {"a": "x", "b": 2}


def test_a_method_binds_to_its_object_with_its_options() -> None:
    bound = Kit(3).marked
    assert bound(2) == 6
    assert bound.timeout == 3
    assert bound.description == "Multiply."
    assert list(bound.parameters["properties"]) == ["a"]
    assert bound.entrypoint(**bound.validate('{"a": 2}')) == 6
    assert Kit(1).inside(4) == 4
    assert Kit(1).outside(4) == 4
    assert list(Kit(1).outside.parameters["properties"]) == ["a"]


def test_a_method_without_its_object_is_refused() -> None:
    with pytest.raises(UsageError, match=r"Kit\.plain is an unbound method"):
        _ = Function.from_callable(Kit.plain).parameters


def test_positional_only_parameters_can_be_passed_by_name() -> None:
    context = RunContext(session_state={"extra": 100})
    bound = Kit(10).positional
    assert bound.context_parameter == "run_context"
    kwargs = {**bound.validate('{"a": 2}'), "run_context": context}
    assert bound.entrypoint(**kwargs) == 125
    assert bound.replace(timeout=1).entrypoint(**{**kwargs, "b": 6}) == 126
    assert bound(context, 2, 7) == 127


async def test_an_async_function_with_positional_only_parameters_keeps_its_kind() -> None:
    async def give(a: int = 1, b: int = 2, /, c: int = 3) -> tuple[int, int, int]:
        return a, b, c

    made = Function(give).replace(timeout=1)
    assert made.kind == "async"
    assert await made.entrypoint(**made.validate('{"b": 5}')) == (1, 5, 3)


def test_a_given_schema_is_shown_and_the_signature_still_validates() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "description": "From a server."}}}

    def forward(**arguments: Any) -> dict[str, Any]:
        return arguments

    made = Function(forward, name="remote", parameters=schema)
    assert made.parameters == schema
    assert made.validate('{"a": 1, "b": [2]}') == {"a": 1, "b": [2]}


def test_what_follows_from_a_function_is_computed_once() -> None:
    one, other = Function.from_callable(sync_tool), Function.from_callable(sync_tool)
    assert one.parameters is other.parameters
    assert arguments_of(sync_tool) is arguments_of(sync_tool)
    assert Kit(1).marked.parameters is Kit(2).marked.parameters
    assert arguments_of(Kit(1).plain) is arguments_of(Kit(2).plain)
    assert arguments_of(Kit(1).plain) is not arguments_of(Kit.plain)


def test_a_function_and_what_is_known_of_it_go_together() -> None:
    def passing(a: int) -> int:
        """Pass."""
        return a

    made = Function.from_callable(passing)
    _ = made.parameters
    made.validate('{"a": 1}')
    gone = weakref.ref(passing), weakref.ref(made)
    del passing, made
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_a_tool_is_small_until_it_is_used() -> None:
    made = Function.from_callable(sync_tool)
    assert not hasattr(made, "__dict__")
    assert sys.getsizeof(made) < 300

    def unused(a: int) -> int:
        return a

    arguments = Function.from_callable(unused)._arguments
    assert arguments._model is None
    assert arguments._schema is None


def test_threads_may_use_one_tool_for_the_first_time_together() -> None:
    def fresh(a: int, b: str = "x") -> None: ...

    made = Function.from_callable(fresh)
    barrier = threading.Barrier(8)
    results: list[Any] = []

    def use() -> None:
        barrier.wait()
        results.append((made.validate('{"a": 1}'), made.parameters))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert all(result == results[0] for result in results)
