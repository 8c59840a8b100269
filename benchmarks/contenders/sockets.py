"""The reference for many runs at once: asyncio's own streams, requests written by hand, no HTTP library."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

from benchmarks.contenders import Job, Setup, expect
from benchmarks.contenders.floor import Chat, add_item


def tool_run(setup: Setup) -> Job:
    address = urlsplit(setup.base_url)
    head = (
        f"POST {address.path}{Chat.path} HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json"
    )
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(body: dict[str, Any]) -> Any:
        connection = idle.pop() if idle else await asyncio.open_connection(address.hostname, address.port)
        reader, writer = connection
        data = json.dumps(body).encode()
        writer.write(f"{head}\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        text = await reader.readexactly(length)
        idle.append(connection)
        return json.loads(text)

    async def run(number: int) -> None:
        body = Chat.first(setup.model)
        call_id, _, arguments = Chat.call(body, await post(body))
        Chat.result(body, call_id, add_item(**json.loads(arguments)))
        expect(Chat.text(await post(body)), "done")

    async def close() -> None:
        for _, writer in idle:
            writer.close()

    return Job(run, close=close)
