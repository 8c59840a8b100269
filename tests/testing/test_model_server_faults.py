"""What goes wrong at a `ModelServer`, when it is told to."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from kern.testing import Answer, Fault, ModelServer, Reply, no_leaks, split_at, split_every, split_randomly

PROTOCOLS: dict[str, dict[str, Any]] = {
    "/responses": {"model": "m", "input": "hi"},
    "/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
}
BROKEN = (httpx.RemoteProtocolError, httpx.ReadError)


class Received:
    """What a client got until its answer ended, or broke."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.error: Exception | None = None

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def deltas(self) -> int:
        return self.body.count(b'"delta":"') + self.body.count(b'"delta":{"content":"w')


async def receive(reply: Reply, path: str = "/responses", *, stream: bool = True) -> Received:
    received = Received()
    async with ModelServer([reply]) as server, httpx.AsyncClient() as client:
        body = {**PROTOCOLS[path], "stream": stream}
        try:
            async with client.stream("POST", server.base_url + path, json=body) as response:
                async for chunk in response.aiter_raw():
                    received.chunks.append(chunk)
        except BROKEN as error:
            received.error = error
    return received


def official(server: ModelServer, *, timeout: float = 30) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=server.base_url, api_key="sk-any", max_retries=0, timeout=timeout)


@pytest.mark.parametrize("path", PROTOCOLS)
@pytest.mark.parametrize("after", [0, 2])
async def test_a_cut_stream_ends_after_its_deltas(path: str, after: int) -> None:
    received = await receive(Answer("w1 w2 w3", pieces=["w1", "w2", "w3"], fault=Fault.cut(after)), path)
    assert received.error is not None
    assert received.deltas == after
    assert b"response.completed" not in received.body
    assert b"[DONE]" not in received.body


@pytest.mark.parametrize("path", PROTOCOLS)
async def test_a_cut_after_all_deltas_leaves_out_the_end(path: str) -> None:
    received = await receive(Answer("", pieces=["w1", "w2"], fault=Fault.cut(99)), path)
    assert received.deltas == 2
    assert b"response.completed" not in received.body
    assert b'"finish_reason":"stop"' not in received.body


@pytest.mark.parametrize("path", PROTOCOLS)
async def test_a_clean_cut_is_good_http_and_a_bad_stream(path: str) -> None:
    received = await receive(Answer("", pieces=["w1", "w2"], fault=Fault.cut(1, clean=True)), path)
    assert received.error is None
    assert received.deltas == 1
    assert b"response.completed" not in received.body


async def test_a_cut_can_fall_on_any_byte() -> None:
    for position in (1, 40, 333):
        received = await receive(Answer("one two", fault=Fault.cut(at_byte=position)))
        assert received.error is not None
        assert len(received.body) == position


async def test_the_official_client_sees_a_cut_stream_as_a_broken_connection() -> None:
    async with ModelServer([Answer("one two", fault=Fault.cut(1))]) as server, official(server) as client:
        stream = await client.responses.create(model="m", input="hi", stream=True)
        with pytest.raises(openai.APIConnectionError):
            async for _ in stream:
                pass


@pytest.mark.parametrize("path", PROTOCOLS)
async def test_an_unstreamed_answer_is_cut_in_the_middle(path: str) -> None:
    received = await receive(Answer("one two", fault=Fault.cut()), path, stream=False)
    assert received.error is not None
    assert len(received.body) > 0


async def test_a_disconnect_comes_before_any_byte() -> None:
    received = await receive(Fault.disconnect())
    assert isinstance(received.error, httpx.RemoteProtocolError)
    assert "without sending a response" in str(received.error)


@pytest.mark.parametrize("path", PROTOCOLS)
@pytest.mark.parametrize("stream", [True, False])
async def test_malformed_json_is_malformed(path: str, stream: bool) -> None:
    received = await receive(Answer("", pieces=["w1", "w2"], fault=Fault.malformed(1)), path, stream=stream)
    assert received.error is None
    if not stream:
        with pytest.raises(ValueError):
            json.loads(received.body)
        return
    bad = 0
    lines = [line[6:] for line in received.body.split(b"\n") if line.startswith(b"data: {")]
    for line in lines:
        try:
            json.loads(line)
        except ValueError:
            bad += 1
    assert bad == 1
    assert received.body.endswith(b"\n\n")


@pytest.mark.parametrize("fault", [Fault.stall(1), Fault.hang(), Fault.stall(at_byte=10)])
async def test_a_stalled_answer_waits_until_the_client_goes(fault: Fault) -> None:
    async with (
        ModelServer([Answer("w1 w2", fault=fault)]) as server,
        no_leaks(server, idle_connections=False),
        official(server, timeout=0.3) as client,
    ):
        with pytest.raises(openai.APITimeoutError):
            async for _ in await client.responses.create(model="m", input="hi", stream=True):
                pass


async def test_a_status_carries_its_headers_and_any_body() -> None:
    fault = Fault.status(
        503, retry_after="Sun, 22 Nov 2026 10:00:00 GMT", body="<h1>no</h1>", headers={"x-a": "b"}
    )
    quota = Fault.status(429, code="insufficient_quota")
    async with ModelServer([fault, quota]) as server, httpx.AsyncClient() as client:
        url, body = f"{server.base_url}/responses", PROTOCOLS["/responses"]
        first = await client.post(url, json=body)
        second = await client.post(url, json=body)
    assert (first.status_code, first.text, first.headers["x-a"]) == (503, "<h1>no</h1>", "b")
    assert first.headers["retry-after"] == "Sun, 22 Nov 2026 10:00:00 GMT"
    assert second.json()["error"]["code"] == second.json()["error"]["type"] == "insufficient_quota"
    assert "retry-after" not in second.headers


@pytest.mark.parametrize("path", PROTOCOLS)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("split", [split_every(1), split_at(10, 100, 10**6), split_randomly(7)])
async def test_a_body_split_anywhere_is_the_same_body(path: str, stream: bool, split: Any) -> None:
    answer = Answer("Grüße, 世界\u2028!", pieces=["Grüße, ", "世界\u2028!"], split=split)
    received = await receive(answer, path, stream=stream)
    assert len(received.chunks) >= 3
    text = received.body.decode()
    if stream:
        pieces = [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: {")]
        assert "Grüße," in json.dumps(pieces, ensure_ascii=False)
        assert "世界\u2028!" in json.dumps(pieces, ensure_ascii=False)
    else:
        assert "Grüße, 世界\u2028!" in json.dumps(json.loads(text), ensure_ascii=False)


async def test_the_official_client_reads_a_stream_of_single_bytes() -> None:
    async with (
        ModelServer([Answer("Grüße, 世界", split=split_every(1))]) as server,
        official(server) as client,
        client.responses.stream(model="m", input="hi") as stream,
    ):
        response = await stream.get_final_response()
    assert response.output_text == "Grüße, 世界"


def test_splitters_lose_nothing() -> None:
    body = bytes(range(256)) * 3
    for split in (
        split_every(7),
        split_at(),
        split_at(0, 5, 5, 10_000),
        split_randomly(1),
        split_randomly(2),
    ):
        assert b"".join(split(body)) == body
    assert list(split_randomly(3)(body)) == list(split_randomly(3)(body))


async def test_latency_and_pace_delay_without_blocking_others() -> None:
    slow = Answer("one two three", latency=0.05, pace=0.05)
    answers = [slow, "quick"]
    async with ModelServer(answers) as server, httpx.AsyncClient() as client:
        url, body = f"{server.base_url}/responses", PROTOCOLS["/responses"]
        first = asyncio.create_task(client.post(url, json={**body, "stream": True}))
        while len(server.requests) < 1:
            await asyncio.sleep(0)
        await client.post(url, json=body)
        assert not first.done()
        assert "response.completed" in (await first).text
