"""A server that replays exact bytes over a real socket, and a sink that writes down what it is given."""

from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from kern import Agent, RunStatus
from kern.errors import ModelError
from kern.models.base import Model
from tests.clock import pass_time
from tests.played import turns


@dataclass
class Reply:
    """One HTTP answer, byte for byte.

    Args:
        body: The pieces of the body; each is sent in a write of its own.
        chunked: With the chunked encoding, whose end tells a whole body from a cut one.
        cut: The connection is closed before the body's end.
        stall: After the last piece, silence.
        late: The silence is longer than any timeout.
        silent: No answer at all, not even a status.
        refuse: The connection is closed instead of an answer.
    """

    body: Sequence[bytes] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "text/event-stream"
    chunked: bool = True
    cut: bool = False
    stall: bool = False
    late: bool = False
    silent: bool = False
    refuse: bool = False


@dataclass
class Asked:
    path: str
    headers: dict[str, str]
    body: Any


class ReplayServer:
    """Answers each request with the next of `replies`; the last one again when they run out."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.asked: list[Asked] = []
        self.connections = 0
        self.open = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.idle = asyncio.Event()
        self.was_asked = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.idle.clear()
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._answer(reader, writer):
                    pass
        finally:
            writer.close()
            self.open -= 1
            if not self.open:
                self.idle.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.asked.append(Asked(lines[0].split(" ")[1], headers, json.loads(body)))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        self.was_asked.set()
        if reply.silent:
            await reader.read()  # until the client goes
        if reply.refuse or reply.silent:
            return False
        head = {"content-type": reply.content_type, **reply.headers}
        head |= {"transfer-encoding": "chunked"} if reply.chunked else {"connection": "close"}
        text = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        writer.write(f"HTTP/1.1 {reply.status} Whatever\r\n{text}\r\n".encode())
        for piece in reply.body:
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if reply.chunked and piece else piece)
            await writer.drain()
            await asyncio.sleep(0)
        if reply.stall:
            gone = asyncio.ensure_future(reader.read())
            while reply.late and not gone.done():
                pass_time()
                await turns(50)  # of a client that has read what was sent, or goes
            await gone
            return False
        if reply.cut or not reply.chunked:
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


class Sink:
    """Writes down what a model puts in."""

    def __init__(self) -> None:
        self.pieces: list[tuple[str, str]] = []
        self.retries: list[tuple[Exception, int, float]] = []
        self.full = False
        self.drained = 0

    def content(self, text: str) -> None:
        self.pieces.append(("content", text))

    def reasoning(self, text: str) -> None:
        self.pieces.append(("reasoning", text))

    def commentary(self, text: str) -> None:
        self.pieces.append(("commentary", text))

    def retrying(self, error: Exception, attempt: int, delay: float) -> None:
        self.retries.append((error, attempt, delay))

    async def drain(self) -> None:
        self.drained += 1
        self.full = False

    def text(self, kind: str = "content") -> str:
        return "".join(text for what, text in self.pieces if what == kind)


def sse(*events: dict[str, Any] | str) -> bytes:
    """Events as OpenAI writes them: the Responses API names them, the chat API does not."""
    lines = []
    for event in events:
        data = event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)
        name = f"event: {event['type']}\n" if isinstance(event, dict) and "type" in event else ""
        lines.append(f"{name}data: {data}\n\n")
    return "".join(lines).encode()


async def shown_by_a_failure(model: Model, caplog: pytest.LogCaptureFixture, *, stream: bool) -> str:
    """All that a person may read of a run that fails: the model, its events, the error, the log."""
    caplog.set_level(logging.DEBUG)
    agent = Agent(model=model)
    shown: list[str] = [repr(model)]
    try:
        if stream:
            async for event in agent.arun("Hi", stream=True):
                shown.append(repr(event))
                assert event.event != "RunCompleted"
        else:
            output = await agent.arun("Hi")
            shown.append(repr(output))
            assert output.status is not RunStatus.completed
    except ModelError as error:
        shown += [str(error), repr(vars(error)), *traceback.format_exception(error)]
    return "\n".join([*shown, caplog.text])
