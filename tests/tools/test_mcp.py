"""The tools of a real MCP server, made with the package `mcp`, over both transports."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from kern.agent import Agent
from kern.errors import MissingExtraError, UsageError
from kern.messages import ToolCall
from kern.models.base import ModelResponse
from kern.run.output import RunStatus
from kern.testing import ScriptedModel, tool_call
from kern.tools.mcp import MCPTools
from tests.tools.mcp_running import SERVER, over_stdio, results, run_with, says, serving, until


@pytest.fixture(scope="module", params=["stdio", "streamable-http"])
async def tools(request: pytest.FixtureRequest) -> AsyncIterator[MCPTools]:
    """One connection for many tests, each of which has to leave it usable."""
    if request.param == "stdio":
        async with over_stdio(SERVER, transport="stdio") as connected:
            yield connected
        return
    with serving(SERVER) as (url, _):
        async with MCPTools(url=url, transport="streamable-http") as connected:
            yield connected


async def pid(tools: MCPTools) -> str | None:
    return results(await run_with(tools, tool_call("pid")))[0]


async def test_the_model_is_shown_what_the_server_tells(tools: MCPTools) -> None:
    model = ScriptedModel(["done"])
    await Agent(model=model, tools=[tools]).arun("Go")
    shown = {tool.name: tool for tool in model.requests[0].tools}
    add = shown["add"]
    assert add.description == "Add two numbers."
    assert add.parameters == {
        "type": "object",
        "title": "addArguments",
        "properties": {
            "a": {"type": "integer", "title": "A", "description": "The first number"},
            "b": {"type": "integer", "title": "B", "default": 1},
        },
        "required": ["a"],
    }
    assert "files_read_all" in shown  # the server calls it files.read/all, which no provider takes


async def test_calls_come_back_as_text(tools: MCPTools) -> None:
    output = await run_with(
        tools,
        tool_call("add", a=2, b=3),
        tool_call("greet", name="Ada"),
        tool_call("names"),
        tool_call("files_read_all"),
        tool_call("mixture"),
    )
    assert results(output) == [
        "5",
        "Hello, Ada!",
        "milk\n7",
        "all files",
        "Look:\n[image]\n[audio]\n[report](file:///report.txt): The report\nA note",
    ]
    assert not any(tool.tool_call_error for tool in output.tools)
    assert [image.content for image in output.images] == [b"hello"]
    assert [audio.mime_type for audio in output.audio] == ["audio/wav"]


async def test_what_goes_wrong_at_the_server_is_told_to_the_model(tools: MCPTools) -> None:
    output = await run_with(tools, tool_call("fail", why="no luck"), tool_call("add", a="many"))
    assert output.status is RunStatus.completed
    assert [tool.tool_call_error for tool in output.tools] == [True, True]
    failed, refused = results(output)
    assert failed is not None
    assert "no luck" in failed
    assert refused is not None
    assert "valid integer" in refused


async def test_arguments_that_are_no_object_never_reach_the_server(tools: MCPTools) -> None:
    output = await run_with(tools, ToolCall("1", "add", "[1, 2]"))
    assert "must be one JSON object" in (output.tools[0].result or "")


async def test_a_cancelled_run_cancels_its_call_and_the_connection_stays(
    tools: MCPTools, tmp_path: Path
) -> None:
    before, mark = await pid(tools), tmp_path / "mark"
    run = asyncio.create_task(run_with(tools, tool_call("wait", mark=str(mark))))
    await until(says(mark, "started"))
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert await pid(tools) == before
    await until(says(mark, "cancelled"))


async def test_a_run_that_is_stopped_by_its_id_does_the_same(tools: MCPTools, tmp_path: Path) -> None:
    before, mark = await pid(tools), tmp_path / "mark"
    model = ScriptedModel([tool_call("wait", mark=str(mark))])
    agent = Agent(model=model, tools=[tools])
    run = asyncio.create_task(agent.arun("Go", run_id="to-be-stopped"))
    await until(says(mark, "started"))
    agent.cancel_run("to-be-stopped")
    assert (await run).status is RunStatus.cancelled
    await until(says(mark, "cancelled"))
    assert await pid(tools) == before


async def test_two_runs_share_the_connection_at_the_same_time(tools: MCPTools) -> None:
    one, two = await asyncio.gather(
        run_with(tools, tool_call("meet", me="Ada", other="Bob")),
        run_with(tools, tool_call("meet", me="Bob", other="Ada")),
    )
    assert (results(one), results(two)) == (["Ada met Bob"], ["Bob met Ada"])


async def test_calls_of_one_turn_run_together(tools: MCPTools) -> None:
    calls = [tool_call("meet", me="Eve", other="Kim"), tool_call("meet", me="Kim", other="Eve")]
    model = ScriptedModel([ModelResponse.of(None, *calls), "done"])
    output = await Agent(model=model, tools=[tools]).arun("Go")
    assert results(output) == ["Eve met Kim", "Kim met Eve"]


async def test_a_run_has_the_tools_that_the_server_has_when_it_begins(tools: MCPTools) -> None:
    known = await tools.load()
    assert await tools.load() is known
    assert "grown" not in known.functions
    await run_with(tools, tool_call("grow"))

    async def has_grown() -> bool:
        return "grown" in (await tools.load()).functions

    while not await has_grown():  # the server tells of it in a message of its own
        await asyncio.sleep(0.01)
    assert results(await run_with(tools, tool_call("grown"))) == ["I have grown"]


async def test_a_person_may_have_to_allow_a_call() -> None:
    async with over_stdio(SERVER, requires_confirmation_tools=["greet"], include_tools=["greet"]) as tools:
        agent = Agent(model=ScriptedModel([tool_call("greet", name="Ada"), "done"]), tools=[tools])
        paused = await agent.arun("Go")
        assert paused.status is RunStatus.paused
        paused.requirements[0].confirm()
        assert results(await agent.acontinue_run(paused)) == ["Hello, Ada!"]


async def test_a_process_gets_variables_that_it_is_given_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET_KEY", "hidden")
    async with over_stdio(SERVER, env={"GIVEN": "yes"}) as tools:
        output = await run_with(
            tools, *(tool_call("environment", name=name) for name in ("GIVEN", "SECRET_KEY"))
        )
    assert results(output) == ["yes", "(not set)"]


async def test_headers_are_sent_with_each_request() -> None:
    with serving(SERVER) as (url, _):
        async with MCPTools(url=url, headers={"X-Test": "told"}) as tools:
            output = await run_with(tools, tool_call("header", name="x-test"))
    assert results(output) == ["told"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "a command or a url"),
        ({"command": "server", "url": "http://localhost/mcp"}, "a command or a url"),
        ({"command": ""}, "the command is empty"),
        ({"command": "server", "transport": "streamable-http"}, "transport='stdio'"),
        ({"command": "server", "headers": {"a": "b"}}, "headers apply to a url only"),
        ({"url": "http://localhost/mcp", "transport": "stdio"}, "transport='streamable-http'"),
        ({"url": "http://localhost/mcp", "env": {"a": "b"}}, "env applies to a command only"),
        ({"url": "ftp://localhost/mcp"}, "not an http or https address"),
        ({"command": "server", "timeout_seconds": 0}, "above 0"),
        ({"command": "server", "connect_timeout_seconds": -1}, "above 0"),
    ],
)
def test_what_cannot_work_is_told_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MCPTools(**arguments)


def test_an_unknown_keyword_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="comand"):
        MCPTools(comand="server")  # type: ignore[call-arg]  # that is the mistake


def test_without_the_extra_the_constructor_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "kern.tools.mcp.tools.find_spec", lambda name: None if name == "mcp" else find_spec(name)
    )
    with pytest.raises(MissingExtraError, match=r"kern-agents\[mcp\]"):
        MCPTools("server")


def test_repr_shows_no_secret() -> None:
    endpoint = MCPTools(url="https://user:pass@example.com/mcp?key=pass", headers={"Authorization": "pass"})
    assert repr(endpoint) == "MCPTools(name='example.com')"
    assert repr(MCPTools("/usr/bin/server --key pass", env={"KEY": "pass"})) == "MCPTools(name='server')"
