"""What an MCP server answers over HTTP: statuses, secrets, cookies, and answers without an end."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from kern.errors import ToolError
from kern.testing import tool_call
from kern.tools.mcp import MCPTools
from tests.tools.mcp_running import results, run_with

SECRET = "SECRET-TOKEN-OF-THE-SERVER-12345"
INFO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "s", "version": "1"},
}
TOOLS = {"tools": [{"name": "look", "inputSchema": {"type": "object", "properties": {}}}]}

Answer = Callable[[dict[str, Any]], bytes]


def reply(
    body: bytes | str | dict[str, Any], status: str = "200 OK", kind: str = "application/json"
) -> bytes:
    data = (
        json.dumps(body).encode()
        if isinstance(body, dict)
        else body
        if isinstance(body, bytes)
        else body.encode()
    )
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nset-cookie: sid=1; Path=/\r\n"
        f"content-length: {len(data)}\r\n\r\n"
    ).encode() + data


def works(call: Callable[[dict[str, Any]], bytes]) -> Answer:
    """A server of the protocol of 2025, whose only tool answers with `call`."""

    def answer(message: dict[str, Any]) -> bytes:
        match message.get("method"):
            case "initialize":
                return reply({"jsonrpc": "2.0", "id": message["id"], "result": INFO})
            case "tools/list":
                return reply({"jsonrpc": "2.0", "id": message["id"], "result": TOOLS})
            case "tools/call":
                return call(message)
            case "notifications/initialized":
                return reply("", "202 Accepted")
        error = {"code": -32601, "message": "Method not found"}
        return reply({"jsonrpc": "2.0", "id": message.get("id"), "error": error})

    return answer


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[tuple[str, list[str]]]:
    heads: list[str] = []
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                heads.append(head)
                length = int(head.lower().partition("content-length: ")[2].partition("\r")[0] or 0)
                body = await reader.readexactly(length)
                writer.write(answer(json.loads(body)) if head.startswith("POST") else reply("", "405 No"))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp", heads
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        ("401 Unauthorized", "rejects the credentials"),
        ("403 Forbidden", "do not permit"),
        ("404 Not Found", "older SSE transport"),
        ("405 Method Not Allowed", "older SSE transport"),
        ("500 Internal Server Error", ""),
        ("502 Bad Gateway", ""),
    ],
)
@pytest.mark.parametrize("body", ["why it is", "", "<html>", '{"detail": "why it is"}'])
async def test_a_server_that_cannot_be_used_says_its_status(status: str, hint: str, body: str) -> None:
    kind = (
        "application/json" if body.startswith("{") else "text/html" if body.startswith("<") else "text/plain"
    )
    async with serving(lambda message: reply(body, status, kind)) as (url, _):
        with pytest.raises(ToolError, match=f"cannot be used: MCPError: HTTP {status}") as caught:
            async with MCPTools(url=url):
                pass
    assert hint in str(caught.value)
    assert ("why it is" in str(caught.value)) == ("why" in body)
    assert "html" not in str(caught.value)


async def test_a_call_that_fails_says_its_status_and_the_next_one_may_succeed() -> None:
    answers = [reply("slow down", "429 Too Many Requests", "text/plain"), None]

    def call(message: dict[str, Any]) -> bytes:
        result = {"content": [{"type": "text", "text": "seen"}]}
        return answers.pop(0) or reply({"jsonrpc": "2.0", "id": message["id"], "result": result})

    async with serving(works(call)) as (url, _), MCPTools(url=url) as tools:
        output = await run_with(tools, tool_call("look"), tool_call("look"))
    failed, seen = results(output)
    assert "HTTP 429 Too Many Requests. The server says: slow down" in (failed or "")
    assert seen == "seen"


async def test_what_a_server_says_in_the_protocols_words_stays_as_it_is() -> None:
    def call(message: dict[str, Any]) -> bytes:
        error = {"code": -32602, "message": "no such city"}
        return reply({"jsonrpc": "2.0", "id": message["id"], "error": error}, "400 Bad Request")

    async with serving(works(call)) as (url, _), MCPTools(url=url) as tools:
        assert "no such city" in (results(await run_with(tools, tool_call("look")))[0] or "")


async def test_no_cookie_is_kept() -> None:
    async with (
        serving(works(lambda message: reply("", "500 No"))) as (url, heads),
        MCPTools(url=url) as tools,
    ):
        await run_with(tools, tool_call("look"))
    assert len(heads) > 3
    assert "cookie" not in "".join(heads).lower()


async def test_an_answer_that_is_too_long_fails_its_call_alone() -> None:
    def call(message: dict[str, Any]) -> bytes:
        result = {"content": [{"type": "text", "text": "x" * 100_000}]}
        return reply({"jsonrpc": "2.0", "id": message["id"], "result": result})

    async with serving(works(call)) as (url, _):
        async with MCPTools(url=url, max_answer_bytes=50_000) as tools:
            output = await run_with(tools, tool_call("look"), tool_call("look"))
        assert [("longer than 50,000 bytes" in (text or "")) for text in results(output)] == [True, True]
        async with MCPTools(url=url) as tools:
            assert results(await run_with(tools, tool_call("look"))) == ["x" * 100_000]


async def test_a_secret_that_a_server_repeats_is_not_told() -> None:
    def call(message: dict[str, Any]) -> bytes:
        error = {"code": -32603, "message": f"bad token {SECRET}"}
        return reply({"jsonrpc": "2.0", "id": message["id"], "error": error})

    headers = {"Authorization": f"Bearer {SECRET}"}
    async with serving(works(call)) as (url, heads), MCPTools(url=url, headers=headers) as tools:
        assert SECRET in "".join(heads)
        assert (results(await run_with(tools, tool_call("look")))[0] or "").endswith("bad token ***")
    async with serving(lambda message: reply(f"who is {SECRET}", "401 No", "text/plain")) as (url, _):
        with pytest.raises(ToolError, match=r"who is \*\*\*") as caught:
            await MCPTools(url=url, headers=headers).load()
    assert SECRET not in repr(caught.value)


def test_headers_variables_and_commands_are_in_no_repr() -> None:
    for tools in (
        MCPTools(url=f"http://localhost:1/mcp?key={SECRET}", headers={"Authorization": f"Bearer {SECRET}"}),
        MCPTools(command=["true", "--key", SECRET], env={"GITHUB_TOKEN": SECRET}),
    ):
        shown = (
            repr(tools) + repr(tools._connections._make) + repr(vars(tools)) + repr(vars(tools._connections))
        )
        assert SECRET not in shown


async def test_a_program_gets_its_secrets_and_its_failure_does_not_tell_them() -> None:
    script = "import os, sys; sys.stderr.close(); sys.exit(os.environ['TOKEN'] != sys.argv[1])"
    for command in ([sys.executable, "-c", script, SECRET], ["no-such-program-at-all", SECRET]):
        tools = MCPTools(command=command, env={"TOKEN": SECRET})
        with pytest.raises(ToolError) as caught:
            await tools.load()
        assert SECRET not in repr(caught.value) + repr(caught.value.__cause__) + repr(
            caught.value.__context__
        )
        trace = caught.value.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename != __file__:
                assert SECRET not in repr(trace.tb_frame.f_locals)
            trace = trace.tb_next
