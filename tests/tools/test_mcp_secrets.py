"""What a server repeats of its token is seen nowhere: by the model, people, logs, or in stored rows."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kern import Agent, KernError
from kern.db.sqlite import SqliteDb
from kern.models.base import ModelRequest
from kern.testing import FunctionModel, tool_call
from kern.tools.mcp import MCPTools
from kern.tools.mcp.server import is_secret
from tests.tools.mcp_running import HERE
from tests.tools.test_mcp_http import reply, serving
from tests.tools.test_mcp_odd_servers import INFO, LOOK

TOKEN = "tok-abcdefgh/12345678+ijkl"
OTHER = "other-98765432-secret"
SAID = f"Bearer {TOKEN}; {OTHER}"


def with_id(result: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": "@ID@", "result": result}


def text(said: str, **more: object) -> dict[str, object]:
    return with_id({"content": [{"type": "text", "text": said}], **more})


def failed(error: object) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": "@ID@", "error": error}


CALLS: dict[str, object] = {
    "plain": text(f"you sent {SAID}"),
    "json in text": text(json.dumps({"sent": SAID}).replace("/", "\\/")),
    "isError": text(f"denied: {SAID}", isError=True),
    "structured": with_id({"content": [], "structuredContent": {SAID: [SAID]}}),
    "resource": with_id({"content": [{"type": "resource", "resource": {"uri": "a:b", "text": SAID}}]}),
    "link": with_id({"content": [{"type": "resource_link", "uri": f"http://h/{TOKEN}", "name": SAID}]}),
    "unknown part": with_id({"content": [{"type": SAID, SAID: SAID}]}),
    "content is a text": with_id({"content": SAID}),
    "result is a text": with_id(SAID),
    "isError is a text": text("fine", isError=SAID),
    "id is a text": {"jsonrpc": "2.0", "id": SAID, "result": {"content": []}},
    "error": failed({"code": -1, "message": SAID, "data": SAID}),
    "error is a text": failed(SAID),
    "message is an object": failed({"code": -1, "message": {"x": SAID}}),
    "no JSON": SAID,
    "cut": json.dumps(text(f"{SAID} and {SAID}"))[:-20],
    "a list": [SAID],
}
LISTS: dict[str, object] = {
    "description": with_id({"tools": [{**LOOK, "description": SAID, "title": SAID}]}),
    "schema": with_id({"tools": [{**LOOK, "inputSchema": {"properties": {"a": {"default": SAID}}}}]}),
    "odd": with_id({"tools": [{"name": 7, "x": SAID}, {"name": SAID}, LOOK, {**LOOK, "title": [SAID]}]}),
    "tools is a text": with_id({"tools": SAID}),
    "cursor": with_id({"tools": [LOOK], "nextCursor": SAID}),
}
HANDSHAKES: dict[str, object] = {
    "server": with_id({**INFO, "serverInfo": SAID}),
    "version": with_id({**INFO, "protocolVersion": SAID}),
    "instructions": with_id({**INFO, "instructions": SAID}),
}
CASES = [
    pytest.param({method: data}, id=f"{method} {name}")
    for method, cases in (("tools/call", CALLS), ("tools/list", LISTS), ("initialize", HANDSHAKES))
    for name, data in cases.items()
]


def raw(data: object, request: object) -> bytes:
    said = data if isinstance(data, str) else json.dumps(data)
    return said.replace('"@ID@"', json.dumps(request)).encode()


@asynccontextmanager
async def over_http(odd: dict[str, object], *, stream: bool) -> AsyncIterator[MCPTools]:
    usual: dict[str, Any] = {
        "initialize": INFO,
        "tools/list": {"tools": [LOOK]},
        "tools/call": {"content": []},
    }

    def answer(message: dict[str, Any]) -> bytes:
        method, request = message.get("method", ""), message.get("id")
        if request is None:
            return reply("", "202 Accepted")
        if method not in {*odd, *usual}:
            return reply({"jsonrpc": "2.0", "id": request, "error": {"code": -32601, "message": "no"}})
        data = raw(odd.get(method, with_id(usual.get(method))), request)
        if stream and method in odd:
            note = json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": SAID}})
            return reply(b"data: %b\n\ndata: %b\n\n" % (note.encode(), data), kind="text/event-stream")
        return reply(data)

    headers = {"Authorization": f"Bearer {TOKEN}", "X-Other": OTHER}
    async with serving(answer) as (url, _):
        yield MCPTools(url=url, headers=headers, timeout_seconds=2, connect_timeout_seconds=3)


@asynccontextmanager
async def over_stdio(odd: dict[str, object], folder: Path) -> AsyncIterator[MCPTools]:
    for method, data in odd.items():
        (folder / method.replace("/", "_")).write_bytes(raw(data, "@ID@").replace(b'"@ID@"', b"@ID@"))
    command = [sys.executable, str(HERE / "mcp_odd_server.py"), str(folder), "--token", OTHER]
    yield MCPTools(command, env={"TOKEN": TOKEN}, timeout_seconds=2, connect_timeout_seconds=3)


@pytest.mark.parametrize("odd", CASES)
@pytest.mark.parametrize("transport", ["stdio", "json", "stream"])
async def test_a_token_that_a_server_repeats_is_seen_nowhere(
    odd: dict[str, object], transport: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    seen: list[str] = []

    def model(request: ModelRequest) -> Any:
        seen.append(repr(request))
        return "done" if request.messages[-1].role == "tool" else tool_call("look")

    db = SqliteDb(tmp_path / "a.db")
    server = over_stdio(odd, folder) if transport == "stdio" else over_http(odd, stream=transport == "stream")
    with caplog.at_level(logging.DEBUG):
        async with server as tools:
            try:
                output = await Agent(model=FunctionModel(model), tools=[tools], db=db).arun(
                    "x", session_id="s"
                )
                seen.append(output.to_json())
            except KernError as error:
                seen += [*traceback.format_exception(error), repr(error)]
            await tools.aclose()
    await db.aclose()
    seen += [caplog.text, *(repr(vars(record)) for record in caplog.records)]
    seen.append((tmp_path / "a.db").read_bytes().decode(errors="replace"))
    for piece in (TOKEN[:12], TOKEN[-12:], OTHER[:12], json.dumps(TOKEN)[1:-1].replace("/", "\\/")[:14]):
        assert [part[:2000] for part in seen if piece in part] == []


def test_without_any_logging_set_up_nothing_of_it_is_written(tmp_path: Path) -> None:
    program = f"""
import asyncio, sys
sys.path.insert(0, {str(HERE)!r})
from tests.tools.test_mcp_secrets import CALLS, over_http
from tests.tools.mcp_running import run_with
from kern.testing import tool_call
async def main():
    for data in CALLS.values():
        for stream in (False, True):
            async with over_http({{"tools/call": data}}, stream=stream) as tools:
                await run_with(tools, tool_call("look"))
asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ended.stdout + ended.stderr == ""


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("GITHUB_TOKEN", "whatever it is", True),
        ("API_KEY", "whatever it is", True),
        ("DATABASE_URL", "postgresql://me:word@host/db", True),
        ("X", "9f86d081884c7d659a2feaa0c55ad015", True),
        ("", "sk-proj-12345abcdefghijk", True),
        ("GITHUB_ORG", "microsoft", False),
        ("LOG_LEVEL", "debugging", False),
        ("KEY_FILE", "/etc/key/file-1234567890", False),
        ("", "mcp-server-git", False),
        ("", "@modelcontextprotocol/server-everything", False),
        ("--token", "--verbose", False),
    ],
)
def test_what_a_model_has_to_read_is_no_secret(name: str, value: str, secret: bool) -> None:
    assert is_secret(name, value) == secret
