"""A client that follows a run over HTTP, and goes on at another server where one has died."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from pydantic_core import from_json

from kern.run.events import Event, event_from_dict

ENDS = ("RunCompleted", "RunError", "RunCancelled", "RunPaused")


class Heard:
    """The texts of all runs, by the one rule for clients."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = defaultdict(str)
        self.kept: dict[str, int] = defaultdict(int)
        """How much of each text is of turns that have completed."""
        self.seen: list[Event] = []

    def add(self, event: Event) -> None:
        self.seen.append(event)
        run_id, kind = event.source.run_id, event.kind
        if kind == "RunContent" and isinstance(event.content, str):
            self.texts[run_id] += event.content
        elif kind in ("ModelRequestCompleted", "ToolCallCompleted"):
            self.kept[run_id] = len(self.texts[run_id])
        elif kind == "ModelRetry":
            self.texts[run_id] = self.texts[run_id][: self.kept[run_id]]
        elif kind == "RunContinued" and event.source.nested_depth == 0:
            for name in self.texts:
                self.texts[name] = self.texts[name][: self.kept[name]]

    @property
    def last(self) -> int:
        return self.seen[-1].seq if self.seen else 0

    @property
    def ended(self) -> bool:
        return bool(self.seen) and self.seen[-1].source.nested_depth == 0 and self.seen[-1].kind in ENDS


async def ask(port: int, request: str, last: int = 0) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{request} HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {last}\r\n\r\n".encode())
    await writer.drain()
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def post(port: int, path: str) -> str:
    reader, writer = await ask(port, f"POST {path}")
    answer = await reader.read()
    writer.close()
    return answer.decode()


async def listen(port: int, run_id: str, heard: Heard, most: int | None = None) -> None:
    """Read server-sent events until the run or the server ends, or there were `most` of them."""
    until = None if most is None else len(heard.seen) + most
    try:
        reader, writer = await ask(port, f"GET /events/{run_id}", heard.last)
    except (ConnectionError, asyncio.IncompleteReadError):
        return  # killed before it has answered
    try:
        while not heard.ended and (line := await reader.readline()):
            if line.startswith(b"data: ") and line.endswith(b"\n"):
                heard.add(event_from_dict(from_json(line[6:])))
                if until is not None and len(heard.seen) >= until:
                    return
    except ConnectionError:
        return
    finally:
        writer.close()
