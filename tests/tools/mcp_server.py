"""A real MCP server for tests: `python mcp_server.py stdio`, or `http`, which writes its port to stdout."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

import anyio
import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import (
    AudioContent,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)
from pydantic import Field

server = MCPServer("tests", log_level="CRITICAL")


@server.tool()
def add(a: Annotated[int, Field(description="The first number")], b: int = 1) -> int:
    """Add two numbers."""
    return a + b


@server.tool(structured_output=False)
def greet(name: str) -> str:
    """Greet somebody."""
    return f"Hello, {name}!"


@server.tool()
def pid() -> int:
    """The process that serves."""
    return os.getpid()


@server.tool()
def environment(name: str) -> str:
    """An environment variable."""
    return os.environ.get(name, "(not set)")


@server.tool()
def fail(why: str) -> str:
    """Fail."""
    raise ToolError(why)


@server.tool()
async def wait(mark: str) -> str:
    """Wait for ever; `mark` is a file that tells how far it came."""
    file = Path(mark)
    file.write_text("started")  # noqa: ASYNC240 - tiny
    try:
        await anyio.sleep_forever()
    except anyio.get_cancelled_exc_class():
        file.write_text("cancelled")  # noqa: ASYNC240
        raise
    return ""


@server.tool()
def header(name: str, context: Context[Any]) -> str:
    """A header of the request."""
    return (context.headers or {}).get(name, "(not sent)")


_meeting: dict[str, asyncio.Event] = {}


@server.tool()
async def meet(me: str, other: str) -> str:
    """Return once the other has come, too."""
    _meeting.setdefault(me, asyncio.Event()).set()
    await _meeting.setdefault(other, asyncio.Event()).wait()
    return f"{me} met {other}"


@server.tool()
def die() -> str:
    """End the process in the middle of the call."""
    os._exit(3)


@server.tool(name="files.read/all")
def files_read_all() -> str:
    """A tool whose name no provider takes."""
    return "all files"


@server.tool()
async def grow(context: Context[Any]) -> str:
    """Make one more tool."""

    def grown() -> str:
        """It was not there before."""
        return "I have grown"

    server.add_tool(grown)
    await context.notify_tools_changed()
    return "done"


@server.tool()
def mixture() -> CallToolResult:
    """All kinds of content."""
    return CallToolResult(
        content=[
            TextContent(text="Look:"),
            ImageContent(data="aGVsbG8=", mime_type="image/png"),
            AudioContent(data="aGVsbG8=", mime_type="audio/wav"),
            ResourceLink(name="report", uri="file:///report.txt", description="The report"),
            EmbeddedResource(resource=TextResourceContents(uri="file:///note.txt", text="A note")),
        ],
        structured_content={"seen": 2},
    )


@server.tool()
def names() -> list[str]:
    """A list."""
    return ["milk", "7"]


async def serve_http() -> None:
    listener = socket.create_server(("127.0.0.1", int(os.environ.get("PORT", "0"))))
    app = server.streamable_http_app()
    config = uvicorn.Config(app, log_level="error")
    print(listener.getsockname()[1], flush=True)
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    if sys.argv[1] == "http":
        asyncio.run(serve_http())
    else:
        server.run()
