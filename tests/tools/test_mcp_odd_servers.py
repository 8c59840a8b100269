"""Servers that send what the protocol does not know, over both transports: what can be used is used."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from kern.errors import ToolError
from kern.testing import tool_call
from kern.tools.mcp import MCPTools
from tests.tools.mcp_running import HERE, results, run_with
from tests.tools.test_mcp_http import reply, serving

LOOK = {"name": "look", "inputSchema": {"type": "object", "properties": {}}}
INFO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "odd", "version": "1"},
}


@asynccontextmanager
async def over_stdio(folder: Path, raw: dict[str, bytes]) -> AsyncIterator[MCPTools]:
    for method, data in raw.items():
        (folder / method.replace("/", "_")).write_bytes(data)
    command = [sys.executable, str(HERE / "mcp_odd_server.py"), str(folder)]
    async with MCPTools(command, name="odd", timeout_seconds=20) as tools:
        yield tools


@asynccontextmanager
async def over_http(raw: dict[str, bytes]) -> AsyncIterator[MCPTools]:
    usual: dict[str, Any] = {"initialize": INFO, "tools/list": {"tools": [LOOK]}}

    def answer(message: dict[str, Any]) -> bytes:
        method, request = message.get("method", ""), message.get("id")
        if request is None:
            return reply("", "202 Accepted")
        if method in raw:
            return reply(raw[method].replace(b"@ID@", json.dumps(request).encode()))
        if method in usual:
            return reply({"jsonrpc": "2.0", "id": request, "result": usual[method]})
        return reply({"jsonrpc": "2.0", "id": request, "error": {"code": -32601, "message": "no"}})

    async with serving(answer) as (url, _), MCPTools(url=url, name="odd", timeout_seconds=20) as tools:
        yield tools


def answered(result: object) -> bytes:
    return b'{"jsonrpc": "2.0", "id": @ID@, "result": ' + json.dumps(result).encode() + b"}"


def texts(*parts: object) -> bytes:
    return answered({"content": list(parts)})


CALLS = {
    "no UTF-8": (
        answered({"content": [{"type": "text", "text": "caf#"}]}).replace(b"#", b"\xe9"),
        "caf\ufffd",
    ),
    "half a surrogate": (texts({"type": "text", "text": "a\ud83db"}), "a\ufffdb"),
    "unknown part": (
        texts({"type": "hologram", "x": 1}, {"type": "text", "text": "and text"}),
        "[a part of the type 'hologram', which cannot be read]\nand text",
    ),
    "odd parts": (
        texts(7, {"type": "image"}, {"type": "text", "text": "t", "annotations": 5}),
        "[a part that cannot be read: int]\n[a part of the type 'image', which cannot be read]\nt",
    ),
    "no base64": (
        texts({"type": "image", "data": "abc", "mimeType": "image/png"}),
        "[image/png, which cannot be read: it is not valid base64]",
    ),
}
BAD_CALLS = {
    "text": (answered("just text"), "not a message of the MCP protocol"),
    "no content": (answered({}), "an invalid answer: content: Field required"),
    "content is a text": (answered({"content": "t"}), "an invalid answer: content"),
    "a message that is none": (
        b'{"jsonrpc": "2.0", "id": @ID@, "error": 5}',
        "not a message of the MCP protocol",
    ),
}


@pytest.mark.parametrize(("call", "shown"), CALLS.values(), ids=CALLS)
async def test_what_can_be_used_of_a_result_is_used(call: bytes, shown: str, tmp_path: Path) -> None:
    async with over_stdio(tmp_path, {"tools/call": call}) as tools:
        assert results(await run_with(tools, tool_call("look"), tool_call("look"))) == [shown, shown]
    async with over_http({"tools/call": call}) as tools:
        assert results(await run_with(tools, tool_call("look"), tool_call("look"))) == [shown, shown]


@pytest.mark.parametrize(("call", "why"), BAD_CALLS.values(), ids=BAD_CALLS)
async def test_a_result_that_is_none_is_an_error_that_names_the_server(
    call: bytes, why: str, tmp_path: Path
) -> None:
    for server in (over_stdio(tmp_path, {"tools/call": call}), over_http({"tools/call": call})):
        async with server as tools:
            first, second = results(await run_with(tools, tool_call("look"), tool_call("look")))
        assert first == second
        assert first is not None
        assert first.startswith("ToolError: the MCP server odd")
        assert why in first
        assert "input_value" not in first


async def test_lines_that_are_no_messages_are_passed_over(tmp_path: Path) -> None:
    lines = b'\xff\xfe\n[1]\n"\\ud83d"\n{"a": "\xe9"}\n' + texts({"type": "text", "text": "after"})
    async with over_stdio(tmp_path, {"tools/call": lines}) as tools:
        assert results(await run_with(tools, tool_call("look"))) == ["after"]


async def test_tools_that_cannot_be_used_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    listed = answered(
        {
            "tools": [
                {"name": "bare", "description": "No schema."},
                {"name": "null", "inputSchema": None},
                {"name": "odd", "inputSchema": {"properties": {}}, "annotations": 5, "outputSchema": "x"},
                {"name": "", "inputSchema": {"type": "object"}},
                {"description": "no name"},
                7,
                LOOK,
                {**LOOK, "description": "once more"},
            ]
        }
    )
    for server in (over_stdio(tmp_path, {"tools/list": listed}), over_http({"tools/list": listed})):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "kern"):
            async with server as tools:
                assert list((await tools.load()).functions) == ["bare", "null", "odd", "look"]
                output = await run_with(tools, tool_call("look"), tool_call("bare"))
        assert results(output) == ["fine", "fine"] or "no" in str(results(output))
        said = [record.getMessage() for record in caplog.records]
        assert [line.partition(": ")[2] for line in said] == [
            "a tool without a name",
            "a tool without a name",
            "a tool without a name",
            "a second tool with the name 'look'",
        ]
        assert all("the MCP server odd" in line for line in said)


async def test_a_list_of_tools_without_an_end_says_so(tmp_path: Path) -> None:
    listed = answered({"tools": [LOOK], "nextCursor": "same"})
    for server in (over_stdio(tmp_path, {"tools/list": listed}), over_http({"tools/list": listed})):
        with pytest.raises(ToolError, match=r"the MCP server odd.* nextCursor comes back to 'same'"):
            async with server:
                pass


async def test_thousands_of_parts_are_one_text(tmp_path: Path) -> None:
    call = texts(*[{"type": "text", "text": "x"}] * 50_000)
    async with over_stdio(tmp_path, {"tools/call": call}) as tools:
        assert results(await run_with(tools, tool_call("look"))) == ["\n".join("x" * 50_000)]


@pytest.mark.parametrize("method", ["ping", "sampling/createMessage"])
async def test_a_server_that_floods_its_client_does_not_hold_up_the_end_of_a_call(method: str) -> None:
    """The next call finds a new connection."""
    calls = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        with suppress(asyncio.IncompleteReadError, asyncio.CancelledError, OSError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                body = await reader.readexactly(
                    int(head.partition("content-length: ")[2].split("\r")[0] or 0)
                )
                message = json.loads(body) if body else {}
                if message.get("method") == "tools/call" and (calls := calls + 1) == 1:
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
                    while True:
                        asked = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {}}
                        writer.write(b"data: " + json.dumps(asked).encode() + b"\n\n")
                        await writer.drain()
                        await asyncio.sleep(0)
                usual = {"initialize": INFO, "tools/list": {"tools": [LOOK]}, "tools/call": {"content": []}}
                result = usual.get(message.get("method"))
                if result is None:
                    writer.write(reply("", "202 Accepted"))
                else:
                    writer.write(reply({"jsonrpc": "2.0", "id": message["id"], "result": result}))
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    async with MCPTools(url=url, name="odd", timeout_seconds=0.5) as tools:
        output = await run_with(tools, tool_call("look"), tool_call("look"))
    server.close()
    assert results(output) == [
        "ToolTimeoutError: look on the MCP server odd took longer than its timeout of 0.5 s",
        "",
    ]


async def test_an_error_with_an_odd_code_does_not_repeat_a_call(tmp_path: Path) -> None:
    said = (
        b'{"jsonrpc": "2.0", "id": @ID@, "error": {"code": 404, "message": "Session not found", "data": 404}}'
    )
    async with over_http({"tools/call": said}) as tools:
        assert results(await run_with(tools, tool_call("look"))) == [
            "ToolError: the MCP server odd: Session not found"
        ]
