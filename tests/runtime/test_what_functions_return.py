"""Decided by what a call returns: the body of a function always runs, whatever stands round it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from kern import Agent, RunContext, Team
from kern.models.base import ModelResponse
from kern.run import RunContentEvent, RunIntermediateContentEvent
from kern.testing import ScriptedModel, tool_call
from kern.tools import Function

RAN: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    RAN.clear()


def plain(text: str = "a") -> str:
    RAN.append("plain")
    return text + "b"


async def coroutine(text: str = "a") -> str:
    await asyncio.sleep(0)
    RAN.append("coroutine")
    return text + "b"


def generator(text: str = "a") -> Iterator[str]:
    RAN.append("generator")
    yield text
    yield "b"


async def async_generator(text: str = "a") -> AsyncIterator[str]:
    RAN.append("async_generator")
    yield text
    await asyncio.sleep(0)
    yield "b"


class Later:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __await__(self) -> Iterator[Any]:
        yield from asyncio.sleep(0).__await__()
        RAN.append("awaitable")
        return self.value


class Counting:
    """An iterator that is no generator."""

    def __init__(self, *pieces: str) -> None:
        self.pieces = list(pieces)

    def __iter__(self) -> Counting:
        return self

    def __next__(self) -> str:
        RAN.append("iterator")
        if not self.pieces:
            raise StopIteration
        return self.pieces.pop(0)


class AsyncCounting(Counting):
    def __aiter__(self) -> AsyncCounting:
        return self

    async def __anext__(self) -> str:
        try:
            return Counting.__next__(self)
        except StopIteration:
            raise StopAsyncIteration from None

    __iter__ = None  # type: ignore[assignment]


def awaitable(text: str = "a") -> Awaitable[str]:
    return Later(text + "b")


def iterator(text: str = "a") -> Iterator[str]:
    return Counting(text, "b")


def async_iterator(text: str = "a") -> Any:
    return AsyncCounting(text, "b")


def nested(text: str = "a") -> Any:
    """An awaitable of a coroutine of a generator."""

    async def later() -> Any:
        return generator(text)

    return Later(later())


FUNCTIONS = [
    plain,
    coroutine,
    generator,
    async_generator,
    awaitable,
    iterator,
    async_iterator,
    nested,
]


def bare(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def sync_wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


def async_wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call


class Wrapper:
    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)  # type: ignore[attr-defined]


class AsyncWrapper(Wrapper):
    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)  # type: ignore[attr-defined]


def of_object(function: Callable[..., Any]) -> Callable[..., Any]:
    class Office:
        def work(self, text: str = "a") -> Any:
            """Work."""
            return function(text)

    return Office().work


WRAPPERS = [
    bare,
    sync_wrapped,
    async_wrapped,
    Wrapper,
    AsyncWrapper,
    functools.partial,
    functools.cache,
    of_object,
]


def a_hook(function_call: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    return function_call(**arguments)


async def an_async_hook(function_call: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    return await function_call(**arguments)


async def a_hook_that_does_not_wait(function_call: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    return function_call(**arguments)


@pytest.mark.parametrize(
    "hooks", [[], [a_hook], [an_async_hook], [a_hook_that_does_not_wait], [a_hook, an_async_hook]]
)
@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("function", FUNCTIONS)
async def test_the_body_of_a_tool_runs(
    function: Callable[..., Any], wrapper: Callable[..., Any], hooks: list[Any]
) -> None:
    tool = Function(wrapper(function), name="work")
    model = ScriptedModel([tool_call("work"), tool_call("work"), "done"])
    output = await Agent(model=model, tools=[tool], tool_hooks=hooks).arun("x")
    kept = wrapper is functools.cache and function in (awaitable, iterator, async_iterator, nested)
    assert output.tools[0].result == "ab"
    assert RAN
    if not kept:  # an object that can be used once, and that the cache hands out again
        assert output.tools[1].result == "ab"


@pytest.mark.parametrize("hooks", [[], [a_hook], [an_async_hook]])
@pytest.mark.parametrize("wrapper", WRAPPERS[1:5])
@pytest.mark.parametrize("colour", ["coroutine", "generator", "async_generator"])
async def test_one_with_a_context_is_one_transaction(
    colour: str, wrapper: Callable[..., Any], hooks: list[Any]
) -> None:
    async def add(run_context: RunContext) -> str:
        await asyncio.sleep(0)
        run_context.session_state["n"] += 1
        return "added"

    def adding(run_context: RunContext) -> Iterator[str]:
        run_context.session_state["n"] += 1
        yield "add"
        yield "ed"

    async def adding_later(run_context: RunContext) -> AsyncIterator[str]:
        run_context.session_state["n"] += 1
        await asyncio.sleep(0)
        yield "added"

    function = {"coroutine": add, "generator": adding, "async_generator": adding_later}[colour]
    tool = Function(wrapper(function), name="add")
    calls = [tool_call("add") for _ in range(8)]
    model = ScriptedModel([ModelResponse.of(None, *calls), "done"])
    output = await Agent(model=model, tools=[tool], tool_hooks=hooks, session_state={"n": 0}).arun("x")
    assert [call.result for call in output.tools] == ["added"] * 8
    assert output.session_state == {"n": 8}


@pytest.mark.parametrize("wrapper", WRAPPERS[1:5])
async def test_what_fails_late_is_undone(wrapper: Callable[..., Any]) -> None:
    def spoil(run_context: RunContext) -> Iterator[str]:
        run_context.session_state["n"] = 5
        yield "half"
        raise ValueError("no")

    tool = Function(wrapper(spoil), name="spoil")
    output = await Agent(
        model=ScriptedModel([tool_call("spoil"), "done"]), tools=[tool], session_state={"n": 0}
    ).arun("x")
    assert output.tools[0].tool_call_error
    assert output.session_state == {"n": 0}


@pytest.mark.parametrize("wrapper", WRAPPERS[1:])
@pytest.mark.parametrize("function", FUNCTIONS[1:])
@pytest.mark.parametrize("place", ["pre_hooks", "post_hooks", "pre_hook", "post_hook"])
async def test_the_body_of_a_hook_runs(
    function: Callable[..., Any], wrapper: Callable[..., Any], place: str
) -> None:
    hook = no_arguments(wrapper(function))
    model = ScriptedModel([tool_call("plain"), "done"])
    if place in ("pre_hooks", "post_hooks"):
        await Agent(model=model, tools=[plain], **{place: [hook]}).arun("x")
    else:
        tool = Function(plain, **{place: hook})
        output = await Agent(model=model, tools=[tool]).arun("x")
        assert output.tools[0].result == "ab"
    assert set(RAN) - {"plain"}


def no_arguments(function: Callable[..., Any]) -> Callable[..., Any]:
    def hook() -> Any:
        return function("a")

    return hook


@pytest.mark.parametrize("wrapper", WRAPPERS[1:])
@pytest.mark.parametrize("function", FUNCTIONS)
async def test_the_body_of_an_instruction_function_runs(
    function: Callable[..., Any], wrapper: Callable[..., Any]
) -> None:
    model = ScriptedModel(["x", "x"])
    await Agent(model=model, instructions=no_arguments(wrapper(function))).arun("x")
    await Agent(model=model, system_message=no_arguments(wrapper(function))).arun("x")
    assert model.requests[0].messages[0].content in ("ab", "- a\n- b")
    assert model.requests[1].messages[0].content == "ab"


async def test_the_body_of_a_function_of_members_runs() -> None:
    member = Agent(id="m", model=ScriptedModel(["hello"]))

    async def later() -> Any:
        return iter([member])

    model = ScriptedModel([tool_call("delegate_task_to_member", member_id="m", task="x"), "done"])
    output = await Team(no_arguments(lambda _: later()), model=model).arun("x")
    assert output.tools[0].result == "hello"


async def test_a_generator_that_is_used_up_is_no_empty_success() -> None:
    once = generator()
    list(once)

    def again() -> Any:
        return once

    output = await Agent(model=ScriptedModel([tool_call("again"), "done"]), tools=[again]).arun("x")
    assert output.tools[0].tool_call_error
    assert "consumed before" in (output.tools[0].result or "")


async def test_pieces_of_a_wrapped_generator_are_told_as_they_come() -> None:
    tool = Function(sync_wrapped(generator), name="work", show_result=True)
    agent = Agent(model=ScriptedModel([tool_call("work"), "done"]), tools=[tool])
    events = [event async for event in agent.arun("x", stream=True, stream_events=True)]
    pieces = [event.content for event in events if isinstance(event, RunIntermediateContentEvent)]
    assert pieces == ["a", "b"]
    assert "".join(str(e.content) for e in events if isinstance(e, RunContentEvent)).startswith("ab")


async def test_a_cache_of_results_is_kept() -> None:
    @functools.cache
    def price(article: str) -> int:
        RAN.append(article)
        return 5

    tool = Function(price, name="price")
    model = ScriptedModel([tool_call("price", article="x"), tool_call("price", article="x"), "done"])
    output = await Agent(model=model, tools=[tool]).arun("x")
    assert [call.result for call in output.tools] == ["5", "5"]
    assert RAN == ["x"]
