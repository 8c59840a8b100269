from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest

from kern.errors import UsageError
from kern.run import RunContext
from kern.tools.inject import call_kwargs, context_parameter

CONTEXT = RunContext()
AVAILABLE = {"run_context": CONTEXT, "function_name": "add", "arguments": {"a": 1}, "agent": "An agent"}


def nothing() -> None: ...
def by_name(run_context: Any, function_name: str) -> None: ...
def by_type(ctx: RunContext, arguments: dict[str, Any]) -> None: ...
def optional(function_name: str, other: int = 3, agent: object = None) -> None: ...
def everything(ctx: RunContext, **rest: Any) -> None: ...
async def waiting(arguments: dict[str, Any]) -> None: ...


class Hook:
    def __call__(self, function_name: str) -> None: ...

    def method(self, arguments: dict[str, Any]) -> None: ...


@pytest.mark.parametrize(
    ("function", "kwargs"),
    [
        (nothing, {}),
        (by_name, {"run_context": CONTEXT, "function_name": "add"}),
        (by_type, {"ctx": CONTEXT, "arguments": {"a": 1}}),
        (optional, {"function_name": "add", "agent": "An agent"}),
        (
            everything,
            {"ctx": CONTEXT, "function_name": "add", "arguments": {"a": 1}, "agent": "An agent"},
        ),
        (waiting, {"arguments": {"a": 1}}),
        (Hook(), {"function_name": "add"}),
        (Hook().method, {"arguments": {"a": 1}}),
        (functools.partial(by_name, function_name="x"), {"run_context": CONTEXT}),
        (lambda run_context: None, {"run_context": CONTEXT}),
    ],
)
def test_a_function_gets_what_its_parameters_name(
    function: Callable[..., Any], kwargs: dict[str, Any]
) -> None:
    for _ in range(2):  # the second time from the cache
        assert call_kwargs(function, AVAILABLE) == kwargs


def unknown(function_nam: str) -> None: ...
def positional(function_name: str, /) -> None: ...


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            unknown,
            "unknown has the parameter 'function_nam'.*it may take: agent, arguments, "
            "function_name, run_context",
        ),
        (positional, r"positional-only parameters \(function_name"),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_there_is(function: Callable[..., Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call_kwargs(function, AVAILABLE)


def test_a_context_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match=r"by_type has the parameter 'ctx'.*it may take: arguments"):
        call_kwargs(by_type, {"arguments": {}})
    with pytest.raises(UsageError, match="it may take: no parameters"):
        call_kwargs(by_type, {})


def test_the_context_parameter_is_found_as_for_tools() -> None:
    assert context_parameter(by_type) == "ctx"
    assert context_parameter(by_name) == "run_context"
    assert context_parameter(waiting) is None
