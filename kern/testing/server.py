"""`ModelServer`: a model provider on the loopback interface, for tests, demonstrations and benchmarks."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import NoReturn, Self, TypeAlias

from pydantic_core import to_json

from kern._error_text import counted
from kern._keywords import ChecksArguments
from kern.errors import UsageError
from kern.testing import (
    _anthropic,
    _anthropic_decode,
    _bedrock,
    _bedrock_decode,
    _chat,
    _gemini,
    _gemini_decode,
    _responses,
)
from kern.testing._decode import decode_chat, decode_responses
from kern.testing._http import HttpConnection, HttpRequest
from kern.testing._refusal import Refused, bearer_key, check_key, error_body
from kern.testing._send import WireProtocol, openai_headers, send_answer, send_whole
from kern.testing.answers import Answer, Reply, as_answer
from kern.testing.request import ReceivedRequest

Respond: TypeAlias = Callable[[ReceivedRequest], Reply | Awaitable[Reply]]
"""A function, sync or async, that returns the answer to a request."""

_HOST = "127.0.0.1"


_PROTOCOLS = (
    WireProtocol("/responses".__eq__, decode_responses, _responses.stream, _responses.whole),
    WireProtocol("/chat/completions".__eq__, decode_chat, _chat.stream, _chat.whole),
    WireProtocol(
        _gemini_decode.matches,
        _gemini_decode.decode,
        _gemini.stream,
        _gemini.whole,
        key=_gemini.given_key,
        refusal=_gemini.refusal,
        headers=_gemini.google_headers,
    ),
    WireProtocol(
        "/messages".__eq__,
        _anthropic_decode.decode,
        _anthropic.stream,
        _anthropic.whole,
        key=_anthropic.given_key,
        refusal=_anthropic.refusal,
        headers=_anthropic.anthropic_headers,
    ),
    WireProtocol(
        _bedrock_decode.matches,
        _bedrock_decode.decode,
        _bedrock.stream,
        _bedrock.whole,
        key=_bedrock.given_key,
        refusal=_bedrock.refusal,
        headers=_bedrock.aws_headers,
        refusal_headers=_bedrock.refusal_headers,
        stream_type=_bedrock.FRAMES,
    ),
)


class ModelServer(ChecksArguments):
    """A real HTTP server on 127.0.0.1 that speaks OpenAI's Responses and Chat Completions protocols,
    Anthropic's Messages API, Google's Gemini API and Amazon Bedrock's Converse API.

    The answers come from a list, in order, or from a function of the request:

        async with ModelServer(["Hello!"]) as server:
            model = OpenAIResponses("gpt-5.2", base_url=server.base_url, api_key="any")

        def play(request: ReceivedRequest) -> Reply:
            return "done" if request.tool_results else tool_call("add_item", item="milk")

        with ModelServer(play) as server: ...

    `async with` serves on the running event loop; `with` serves on a thread of its own, for sync programs.
    If no answer is left for a request, or the function raises, the client receives status 400, which it does
    not retry. The errors are collected in `failures`, and leaving the block raises the first of them, unless
    the block itself raised.

    Args:
        answers: A list of answers and functions, or one function for all requests.
        api_key: The only API key to accept; None accepts any.
        models: The ids of the only models that exist; empty: any id is a model.
        path: The path of the base URL, before "/responses" and the other addresses.
        port: The port; 0 takes a free one.
    """

    def __init__(
        self,
        answers: Iterable[Reply | Respond] | Respond,
        *,
        api_key: str | None = None,
        models: Sequence[str] = (),
        path: str = "/v1",
        port: int = 0,
    ) -> None:
        if isinstance(answers, str):
            raise UsageError(
                "ModelServer needs a list of answers or a function, not a str: ModelServer(['...'])"
            )
        self._respond = answers if callable(answers) else None
        self._script: deque[Reply | Respond] = deque(() if callable(answers) else answers)
        self._api_key = api_key
        self._models = models
        self._path = path.rstrip("/")
        self._port = port
        self._connections: set[HttpConnection] = set()
        self._listener: asyncio.Server | None = None
        self._thread: _ServingThread | None = None
        self.requests: list[ReceivedRequest] = []
        self.failures: list[Exception] = []

    @property
    def base_url(self) -> str:
        """The base URL for clients, such as "http://127.0.0.1:49152/v1".

        Raises:
            UsageError: The server is not running.
        """
        if self._listener is None:
            raise UsageError("the ModelServer is not running: use it in a `with` or `async with` statement")
        return f"http://{_HOST}:{self._port}{self._path}"

    @property
    def open_connections(self) -> int:
        """How many connections are open; a client's pool keeps some that are idle."""
        return len(self._connections)

    @property
    def open_requests(self) -> int:
        """How many requests are being answered now."""
        return sum(connection.busy for connection in tuple(self._connections))

    @property
    def remaining(self) -> int:
        """How many answers of the list are left."""
        return len(self._script)

    def assert_exhausted(self) -> None:
        """Check that there was exactly one request for each answer, and no failure.

        Raises:
            AssertionError: Answers are left, or there were failures.
        """
        if self.failures:
            raise AssertionError(f"failures of the ModelServer: {self.failures}") from self.failures[0]
        if self._script:
            left = f"{counted(len(self._script), 'answers')} left, the next is {self._script[0]!r}"
            raise AssertionError(f"the ModelServer has {left}; requests: {len(self.requests)}")

    async def __aenter__(self) -> Self:
        if self._listener is not None:
            raise UsageError("the ModelServer is running already: use another one, or leave its block first")
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: HttpConnection(self._handle, self._connections), _HOST, self._port, backlog=4096
        )
        self._port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()
        self._raise_failure(error)

    def __enter__(self) -> Self:
        self._thread = _ServingThread(self)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._thread is not None
        self._thread.stop()
        self._thread = None
        self._raise_failure(error)

    async def _close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is None:
            return
        listener.close()
        while self._connections:
            for connection in tuple(self._connections):
                connection.abort()
            await asyncio.sleep(0)
        await listener.wait_closed()

    def _raise_failure(self, error: BaseException | None) -> None:
        if error is None and self.failures:
            raise self.failures[0]

    async def _handle(self, http: HttpRequest, out: HttpConnection) -> None:
        route = http.path.partition("?")[0].removeprefix(self._path)
        protocol = next((protocol for protocol in _PROTOCOLS if protocol.matches(route)), None)
        try:
            await self._route(http, out, route, protocol)
        except Refused as refusal:
            body, headers = (
                (error_body(refusal), openai_headers())
                if protocol is None
                else (
                    protocol.refusal(refusal),
                    {**protocol.headers(), **protocol.refusal_headers(refusal)},
                )
            )
            send_whole(out, refusal.status, body, headers)

    async def _route(
        self, http: HttpRequest, out: HttpConnection, route: str, protocol: WireProtocol | None
    ) -> None:
        if self._api_key is not None:
            key = bearer_key if protocol is None else protocol.key
            check_key(key(http.headers), self._api_key)
        if http.method == "GET" and route == "/models":
            rows = [{"id": m, "object": "model", "created": 0, "owned_by": "kern"} for m in self._models]
            send_whole(out, 200, to_json({"object": "list", "data": rows}), openai_headers())
            return
        if protocol is None or http.method != "POST" or not http.path.startswith(self._path):
            raise Refused(404, f"Invalid URL ({http.method} {http.path})")
        try:
            request = protocol.decode(http)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Refused(400, f"Invalid request: {type(error).__name__}: {error}") from error
        self.requests.append(request)
        if self._models and request.model not in self._models:
            raise Refused(404, model=request.model)
        answer = await self._answer(request)
        await send_answer(out, protocol, request, answer)

    async def _answer(self, request: ReceivedRequest) -> Answer:
        number = len(self.requests)
        try:
            reply: Reply | Respond
            if self._respond is not None:
                reply = self._respond
            elif self._script:
                reply = self._script.popleft()
            else:
                _unexpected(number, request)
            if callable(reply):
                returned = reply(request)
                reply = await returned if inspect.isawaitable(returned) else returned
            return as_answer(reply)
        except Exception as error:  # sent to the client, and raised when the block is left
            self.failures.append(error)
            message = f"ModelServer: {type(error).__name__}: {error}"
            raise Refused(400, message, code="model_server_failure") from error


def _unexpected(number: int, request: ReceivedRequest) -> NoReturn:
    raise UsageError(
        f"the ModelServer has no answer left for request number {number}; its last message is "
        f"{request.messages[-1] if request.messages else None}"
    )


class _ServingThread(threading.Thread):
    """A thread with an event loop that serves until it is stopped."""

    def __init__(self, server: ModelServer) -> None:
        super().__init__(name="kern-model-server", daemon=True)
        self._server = server
        self._ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    def start(self) -> None:
        """Start serving; returns when the port is open."""
        super().start()
        self._ready.result()

    def stop(self) -> None:
        """Stop serving; returns when all connections are closed."""
        loop, stopped = self._ready.result()
        loop.call_soon_threadsafe(stopped.set)
        self.join()

    def run(self) -> None:
        """Run the event loop of the thread."""
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        stopped = asyncio.Event()
        try:
            await self._server.__aenter__()
        except (OSError, OverflowError, UsageError) as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result((asyncio.get_running_loop(), stopped))
        await stopped.wait()
        await self._server._close()
