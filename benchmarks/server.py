"""The model server of the benchmarks: canned bytes as fast as asyncio can send them, in a process of its own.

The answers are those of `kern.testing`, which the tests hold against the official client; here each is made
once and then repeated. The model's name says what is answered, "<kind>[:<number>][@<latency in ms>]":

- "text:5": five words
- "tool": a call of the request's first tool, then, when its result is there, the word "done"
- "leader:8": eight calls at once, one for each member, then "done"
"""

from __future__ import annotations

import asyncio
import functools
import json
import sys
from typing import Any, NamedTuple

from kern.messages import ToolCall
from kern.testing import _chat, _responses
from kern.testing.answers import Answer
from kern.testing.request import ProtocolName, ReceivedRequest


class Asked(NamedTuple):
    """All that an answer depends on."""

    protocol: ProtocolName
    model: str
    stream: bool
    answered: bool
    tools: tuple[tuple[str, str], ...]


@functools.cache
def reply(asked: Asked) -> bytes:
    """The whole HTTP response."""
    request = ReceivedRequest(
        protocol=asked.protocol,
        path="",
        headers={},
        body={"stream_options": {"include_usage": True, "include_obfuscation": False}},
        model=asked.model,
        stream=asked.stream,
        messages=[],
        tools=[],
    )
    wire = _chat if asked.protocol == "chat" else _responses
    answer = _answer(asked)
    head = b"HTTP/1.1 200 OK\r\nx-request-id: req_1\r\ncontent-type: "
    if not asked.stream:
        body = wire.whole(request, answer)
        return b"%bapplication/json\r\ncontent-length: %d\r\n\r\n%b" % (head, len(body), body)
    chunks = [b"%x\r\n%b\r\n" % (len(event.data), event.data) for event in wire.stream(request, answer)]
    return b"%btext/event-stream\r\ntransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n" % (head, b"".join(chunks))


def _answer(asked: Asked) -> Answer:
    kind, _, number = asked.model.partition("@")[0].partition(":")
    if kind == "text":
        count = int(number)
        return Answer("word " * count, pieces=["word "] * count)
    if asked.answered:
        return Answer("done")
    if kind == "tool":
        return Answer(tool_calls=(_call(asked.tools[0], "1"),))
    return Answer(tool_calls=tuple(_delegations(asked.tools, int(number))))


def _delegations(tools: tuple[tuple[str, str], ...], count: int) -> list[ToolCall]:
    """One delegating tool with the member's id, or a tool for each member: frameworks have either."""
    delegate = next((name for name, _ in tools if name.startswith("delegate")), None)
    if delegate is not None:
        return [
            ToolCall(f"call_{n}", delegate, json.dumps({"member_id": f"member-{n}", "task": "count"}))
            for n in range(count)
        ]
    return [_call(tool, str(n)) for n, tool in enumerate(tools[:count])]


def _call(tool: tuple[str, str], call_id: str) -> ToolCall:
    name, schema = tool
    required = json.loads(schema).get("required", ())
    return ToolCall(f"call_{call_id}", name, json.dumps(dict.fromkeys(required, "milk")))


def asked(path: bytes, body: dict[str, Any]) -> Asked:
    """What a request asks for."""
    tools = [tool.get("function", tool) for tool in body.get("tools") or ()]
    if path.endswith(b"/chat/completions"):
        protocol: ProtocolName = "chat"
        answered = body["messages"][-1]["role"] == "tool"
    else:
        protocol = "responses"
        last = body["input"][-1] if isinstance(body["input"], list) else {}
        answered = last.get("type") == "function_call_output"
    return Asked(
        protocol,
        body["model"],
        bool(body.get("stream")),
        answered,
        tuple((tool["name"], json.dumps(tool.get("parameters") or {})) for tool in tools),
    )


class Connection(asyncio.Protocol):
    """One client; requests come one after the other, each whole before it is answered."""

    def __init__(self) -> None:
        self._buffer = b""
        self._length: int | None = None
        self._head = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._length is None:
            self._head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            self._buffer = rest
            self._length = _content_length(self._head)
        if len(self._buffer) < self._length:
            return
        body, self._buffer, self._length = self._buffer[: self._length], b"", None
        question = asked(self._head.split(b" ", 2)[1], json.loads(body))
        delay = float(question.model.partition("@")[2] or 0) / 1000
        if delay:
            asyncio.get_running_loop().call_later(delay, self._transport.write, reply(question))
        else:
            self._transport.write(reply(question))


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise ValueError(f"a request without a length: {head!r}")


async def serve() -> None:
    """Serve until the standard input ends; the port is the first line of the output."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve())
