"""`ModelServer` itself: what drives it, who is let in, and how it ends."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx
import openai
import pytest

from kern.errors import UsageError
from kern.testing import Answer, Fault, ModelServer, ReceivedRequest, Reply, no_leaks, tool_call

BODY = {"model": "gpt-5.2", "input": "hi"}


async def ask(client: httpx.AsyncClient, server: ModelServer, **body: Any) -> httpx.Response:
    return await client.post(f"{server.base_url}/responses", json={**BODY, **body})


def official(server: ModelServer, key: str = "sk-any", *, retries: int = 0) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=server.base_url, api_key=key, max_retries=retries)


def text_of(response: httpx.Response) -> str:
    return response.json()["output"][0]["content"][0]["text"]


async def test_a_script_is_consumed_in_order() -> None:
    async with ModelServer(["one", Answer("two"), lambda request: f"you said {request.user_text}"]) as server:
        async with httpx.AsyncClient() as client:
            assert [text_of(await ask(client, server)) for _ in range(3)] == ["one", "two", "you said hi"]
        server.assert_exhausted()


async def test_a_function_plays_the_model_sync_or_async() -> None:
    def play(request: ReceivedRequest) -> Reply:
        return "done" if request.tool_results else tool_call("add", item=request.user_text)

    async def play_later(request: ReceivedRequest) -> Reply:
        await asyncio.sleep(0)
        return f"later: {request.model}"

    async with ModelServer(play) as server, httpx.AsyncClient() as client:
        assert (await ask(client, server)).json()["output"][0]["arguments"] == '{"item":"hi"}'
    async with ModelServer(play_later) as server, httpx.AsyncClient() as client:
        assert text_of(await ask(client, server)) == "later: gpt-5.2"


async def test_answers_that_nobody_asked_for_are_reported() -> None:
    async with ModelServer(["one", "two"]) as server, httpx.AsyncClient() as client:
        await ask(client, server)
        with pytest.raises(AssertionError, match="has 1 answer left, the next is 'two'"):
            server.assert_exhausted()


async def test_an_unexpected_request_is_refused_without_a_retry_and_raised_at_the_end() -> None:
    with pytest.raises(UsageError, match="no answer left for request number 2"):
        async with ModelServer(["one"]) as server, official(server, retries=5) as client:
            await client.responses.create(model="m", input="hi")
            with pytest.raises(openai.BadRequestError, match="no answer left"):
                await client.responses.create(model="m", input="hi")
    assert len(server.requests) == 2


async def test_an_error_of_the_function_is_raised_at_the_end() -> None:
    def play(request: ReceivedRequest) -> Reply:
        assert request.user_text == "something else", "not what the test expects"
        return "fine"

    with pytest.raises(AssertionError, match="not what the test expects"):
        async with ModelServer(play) as server, httpx.AsyncClient() as client:
            assert (await ask(client, server)).status_code == 400


async def test_the_blocks_own_error_is_not_hidden_by_a_failure() -> None:
    with pytest.raises(ZeroDivisionError):
        async with ModelServer([]) as server, httpx.AsyncClient() as client:
            await ask(client, server)
            raise ZeroDivisionError


async def test_what_is_no_answer_is_a_failure_that_says_so() -> None:
    with pytest.raises(TypeError, match="not 7"):
        async with ModelServer([7]) as server, httpx.AsyncClient() as client:
            await ask(client, server)


def test_one_text_is_no_script() -> None:
    with pytest.raises(UsageError, match="a list of answers"):
        ModelServer("Hello")


async def test_only_the_right_key_is_let_in() -> None:
    async with ModelServer(["in"], api_key="sk-right") as server:
        for key, status in ((None, 401), ("sk-wrong", 401), ("sk-right", 200)):
            headers = {} if key is None else {"authorization": f"Bearer {key}"}
            async with httpx.AsyncClient(headers=headers) as client:
                response = await ask(client, server)
            assert response.status_code == status
            assert "sk-wrong" not in response.text


async def test_the_official_client_maps_the_errors() -> None:
    faults = [Fault.status(429, retry_after=0.0), Fault.status(500), Fault.status(400, message="too long")]
    errors = [openai.RateLimitError, openai.InternalServerError, openai.BadRequestError]
    async with (
        ModelServer(faults, api_key="sk-right", models=["gpt-5.2"]) as server,
        official(server, "sk-wrong") as wrong,
        official(server, "sk-right") as right,
    ):
        with pytest.raises(openai.AuthenticationError) as refused:
            await wrong.responses.create(model="gpt-5.2", input="hi")
        assert refused.value.code == "invalid_api_key"
        with pytest.raises(openai.NotFoundError, match="`gpt-9` does not exist") as missing:
            await right.responses.create(model="gpt-9", input="hi")
        assert missing.value.code == "model_not_found"
        hi: Any = [{"role": "user", "content": "hi"}]
        for error in errors:
            with pytest.raises(error) as failed:
                await right.chat.completions.create(model="gpt-5.2", messages=hi)
            assert failed.value.request_id
        assert "too long" in str(failed.value)


async def test_the_official_client_tries_again_after_429() -> None:
    async with ModelServer([Fault.status(429, retry_after="0.01"), "at last"]) as server:
        async with official(server, retries=1) as client:
            assert (await client.responses.create(model="m", input="hi")).output_text == "at last"
        server.assert_exhausted()


async def test_the_models_are_listed() -> None:
    async with ModelServer([], models=["gpt-5.2", "small"]) as server, official(server) as client:
        assert [model.id async for model in client.models.list()] == ["gpt-5.2", "small"]


@pytest.mark.parametrize("path", ["/v1/nothing", "/responses", "/v2/responses"])
async def test_other_addresses_are_not_found(path: str) -> None:
    async with ModelServer([]) as server, httpx.AsyncClient() as client:
        response = await client.post(server.base_url.removesuffix("/v1") + path, json=BODY)
    assert response.status_code == 404
    assert response.json()["error"]["message"] == f"Invalid URL (POST {path})"


@pytest.mark.parametrize(
    "content",
    [b"{", b"[]", b'"x"', b"{}", b'{"model": "m", "input": [{"type": "reasoning", "summary": [{}]}]}'],
)
async def test_a_body_that_is_no_request_is_refused(content: bytes) -> None:
    async with ModelServer([]) as server, httpx.AsyncClient() as client:
        response = await client.post(f"{server.base_url}/responses", content=content)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert server.requests == []


def test_sync_programs_have_it_on_a_thread() -> None:
    with ModelServer(["one", "two"]) as server:
        with openai.OpenAI(base_url=server.base_url, api_key="sk-any") as client:
            assert client.responses.create(model="m", input="hi").output_text == "one"
            with client.responses.stream(model="m", input="hi") as stream:
                assert "".join(e.delta for e in stream if e.type == "response.output_text.delta") == "two"
        server.assert_exhausted()
    assert server.open_connections == 0
    with pytest.raises(UsageError, match="is not running"):
        _ = server.base_url


def test_a_failure_on_the_thread_is_raised_at_the_end() -> None:
    with pytest.raises(UsageError, match="no answer left"), ModelServer([]) as server:
        httpx.post(f"{server.base_url}/responses", json=BODY)


def test_a_port_that_is_taken_is_an_error_and_no_hang() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = ModelServer([], port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"), server:
            pass


async def test_it_listens_on_the_loopback_interface_only() -> None:
    async with ModelServer([]) as server:
        assert server.base_url.startswith("http://127.0.0.1:")
        assert server._listener is not None
        assert [s.getsockname()[0] for s in server._listener.sockets] == ["127.0.0.1"]


async def test_it_stops_with_requests_open() -> None:
    waiting: list[Reply] = [Answer(latency=3600), Answer("a b", pace=3600), Fault.hang()]
    async with httpx.AsyncClient(timeout=None) as client:
        async with ModelServer(waiting) as server:
            asked = [asyncio.create_task(ask(client, server, stream=True)) for _ in range(3)]
            while server.open_requests < 3:
                await asyncio.sleep(0)
        results = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(result, httpx.RemoteProtocolError | httpx.ReadError) for result in results)
    assert server.open_connections == server.open_requests == 0


async def test_a_client_that_goes_away_ends_its_request() -> None:
    cancelled = asyncio.Event()

    async def play(request: ReceivedRequest) -> Reply:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return "never said"

    async with ModelServer(play) as server, no_leaks(server, idle_connections=False):
        async with httpx.AsyncClient() as client:
            asked = asyncio.create_task(ask(client, server))
            while not server.open_requests:
                await asyncio.sleep(0)
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
        await cancelled.wait()


async def test_a_hundred_requests_are_answered_at_once() -> None:
    everybody = asyncio.Event()

    async def play(request: ReceivedRequest) -> Reply:
        if len(server.requests) == 100:
            everybody.set()
        await everybody.wait()
        return request.user_text

    async with ModelServer(play) as server, no_leaks(server, idle_connections=False):
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(limits=limits, timeout=None) as client:
            answers = await asyncio.gather(*(ask(client, server, input=str(i)) for i in range(100)))
    assert [text_of(answer) for answer in answers] == [str(i) for i in range(100)]


async def test_one_connection_serves_many_requests() -> None:
    async with ModelServer(lambda request: "again") as server, httpx.AsyncClient() as client:
        for stream in (False, True, False):
            assert (await ask(client, server, stream=stream)).status_code == 200
        assert server.open_connections == 1
        assert server.open_requests == 0


async def test_a_large_body_and_a_large_answer_pass() -> None:
    text = "word " * 200_000

    def play(request: ReceivedRequest) -> Reply:
        return Answer(request.user_text, pieces=[request.user_text])

    async with ModelServer(play) as server, httpx.AsyncClient(timeout=None) as client:
        assert text_of(await ask(client, server, input=text)) == text


async def test_a_client_that_reads_slowly_gets_everything() -> None:
    pieces = ["x" * 1000] * 5000
    async with ModelServer([Answer("", pieces=pieces)]) as server, httpx.AsyncClient(timeout=None) as client:
        url = f"{server.base_url}/responses"
        async with client.stream("POST", url, json={**BODY, "stream": True}) as response:
            for _ in range(50):
                await asyncio.sleep(0)
            assert server.open_requests == 1
            size = sum([len(chunk) async for chunk in response.aiter_raw()])
    assert size > 5_000_000
