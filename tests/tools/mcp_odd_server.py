"""An MCP server over stdio that answers what it is told to, byte by byte.

    python mcp_odd_server.py FOLDER [arguments]

What it sends for a method is in the file FOLDER/<method with _ for />, with @ID@ for the request's id, @ENV@
for the variable TOKEN, and @ARG@ for its last argument. Without a file it answers like any server.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

ANSWERS = {
    "initialize": {
        "protocolVersion": "2025-06-18",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "odd", "version": "1"},
    },
    "tools/list": {"tools": [{"name": "look", "inputSchema": {"type": "object", "properties": {}}}]},
    "tools/call": {"content": [{"type": "text", "text": "fine"}]},
}


def main() -> None:
    folder = Path(sys.argv[1])
    for line in sys.stdin:
        message = json.loads(line)
        method, request = message.get("method"), message.get("id")
        if request is None or method is None:
            continue
        odd = folder / method.replace("/", "_")
        if odd.exists():
            data = odd.read_bytes().replace(b"@ID@", json.dumps(request).encode())
            data = data.replace(b"@ENV@", os.environ.get("TOKEN", "").encode())
            data = data.replace(b"@ARG@", sys.argv[-1].encode())
        elif method in ANSWERS:
            data = json.dumps({"jsonrpc": "2.0", "id": request, "result": ANSWERS[method]}).encode()
        else:
            error = {"code": -32601, "message": "Method not found"}
            data = json.dumps({"jsonrpc": "2.0", "id": request, "error": error}).encode()
        sys.stdout.buffer.write(data + b"\n")
        sys.stdout.buffer.flush()


main()
