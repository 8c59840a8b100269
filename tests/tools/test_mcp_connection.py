"""How a connection to an MCP server lives and ends; the server is one of 2025 that starts at once."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from kern.agent import Agent
from kern.errors import ToolError, UsageError
from kern.testing import ScriptedModel, no_leaks, tool_call
from kern.tools.mcp import MCPTools
from tests.tools.mcp_running import OLD_SERVER, gone, over_stdio, results, run_with, says, serving, until

ROOT = Path(__file__).resolve().parents[2]


async def pid(tools: MCPTools) -> int:
    return int(results(await run_with(tools, tool_call("pid")))[0] or "")


def owners() -> list[str]:
    """The names of the tasks that have a connection."""
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("kern-mcp-")]


async def test_nothing_is_connected_before_the_first_run_and_nothing_is_left_after_the_context() -> None:
    tools = over_stdio(OLD_SERVER)
    assert owners() == []
    async with no_leaks():
        async with tools:
            server = await pid(tools)
            assert await pid(tools) == server
            assert len(owners()) == 1
        assert gone(server)()


async def test_without_a_context_it_is_connected_by_the_first_run_and_closed_on_demand() -> None:
    tools = over_stdio(OLD_SERVER)
    async with no_leaks():
        first = await pid(tools)
        await tools.aclose()
        await until(gone(first))
        second = await pid(tools)
        assert second != first
        await tools.aclose()
        await tools.aclose()
        await until(gone(second))


async def test_what_nobody_holds_any_more_is_closed() -> None:
    async with no_leaks():
        server = await pid(over_stdio(OLD_SERVER))
        while not gone(server)():  # what is still ending may refer to it at first
            gc.collect()
            await asyncio.sleep(0.01)


async def test_all_pages_of_a_list_are_read_and_a_change_of_the_list_is_heard() -> None:
    async with over_stdio(OLD_SERVER) as tools:
        assert list((await tools.load()).functions) == ["pid", "header", "wait", "die", "grow", "refuse"]
        await run_with(tools, tool_call("grow"))
        assert "grown" in (await tools.load()).functions


async def test_a_refusal_by_the_protocol_is_told_to_the_model() -> None:
    async with over_stdio(OLD_SERVER, name="antique") as tools:
        output = await run_with(tools, tool_call("refuse"))
    assert output.tools[0].tool_call_error
    assert results(output) == ["ToolError: the MCP server antique: tools/call is not for me"]


async def test_a_call_that_takes_too_long_is_cancelled_at_the_server_and_the_connection_stays(
    tmp_path: Path,
) -> None:
    mark = tmp_path / "mark"
    async with over_stdio(OLD_SERVER, timeout_seconds=0.2, name="slow") as tools:
        before = await pid(tools)
        output = await run_with(tools, tool_call("wait", mark=str(mark)))
        assert results(output) == [
            "ToolTimeoutError: wait on the MCP server slow took longer than its timeout of 0.2 s"
        ]
        await until(says(mark, "cancelled"))
        assert await pid(tools) == before


async def test_when_the_server_dies_in_a_call_the_call_fails_and_the_next_one_connects_anew() -> None:
    async with over_stdio(OLD_SERVER, name="mortal") as tools:
        before = await pid(tools)
        output = await run_with(tools, tool_call("die"), tool_call("pid"))
        assert results(output)[0] == "ToolError: the MCP server mortal: Connection closed"
        after = int(results(output)[1] or "")
        assert after != before
        assert owners() == ["kern-mcp-mortal"]
    await until(gone(after))


async def test_when_the_server_dies_between_two_calls_no_call_fails() -> None:
    async with over_stdio(OLD_SERVER) as tools:
        before = await pid(tools)
        os.kill(before, signal.SIGKILL)
        await until(lambda: not owners())
        assert await pid(tools) != before


async def test_when_the_server_dies_all_calls_on_their_way_fail(tmp_path: Path) -> None:
    async with over_stdio(OLD_SERVER) as tools:
        server = await pid(tools)
        marks = [tmp_path / "one", tmp_path / "two"]
        runs = [asyncio.create_task(run_with(tools, tool_call("wait", mark=str(mark)))) for mark in marks]
        for mark in marks:
            await until(says(mark, "started"))
        os.kill(server, signal.SIGKILL)
        for run in runs:
            assert "Connection closed" in (results(await run)[0] or "")


async def test_closing_fails_the_calls_on_their_way(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    tools = over_stdio(OLD_SERVER)
    async with no_leaks():
        run = asyncio.create_task(run_with(tools, tool_call("wait", mark=str(mark))))
        await until(says(mark, "started"))
        await tools.aclose()
        assert "Connection closed" in (results(await run)[0] or "")


async def test_a_run_that_is_cancelled_while_it_connects_does_not_take_the_connection_from_others() -> None:
    tools = over_stdio(OLD_SERVER, env={"DELAY": "0.3"})
    async with no_leaks(), aclosing(tools):
        first = asyncio.create_task(pid(tools))
        second = asyncio.create_task(pid(tools))
        await until(lambda: bool(owners()))
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await second
        assert len(owners()) == 1


async def test_closing_while_it_connects_does_not_wait_for_the_connection() -> None:
    tools = over_stdio(OLD_SERVER, env={"DELAY": "600"})
    async with no_leaks():
        run = asyncio.create_task(pid(tools))
        await until(lambda: bool(owners()))
        await tools.aclose()
        with pytest.raises(ToolError, match="the connection is closed"):
            await run


async def test_a_server_that_does_not_answer_in_time_fails_the_run() -> None:
    tools = over_stdio(OLD_SERVER, env={"DELAY": "600"}, connect_timeout_seconds=0.5, name="mute")
    async with no_leaks():
        with pytest.raises(ToolError, match=r"mute cannot be used: .* not connected within 0\.5 s"):
            await tools.__aenter__()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["no-such-program-anywhere"], "FileNotFoundError"),
        ([sys.executable, "-c", "raise SystemExit(1)"], "Connection closed; its program has ended"),
        ([sys.executable, "-c", "print('I am no server')"], "Connection closed"),
    ],
)
async def test_a_program_that_is_no_server_fails_the_run(command: list[str], message: str) -> None:
    async with no_leaks():
        with pytest.raises(ToolError, match=message) as caught:
            await run_with(MCPTools(command, name="none"))
        assert "the MCP server none cannot be used" in str(caught.value)
        assert caught.value.run_output.error_type == "ToolError"


async def test_an_address_where_nobody_listens_fails_the_run_and_the_next_run_tries_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    tools = MCPTools(url=f"http://127.0.0.1:{port}/mcp")
    async with no_leaks():
        for _ in range(2):
            with pytest.raises(ToolError, match="ConnectError"):
                await run_with(tools)
        with serving(OLD_SERVER, PORT=str(port)) as (_, process):
            assert await pid(tools) == process.pid
            await tools.aclose()


async def test_a_server_over_http_that_forgot_the_session_is_connected_to_anew() -> None:
    with serving(OLD_SERVER) as (url, process):
        tools = MCPTools(url=url, headers={"X-Test": "told"})
        async with no_leaks():
            output = await run_with(tools, tool_call("pid"), tool_call("header", name="x-test"))
            assert results(output) == [str(process.pid), "told"]
            process.kill()
            process.wait()
            port = url.split(":")[2].removesuffix("/mcp")
            with serving(OLD_SERVER, PORT=port) as (_, restarted):
                output = await run_with(tools, tool_call("pid"), tool_call("pid"))
                assert results(output) == [str(restarted.pid), str(restarted.pid)]
                await until(lambda: len(owners()) == 1)  # the old one is left
                await tools.aclose()


async def test_a_server_over_http_that_is_gone_fails_the_call_and_the_next_run() -> None:
    with serving(OLD_SERVER) as (url, process):
        tools = MCPTools(url=url)
        async with no_leaks():
            await pid(tools)
            process.kill()
            process.wait()
            output = await run_with(tools, tool_call("pid"))
            assert "Connection closed" in (results(output)[0] or "")
            with pytest.raises(ToolError, match="ConnectError"):
                await pid(tools)


async def test_tools_may_be_included_excluded_and_prefixed() -> None:
    async with over_stdio(OLD_SERVER, include_tools=["pid", "wait"], exclude_tools=["wait"]) as tools:
        assert list((await tools.load()).functions) == ["pid"]
    async with over_stdio(OLD_SERVER, include_tools=["pid"], tool_name_prefix="my.old") as tools:
        assert results(await run_with(tools, tool_call("my_old_pid"))) != []
        assert list((await tools.load()).functions) == ["my_old_pid"]


async def test_a_name_that_is_none_of_the_servers_is_told() -> None:
    async with no_leaks():
        with pytest.raises(
            UsageError, match="include_tools names unknown tools: nothing; its tools are: pid"
        ):
            async with over_stdio(OLD_SERVER, include_tools=["nothing"]):
                pass


async def test_two_servers_with_tools_of_one_name_need_a_prefix() -> None:
    async with over_stdio(OLD_SERVER) as one, over_stdio(OLD_SERVER) as other:
        with pytest.raises(UsageError, match="two tools are named 'pid'"):
            await Agent(model=ScriptedModel([]), tools=[one, other]).arun("Go")


def test_each_event_loop_has_a_connection_of_its_own_and_closes_it() -> None:
    tools = over_stdio(OLD_SERVER)
    first = asyncio.run(pid(tools))
    second = asyncio.run(pid(tools))
    assert first != second
    for server in (first, second):
        assert gone(server)()


AGENT = f"""
import asyncio, sys
from kern import Agent
from kern.testing import ScriptedModel, tool_call
from kern.tools.mcp import MCPTools

tools = MCPTools([sys.executable, {OLD_SERVER!r}, "stdio"])
agent = Agent(model=ScriptedModel([tool_call("pid"), "done"] * 2), tools=[tools])

def show(output):
    print(output.tools[0].result, flush=True)
"""
PROGRAMS = {
    "asyncio.run": "async def main(): show(await agent.arun('Go'))\nasyncio.run(main())",
    "sync": "show(agent.run('Go'))",
    "a task": (
        "async def main():\n"
        "    global task\n"
        "    show(await agent.arun('Go'))\n"
        "    task = asyncio.create_task(asyncio.sleep(600))\n"
        "asyncio.run(main())"
    ),
    "while it connects": (
        "async def main():\n"
        "    global task\n"
        "    task = asyncio.create_task(tools.load())\n"
        "    while len(asyncio.all_tasks()) < 5: await asyncio.sleep(0.01)\n"
        "asyncio.run(main())"
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_closes_nothing_ends_in_silence_and_leaves_no_server(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", AGENT + PROGRAMS[name]],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=25,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for server in done.stdout.split():
        assert gone(int(server))()


async def test_a_process_that_is_killed_leaves_no_server() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"{AGENT}show(agent.run('Go'))\ninput()",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    server = int(await process.stdout.readline())
    process.kill()
    await process.wait()
    await until(gone(server))
