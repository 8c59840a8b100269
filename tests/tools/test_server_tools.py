"""Tools that the model's provider runs stand in the tools of an agent, beside its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from kern import Agent, Team, Toolkit, UsageError
from kern.messages import ToolCall
from kern.models.base import ModelResponse
from kern.testing import ScriptedModel
from kern.tools import ServerTool


@dataclass(frozen=True, kw_only=True)
class Search(ServerTool):
    """A search that the provider runs."""

    api: ClassVar[str] = "here"
    depth: int = 1

    @property
    def name(self) -> str:
        """Its name."""
        return "search"

    def definition(self) -> dict[str, Any]:
        """The JSON of it."""
        return {"type": "search", "depth": self.depth}


class Here(ScriptedModel):
    """A model whose provider runs tools."""

    server_tool_api = "here"


def add(item: str) -> str:
    """Add."""
    return item


def search() -> str:
    """Another search."""
    return ""


async def test_the_model_gets_them_beside_the_agents_own_tools() -> None:
    call = ToolCall("1", "add", '{"item": "x"}')
    model = Here([ModelResponse.of(None, call), ModelResponse.of("Done.")])
    output = await Agent(model=model, tools=[Search(depth=2), add]).arun("Hi")
    assert output.content == "Done."
    for request in model.requests:
        assert [tool.definition() for tool in request.server_tools] == [{"type": "search", "depth": 2}]
        assert [tool.name for tool in request.tools] == ["add"]


async def test_a_leader_has_them_too_and_its_members_have_their_own() -> None:
    leader = Here([ModelResponse.of("Done.")])
    team = Team([Agent(model=Here([]), name="m", tools=[Search(depth=5)])], model=leader, tools=[Search()])
    await team.arun("Hi")
    assert leader.requests[0].server_tools == [Search()]


async def test_a_tool_choice_goes_with_them_and_none_leaves_them_out_of_models_that_do_not_heed_it() -> None:
    model = Here([ModelResponse.of("a")])
    await Agent(model=model, tools=[Search()], tool_choice={"name": "search"}).arun("Hi")
    assert model.requests[0].tool_choice == {"name": "search"}
    model = Here([ModelResponse.of("a")])
    model.has_choice_none = False
    await Agent(model=model, tools=[Search(), add], tool_choice="none").arun("Hi")
    assert (model.requests[0].tools, model.requests[0].server_tools) == ([], ())


async def test_a_model_of_another_api_refuses_them_and_says_why() -> None:
    for model, has in ((ScriptedModel([]), "has no tools"), (Here([]), "uses the API 'there'")):
        if isinstance(model, Here):
            model.server_tool_api = "there"
        with pytest.raises(
            UsageError, match=rf"Search\(depth=1\) needs a model of the API 'here', but .* {has}"
        ):
            await Agent(model=model, tools=[Search()]).arun("Hi")


def test_its_name_is_no_other_tools() -> None:
    with pytest.raises(UsageError, match=r"the provider .* adds a tool named 'search'"):
        Agent(tools=[Search(), search])
    with pytest.raises(UsageError, match="two tools are named 'search'"):
        Agent(tools=[Search(), Search(depth=2)])
    Agent(tools=[Search(), Search()])


def test_a_toolkit_cannot_hold_one() -> None:
    with pytest.raises(UsageError, match="pass it in the tools of the agent"):
        Toolkit(tools=[Search()])
