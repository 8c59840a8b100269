"""An MCP server of 2025 in nothing but Python, which starts at once.

    python mcp_old_server.py stdio
    python mcp_old_server.py http

It is made without the package `mcp`, which the client is made with; it tells its tools in pages. Over HTTP it
writes its port to stdout, and knows the sessions that it has begun. Variables: PORT; DELAY, in seconds before
it answers.
https://modelcontextprotocol.io/specification/2025-06-18/basic
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Message = dict[str, Any]
Send = Callable[[Message], None]

ANYTHING = {"type": "object"}
tools = [
    {"name": name, "inputSchema": ANYTHING} for name in ("pid", "header", "wait", "die", "grow", "refuse")
]
waiting: dict[Any, Path] = {}


def text(content: str) -> Message:
    return {"content": [{"type": "text", "text": content}]}


def call(name: str, arguments: Message, request: Any, send: Send, headers: Message) -> Message | None:
    """The result of a tool; None if there is none yet."""
    if name == "die":
        os._exit(3)
    if name == "wait":
        waiting[request] = Path(arguments["mark"])
        waiting[request].write_text("started")
        return None
    if name == "grow":
        tools.append({"name": "grown", "inputSchema": ANYTHING})
        send({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    if name == "header":
        return text(headers.get(arguments["name"].lower(), "(not sent)"))
    return text(str(os.getpid()))


def page(cursor: str | None) -> Message:
    """Two tools."""
    start = int(cursor or 0)
    rest = {"nextCursor": str(start + 2)} if len(tools) > start + 2 else {}
    return {"tools": tools[start : start + 2], **rest}


def answer(message: Message, send: Send, headers: Message) -> None:
    """Send what there is to say to one message."""
    method, params, request = message["method"], message.get("params", {}), message.get("id")
    result: Message | None = None
    if method == "notifications/cancelled" and params["requestId"] in waiting:
        waiting.pop(params["requestId"]).write_text("cancelled")
    elif method == "initialize":
        time.sleep(float(os.environ.get("DELAY", "0")))
        result = {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "old", "version": "1"},
        }
    elif method == "tools/list":
        result = page(params.get("cursor"))
    elif method == "tools/call" and params["name"] != "refuse":
        result = call(params["name"], params.get("arguments", {}), request, send, headers)
    elif request is not None:
        error = {"code": -32601, "message": f"{method} is not for me"}
        send({"jsonrpc": "2.0", "id": request, "error": error})
    if result is not None:
        send({"jsonrpc": "2.0", "id": request, "result": result})


def serve_stdio() -> None:
    def send(message: Message) -> None:
        print(json.dumps(message), flush=True)

    for line in sys.stdin:
        answer(json.loads(line), send, {})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    sessions: set[str | None] = set()

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        headers: dict[str, str] = {}
        if message["method"] == "initialize":
            headers["Mcp-Session-Id"] = str(uuid.uuid4())
            self.sessions.add(headers["Mcp-Session-Id"])
        elif message["method"] != "server/discover" and self.headers["Mcp-Session-Id"] not in self.sessions:
            # With the code that the TypeScript server takes, and so others.
            error = {"code": -32001, "message": "Session not found"}
            self.reply(404, {}, {"jsonrpc": "2.0", "id": None, "error": error})
            return
        sent: list[Message] = []
        answer(message, sent.append, {name.lower(): value for name, value in self.headers.items()})
        if sent:
            self.reply(200, headers, sent[-1])
        else:
            self.reply(202, headers, None)

    def do_GET(self) -> None:
        self.reply(405, {}, None)

    def do_DELETE(self) -> None:
        self.sessions.discard(self.headers["Mcp-Session-Id"])
        self.reply(204, {}, None)

    def reply(self, status: int, headers: dict[str, str], message: Message | None) -> None:
        body = b"" if message is None else json.dumps(message).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve_http() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "0"))), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "http":
        serve_http()
    else:
        serve_stdio()
