"""What the packages promise: their names, the docstrings of these, and keywords that are not swallowed."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType
from typing import Any

import pytest

import kern
from kern import Agent, Team
from kern.testing import ScriptedModel

# `kern.cli` is a command; its modules are no library.
PACKAGES = ["kern"] + [
    module.name
    for module in pkgutil.iter_modules(kern.__path__, "kern.")
    if module.ispkg and module.name != "kern.cli"
]
MODULES = [
    "kern.errors",
    "kern.messages",
    "kern.usage",
    "kern.run.agent",
    "kern.run.team",
    "kern.models.openai",
]


def public_names(module: ModuleType) -> list[str]:
    names: list[str] = getattr(module, "__all__", [])
    return names


@pytest.mark.parametrize("name", PACKAGES)
def test_all_names_what_is_there_once(name: str) -> None:
    """Their order is ruff's to hold (RUF022)."""
    module = importlib.import_module(name)
    names = public_names(module)
    assert len(names) == len(set(names))
    for public in names:
        assert hasattr(module, public), public


@pytest.mark.parametrize("name", PACKAGES)
def test_what_a_package_imports_for_others_is_in_all(name: str) -> None:
    module = importlib.import_module(name)
    imported = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and not isinstance(value, ModuleType)
        and getattr(value, "__module__", "").startswith("kern.")
        and value.__module__ != name
    }
    assert imported - set(public_names(module)) == set()


def documented(owner: ModuleType, names: list[str]) -> list[Any]:
    """The classes and functions of a module, and the public methods of its classes."""
    found: list[Any] = []
    for name in names:
        value = getattr(owner, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            found.append((f"{owner.__name__}.{name}", value))
        if inspect.isclass(value):
            found += [
                (f"{owner.__name__}.{name}.{key}", method)
                for key, method in vars(value).items()
                if not key.startswith("_") and (inspect.isfunction(method) or isinstance(method, property))
            ]
    return found


@pytest.mark.parametrize("name", [*PACKAGES, *MODULES])
def test_everything_public_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    names = public_names(module) or [
        key
        for key, value in vars(module).items()
        if getattr(value, "__module__", None) == name and key[0] != "_"
    ]
    undocumented = [where for where, value in documented(module, names) if not (value.__doc__ or "").strip()]
    assert undocumented == []


@pytest.mark.parametrize("make", [lambda **options: Agent(**options), lambda **options: Team([], **options)])
def test_a_constructor_refuses_unknown_keywords(make: Any) -> None:
    with pytest.raises(TypeError, match="tool_call_limits"):
        make(tool_call_limits=3)


@pytest.mark.parametrize(
    "runner", [Agent(model=ScriptedModel([])), Team([], model=ScriptedModel([]))], ids=["agent", "team"]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_refuses_unknown_keywords(runner: Any, stream: bool) -> None:
    with pytest.raises(TypeError, match="sesion_id"):
        runner.arun("Hello", stream=stream, sesion_id="1")
    with pytest.raises(TypeError, match="sesion_id"):
        await runner.aprint_response("Hello", stream=stream, sesion_id="1")


@pytest.mark.parametrize(
    "runner", [Agent(model=ScriptedModel([])), Team([], model=ScriptedModel([]))], ids=["agent", "team"]
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_sync_run_refuses_unknown_keywords(runner: Any, stream: bool) -> None:
    with pytest.raises(TypeError, match="sesion_id"):
        list(runner.run("Hello", stream=stream, sesion_id="1"))
    with pytest.raises(TypeError, match="sesion_id"):
        runner.print_response("Hello", stream=stream, sesion_id="1")


@pytest.mark.parametrize("runner", [Agent(), Team([])], ids=lambda runner: type(runner).__name__)
def test_other_methods_refuse_unknown_keywords(runner: Any) -> None:
    with pytest.raises(TypeError, match="session"):
        runner.get_session_state(session="1")
    with pytest.raises(TypeError, match="leave_on"):
        runner.cli_app(leave_on=["x"])


def test_a_repr_shows_no_key() -> None:
    from kern.models.openai import OpenAIChat, OpenAIResponses

    for model in (OpenAIResponses(api_key="sk-secret-key"), OpenAIChat(id="m", api_key="sk-secret-key")):
        assert "sk-secret-key" not in repr(model) + repr(Agent(model=model)) + repr(vars(model))
