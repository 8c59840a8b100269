"""Names that people type from habit are answered with one line that says what to write instead."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import kern
from kern import Agent, RunStatus, Team, UsageError
from kern._habits import KEYWORDS, MODULES, OUTPUT_ATTRIBUTES, RUNNER_ATTRIBUTES, provider_of
from kern.runner.definition import Definition
from kern.testing import ScriptedModel


@pytest.mark.parametrize("name", KEYWORDS)
def test_a_keyword_from_habit_says_what_to_write(name: str) -> None:
    assert name not in Definition.__dataclass_fields__
    with pytest.raises(TypeError, match=f"Agent has no keyword '{name}': ") as caught:
        Agent(**{name: "x"})
    assert KEYWORDS[name] in str(caught.value)


def test_a_keyword_that_a_page_for_newcomers_translates_is_answered_here_too() -> None:
    pages = (Path(__file__).parents[1] / "docs").glob("coming-from-*.md")
    rows = [line for page in pages for line in page.read_text().splitlines() if line.startswith("| ")]
    theirs = {name for row in rows for name in re.findall(r"`([a-z_]+)=", row.split(" | ")[0])}
    assert theirs
    assert theirs - set(KEYWORDS) - set(Definition.__dataclass_fields__) == set()


@pytest.mark.parametrize("make", [Agent, lambda **options: Team([], **options)], ids=["agent", "team"])
def test_an_agent_and_a_team_say_it(make: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match=r"has no keyword 'llm': write model="):
        make(llm="gpt-5")


async def test_a_run_says_it() -> None:
    with pytest.raises(TypeError, match="a run has no keyword 'thread_id': write session_id="):
        await Agent().arun("x", thread_id="1")


@pytest.mark.parametrize("name", RUNNER_ATTRIBUTES)
@pytest.mark.parametrize("runner", [Agent(), Team([])], ids=["agent", "team"])
def test_an_attribute_from_habit_says_what_to_write(runner: object, name: str) -> None:
    with pytest.raises(AttributeError, match=f"no attribute '{name}': ") as caught:
        getattr(runner, name)
    assert RUNNER_ATTRIBUTES[name] in str(caught.value)


@pytest.mark.parametrize("name", OUTPUT_ATTRIBUTES)
def test_an_attribute_of_an_output_from_habit_says_what_to_write(name: str) -> None:
    output = Agent(model=ScriptedModel(["Hi"])).run("x")
    with pytest.raises(AttributeError, match=f"no attribute '{name}': ") as caught:
        getattr(output, name)
    assert OUTPUT_ATTRIBUTES[name] in str(caught.value)


def test_what_an_answer_recommends_exists() -> None:
    agent = Agent(model=ScriptedModel(["Hi"]), session_id="s")
    output = agent.run("x")
    assert (output.content, output.status is RunStatus.paused, output.requirements or []) == ("Hi", False, [])
    assert output.messages
    assert output.metrics is not None
    assert agent.get_session_messages("s")
    assert agent.get_session("s").summary is None


def test_another_attribute_fails_as_ever() -> None:
    with pytest.raises(AttributeError, match=r"^'Agent' object has no attribute 'nothing'$"):
        getattr(Agent(), "nothing")  # noqa: B009
    assert not hasattr(Agent(), "nothing")


def test_an_error_inside_of_a_property_is_not_hidden() -> None:
    class Desk(Agent):
        @property
        def tool(self) -> str:
            return str(self.missing)  # type: ignore[attr-defined]

    with pytest.raises(AttributeError, match=r"^'Desk' object has no attribute 'missing'$"):
        _ = Desk().tool


@pytest.mark.parametrize("name", MODULES)
def test_a_module_from_habit_says_where_its_contents_are(name: str) -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        importlib.import_module(name)
    assert caught.value.name == name
    assert MODULES[name] in str(caught.value)


def test_an_import_statement_says_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import kern\nfrom kern.memory import Memory"], capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1].startswith("ModuleNotFoundError: No module named 'kern.memory': ")


def test_such_modules_are_in_no_list_of_modules() -> None:
    there = {module.name for module in pkgutil.walk_packages(kern.__path__, "kern.")}
    assert there.isdisjoint(MODULES)


def test_a_module_that_is_nobodys_habit_fails_as_ever() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'kern.nothing'$"):
        importlib.import_module("kern.nothing")


def test_a_model_without_a_provider_is_told_the_likely_one() -> None:
    with pytest.raises(UsageError, match='such as "openai:gpt-5";'):
        Agent(model="gpt-5")
    assert provider_of("Claude-sonnet-5") == "anthropic"
    assert provider_of("something") is None
