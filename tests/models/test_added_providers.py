"""Providers that other packages add by an entry point, and names that are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kern import Agent
from kern.errors import UsageError
from kern.models import resolve
from kern.models.resolve import _added, _maker

MODULE = """
from kern.models import ModelResponse
from kern.models.base import Model

class Parrot(Model):
    provider = "parrot"

    def __init__(self, id):
        self.id = id

    async def respond(self, request, sink):
        return ModelResponse.of(f"{self.id}: {request.messages[-1].content}")

def no_model(id):
    return id
"""
ENTRY_POINTS = """
[kern.models]
parrot = parrot_provider:Parrot
broken = parrot_provider:gone
nothing = parrot_provider:no_model
openai = parrot_provider:Parrot
"""


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with entry points, as an installer leaves it."""
    (tmp_path / "parrot_provider.py").write_text(MODULE)
    info = tmp_path / "parrot_provider-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parrot-provider\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    for found in (_maker, _added):
        found.cache_clear()
    yield
    for found in (_maker, _added):
        found.cache_clear()


def test_an_agent_finds_a_provider_that_a_package_adds() -> None:
    output = Agent(model="parrot:grey").run("Hello")
    assert (output.content, output.model, output.model_provider) == ("grey: Hello", "grey", "parrot")


def test_a_provider_of_kern_cannot_be_replaced_by_another_package() -> None:
    assert resolve("openai:gpt-5.2").provider == "openai"


def test_a_provider_that_cannot_be_loaded_is_told_with_its_package() -> None:
    with pytest.raises(UsageError, match=r"'broken'.*package 'parrot-provider'.*AttributeError"):
        Agent(model="broken:x")


def test_a_provider_that_makes_no_model_is_told() -> None:
    with pytest.raises(UsageError, match=r"'nothing' returned a str, which is not a Model"):
        Agent(model="nothing:x").run("Hello")


def test_the_error_for_an_unknown_provider_lists_those_that_packages_add() -> None:
    with pytest.raises(UsageError, match=r'"google-chat:\.\.\.", "broken:\.\.\.", "nothing:\.\.\.", "parrot'):
        resolve("nobody:x")


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "nobody:x"},
        {"model": "gpt-5.2"},
        {"model": 5},
        {"fallback_models": ["openai:gpt-5.2", "nobody:x"]},
        {"parser_model": "nobody:x"},
        {"output_model": "nobody:x"},
        {"session_summary_model": "nobody:x"},
    ],
)
def test_a_wrong_model_is_told_when_the_agent_is_made(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="provider:id"):
        Agent(**wrong)


def test_the_environment_is_not_judged_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERN_MODEL", "nobody:x")
    agent = Agent()
    with pytest.raises(UsageError, match=r"no model 'nobody:x'"):
        agent.run("Hello")
