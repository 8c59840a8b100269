"""The one way to a provider: a POST, its answer read into a reader, attempts repeated where that helps."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt

from kern.models._clients import clients_for
from kern.models._failures import Failure, Origin, StreamFault, of_exception, of_fault, of_status
from kern.models._switch import check_allowed
from kern.models.base import DeltaSink, ModelResponse

logger = logging.getLogger("kern.models")

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 600.0
FIRST_DELAY = 0.5
LONGEST_DELAY = 8.0
_TAIL_TICK = 0.1  # seconds
_TAIL_TICKS = 5
_LONGEST_ERROR_BODY = 64 * 1024


class HttpClient(Protocol):
    """What we need of an HTTP client: the `stream` of `httpx.AsyncClient`, or of a client made like it."""

    def stream(self, *args: Any, **kwargs: Any) -> AbstractAsyncContextManager[Any]:
        """Send a request; the response's body is read inside the `async with`."""


class Reader(Protocol):
    """Reads one answer: bytes in, pieces into the sink, a `ModelResponse` at the end. No I/O.

    All three raise `StreamFault` when the answer is no valid one.
    """

    @property
    def shown(self) -> bool:
        """A piece was put into the sink: the attempt cannot be repeated."""

    done: bool
    """The answer is whole; what follows on the wire says nothing."""

    def feed(self, chunk: bytes) -> None:
        """Read on."""

    def finish(self) -> ModelResponse:
        """The whole answer, after the last byte."""


@dataclass(slots=True, frozen=True)
class Post:
    """One request, ready to be sent as often as needed.

    Args:
        url: The full address; it holds no secret.
        headers: Authorization included; never shown.
        body: JSON.
        timeout: Seconds of silence until the attempt is given up; None: 600, or the given client's own.
        max_retries: Further attempts after the first.
        client: The application's own client; None: one of ours.
    """

    url: httpx.URL = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    origin: Origin = field(repr=False)
    timeout: float | None = None
    max_retries: int = 2
    client: HttpClient | None = None


async def send(post: Post, read: Callable[[bool], Reader], sink: DeltaSink) -> ModelResponse:
    """Send `post`, several times if need be, and return the answer.

    Args:
        post: The request.
        read: Makes the reader of an attempt; told whether the answer comes as an event stream.
        sink: Told of retries, and waited for when it is full.

    Raises:
        ModelError: The last attempt's, or the first one's that no repetition mends.
        UsageError: The request cannot be sent as it is.
    """
    check_allowed(post.url.host)
    outcome = await _attempt(post, read, sink)
    if isinstance(outcome, Failure) and outcome.again and post.max_retries:
        outcome = await _repeat(post, read, sink, outcome)
    if isinstance(outcome, Failure):
        raise outcome.error from post.origin.bare(outcome.cause)
    return outcome


async def _repeat(
    post: Post, read: Callable[[bool], Reader], sink: DeltaSink, first: Failure
) -> ModelResponse | Failure:
    """The attempts after the first, which has failed with `first`: only they need tenacity's machinery."""
    results = iter((first,))

    async def attempt() -> ModelResponse | Failure:
        return next(results, None) or await _attempt(post, read, sink)

    def before_sleep(state: RetryCallState) -> None:
        failure = _failure(state)
        delay = state.upcoming_sleep
        logger.debug("attempt %d failed, again in %.2f s: %s", state.attempt_number, delay, failure.error)
        sink.retrying(failure.error, state.attempt_number, delay)

    retrying = AsyncRetrying(
        sleep=asyncio.sleep,
        stop=stop_after_attempt(post.max_retries + 1),
        wait=_delay,
        retry=retry_if_result(lambda outcome: isinstance(outcome, Failure) and outcome.again),
        before_sleep=before_sleep,
        retry_error_callback=_last,
    )
    outcome: ModelResponse | Failure = await retrying(attempt)
    return outcome


def _failure(state: RetryCallState) -> Failure:
    assert state.outcome is not None
    failure = state.outcome.result()
    assert isinstance(failure, Failure)
    return failure


def _last(state: RetryCallState) -> Failure:
    return _failure(state)


def _delay(state: RetryCallState) -> float:
    """What the provider asked for and a little more, or doubling from `FIRST_DELAY`; spread either way."""
    asked = _failure(state).delay
    if asked is not None:
        return asked * (1 + 0.1 * random.random())  # noqa: S311 - jitter is no secret
    longest = min(FIRST_DELAY * 2.0 ** (state.attempt_number - 1), LONGEST_DELAY)
    return longest * (1 - 0.5 * random.random())  # noqa: S311


async def _attempt(post: Post, read: Callable[[bool], Reader], sink: DeltaSink) -> ModelResponse | Failure:
    """One request and its answer; a failure that is the provider's or the wire's comes back as a value."""
    reader: Reader | None = None
    response: httpx.Response | None = None
    try:
        async with await _open(post) as response:
            if not response.is_success:
                body = await _error_body(response)
                return of_status(response.status_code, response.headers, body, post.origin)
            reader = read(response.headers.get("content-type", "").startswith("text/event-stream"))
            await _read(response, reader, sink)
            return reader.finish()
    except StreamFault as fault:
        request_id = response.headers.get("x-request-id") if response is not None else None
        failure: Failure | None = of_fault(fault, post.origin, request_id)
    except Exception as error:
        failure = of_exception(error, post.origin, reading=response is not None)
        if failure is None:
            raise
    assert failure is not None
    if reader is not None and reader.shown:
        return Failure(failure.error, failure.cause, again=False)
    return failure


async def _open(post: Post) -> AbstractAsyncContextManager[httpx.Response]:
    silence = post.timeout or READ_TIMEOUT
    options: dict[str, Any] = {
        "content": post.body,
        "headers": post.headers,
        "follow_redirects": False,
        "timeout": (min(CONNECT_TIMEOUT, silence), silence, silence, silence),
    }
    if post.client is None:
        return (await clients_for(post.url)).stream("POST", post.url, **options)
    if post.timeout is None:
        del options["timeout"]  # the client's own holds
    return post.client.stream("POST", str(post.url), **options)  # it may have a URL class of its own


async def _read(response: httpx.Response, reader: Reader, sink: DeltaSink) -> None:
    """Feed the body to the reader. Once the answer is whole, the rest is read only to keep the connection."""
    # Nothing is to be undone in the usual stream, and one layer less per token is time saved.
    # (A response that a mock transport made has been read already, which only `aiter_bytes` forgives.)
    plain = "content-encoding" not in response.headers and not response.is_stream_consumed
    chunks = response.aiter_raw() if plain else response.aiter_bytes()
    shown = False
    async for chunk in chunks:
        reader.feed(chunk)
        if not shown and reader.shown:
            shown = True
            await asyncio.sleep(0)  # the consumer has the first piece before what came with it is read
        if sink.full:
            await sink.drain()
        if reader.done:
            await _read_tail(chunks)
            return


async def _read_tail(chunks: AsyncIterator[bytes]) -> None:
    """Read what follows the answer, for a few ticks of the clock.

    Not for their sum at one go: on a loop that is late by more than that, the end of the stream would be
    there but not yet seen, and just when much is going on connections would be thrown away.
    """
    loop = asyncio.get_running_loop()
    ticks = 0
    timer: asyncio.TimerHandle

    def tick() -> None:
        nonlocal ticks, timer
        ticks += 1
        if ticks < _TAIL_TICKS:
            timer = loop.call_later(_TAIL_TICK, tick)
        else:
            patience.reschedule(loop.time())

    timer = loop.call_later(_TAIL_TICK, tick)
    try:
        async with asyncio.timeout(None) as patience:
            async for _ in chunks:
                pass
    except TimeoutError:
        return  # the server keeps the stream open; the connection is closed instead of kept
    except Exception as error:
        if of_exception(error, Origin("", "", ""), reading=True) is None:
            raise
    finally:
        timer.cancel()


async def _error_body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _LONGEST_ERROR_BODY:
            break
    return bytes(body)
