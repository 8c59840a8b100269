"""What an answer is wrapped in: compression whose end is missing, and chunks that are all extension."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Awaitable, Callable

import pytest

from kern import Agent, KernError, RunStatus
from kern.models.openai import OpenAIChat
from kern.run.output import RunOutput
from tests.models.raw_server import Wire, head, raw_server

BODY = json.dumps(
    {"choices": [{"message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}]}
).encode()
PIECES = [
    {"choices": [{"delta": {"content": "hello"}}]},
    {"choices": [{"delta": {}, "finish_reason": "stop"}]},
]
EVENTS = b"".join(b"data: " + json.dumps(piece).encode() + b"\n\n" for piece in PIECES)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "two members": ("gzip", lambda data: gzip.compress(data[:30]) + gzip.compress(data[30:])),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
}


def model(url: str) -> OpenAIChat:
    return OpenAIChat("m", base_url=url, api_key="k", max_retries=0, timeout=5)


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize(("encoding", "pack"), PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("missing", [0, 1, 4, 8, 9])
async def test_a_compressed_answer_without_its_end_is_a_cut_one(
    encoding: str, pack: Callable[[bytes], bytes], stream: bool, missing: int
) -> None:
    data = pack(EVENTS if stream else BODY)
    kind = "text/event-stream" if stream else "application/json"
    start = head(f"content-encoding: {encoding}", "connection: close", kind=kind)

    async def answer(wire: Wire) -> None:
        await wire.request()
        await wire.send(start + data[: len(data) - missing])

    async with raw_server(answer) as server:
        agent = Agent(model=model(server.url))
        if not missing:
            assert (await run(agent, stream)).status == RunStatus.completed
            return
        with pytest.raises(KernError):
            await run(agent, stream)


async def run(agent: Agent, stream: bool) -> RunOutput:
    if not stream:
        return await agent.arun("Hi")
    events = agent.arun("Hi", stream=True)
    async for _ in events:
        pass
    assert events.output is not None
    return events.output


async def one_extension(wire: Wire) -> None:
    await wire.send(b"1;")
    while True:
        await wire.send(b"a" * 65536)


async def many_extensions(wire: Wire) -> None:
    while True:
        await wire.send(b"1;" + b"a" * 9000 + b"\r\n \r\n")


async def trailers(wire: Wire) -> None:
    await wire.send(b"1\r\n{\r\n0\r\n")
    while True:
        await wire.send(b"x: " + b"a" * 5000 + b"\r\n")


@pytest.mark.usefixtures("client")
@pytest.mark.parametrize("flood", [one_extension, many_extensions, trailers])
async def test_chunks_that_are_all_extension_are_no_answer(flood: Callable[[Wire], Awaitable[None]]) -> None:
    async def answer(wire: Wire) -> None:
        await wire.request()
        await wire.send(head("transfer-encoding: chunked"))
        await flood(wire)

    async with raw_server(answer) as server:
        with pytest.raises(KernError):
            await Agent(model=model(server.url)).arun("Hi")


@pytest.mark.usefixtures("client")
async def test_an_answer_that_comes_byte_by_byte_is_read() -> None:
    async def answer(wire: Wire) -> None:
        await wire.request()
        body = BODY.replace(b"hello", b"hello" * 20_000)
        chunks = b"".join(b"00000001\r\n%c\r\n" % byte for byte in body)
        await wire.send(head("transfer-encoding: chunked") + chunks + b"0\r\n\r\n")

    async with raw_server(answer) as server:
        assert (await Agent(model=model(server.url)).arun("Hi")).content == "hello" * 20_000
