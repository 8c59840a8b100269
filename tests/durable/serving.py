"""Servers that start runs, go on with them, and tell of any run of their database; they are killed.

Run as a program it forks a server for each line of JSON on its input, and prints its id and port.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import uuid
from contextlib import suppress
from typing import Any

from kern import Agent, Team, tool
from kern.durable import DbJournal
from kern.durable.redis import RedisDeltas
from kern.errors import KernError, SessionBusyError
from kern.models.base import DeltaSink, Model, ModelRequest, ModelResponse
from kern.testing import tool_call
from tests.databases import opened

PACE = 0.004


class Talking(Model):
    """Says many words, other ones each time that it is asked, and calls what it is to call."""

    provider = "played"

    def __init__(self, who: str, *calls: Any) -> None:
        self.id = f"m-{who}"
        self._who = who
        self._calls = calls

    async def respond(self, request: ModelRequest, sink: DeltaSink) -> ModelResponse:
        turn = sum(message.role == "assistant" for message in request.messages)
        words = [f"{self._who}{turn}"] + [uuid.uuid4().hex[:5] for _ in range(15)]
        for number, word in enumerate(words):
            await asyncio.sleep(random.uniform(0, 2) * PACE)
            if request.stream:
                sink.content(f" {word}" if number else word)
        calls = self._calls[turn] if turn < len(self._calls) else ()
        return ModelResponse.of(" ".join(words), *(make() for make in calls))


@tool(effect="read")
async def look(what: str) -> str:
    """Look."""
    await asyncio.sleep(random.uniform(0, 4) * PACE)
    return f"seen {what}"


def team_on(place: str, redis: str | None = None, claim_seconds: float = 0.3, **options: Any) -> Team:
    """The team; what its runs tell between steps goes over Redis if that has a URL."""
    looks = (lambda: tool_call("look", what="a"), lambda: tool_call("look", what="b"))
    members = [Agent(name=m, id=m, model=Talking(m, looks), tools=[look]) for m in ("ann", "bob")]
    tasks = [
        lambda m=m: tool_call("delegate_task_to_member", member_id=m, task="work") for m in ("ann", "bob")
    ]
    db = opened(place)
    deltas = None if redis is None else RedisDeltas(redis, timeout=0.2)
    return Team(
        members,
        id="desk",
        name="desk",
        model=Talking("lead", tasks, looks[:1]),
        tools=[look],
        db=db,
        journal=DbJournal(db, claim_seconds=claim_seconds, deltas=deltas),
        **options,
    )


async def _start(team: Team, run_id: str) -> str:
    """Start the run, or go on with it once its process is known to be dead."""
    for _ in range(400):
        try:
            await team.astart("go", session_id=f"s-{run_id}", run_id=run_id)
        except SessionBusyError:
            await asyncio.sleep(0.05)
        except KernError as error:
            return f"{type(error).__name__}: {error}"
        else:
            return "started"
    return "busy"


async def serve(place: str, redis: str | None, claim_seconds: float, announce: int) -> None:
    """Serve until killed."""
    team = team_on(place, redis, claim_seconds)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        verb, path, _ = head[0].split()
        last = next(int(line.split(": ")[1]) for line in head if line.startswith("Last-Event-ID"))
        run_id = path.rpartition("/")[2]
        kind = "text/plain" if verb == "POST" else "text/event-stream"
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n\r\n".encode())
        if verb == "POST":
            writer.write((await _start(team, run_id)).encode())
        else:
            async for event in team.follow(run_id, after=last):
                writer.write(f"id: {event.seq}\ndata: {event.to_json()}\n\n".encode())
                with suppress(ConnectionError):  # the client has left
                    await writer.drain()
                if writer.is_closing():
                    break
        with suppress(ConnectionError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    os.write(announce, f"{server.sockets[0].getsockname()[1]}\n".encode())
    await server.serve_forever()


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        ears, mouth = os.pipe()
        child = os.fork()
        if child == 0:
            random.seed()
            try:
                asyncio.run(serve(**order, announce=mouth))
            finally:
                os._exit(1)
        os.close(mouth)
        with os.fdopen(ears) as announced:
            print(json.dumps({"pid": child, "port": int(announced.readline() or 0)}), flush=True)


if __name__ == "__main__":
    main()
