"""Sends a request to a provider: one POST, whose answer is fed to a reader, with retries if they can help."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt

from kern._log import named
from kern.errors import KernError, ModelBehaviorError, ModelError
from kern.models._body import Bounds, Reader, is_stream, read_error
from kern.models._body import read as read_body
from kern.models._clients import clients_for
from kern.models._failures import (
    Failure,
    Origin,
    StreamFault,
    of_exception,
    of_fault,
    of_status,
    request_id_of,
)
from kern.models._switch import check_allowed
from kern.models.base import DeltaSink, ModelResponse
from kern.usage import CUT_OFF, Usage

logger = named("kern.models")

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 600.0
FIRST_DELAY = 0.5
LONGEST_DELAY = 8.0


class HttpClient(Protocol):
    """The part of `httpx.AsyncClient` that Kern uses: any client with this `stream` will do."""

    def stream(self, *args: Any, **kwargs: Any) -> AbstractAsyncContextManager[Any]:
        """Send a request; the body of the response is read inside the `async with`."""
        ...


@dataclass(slots=True)
class Post:
    """One request, ready to be sent as often as needed.

    Args:
        url: The full address.
        headers: All headers, authorization included; never shown.
        body: The JSON body.
        origin: Names the provider in errors, and masks secrets.
        timeout: Seconds without a byte after which an attempt fails; None: 600, or the `client`'s own.
        max_retries: Attempts after the first.
        client: The application's HTTP client; None: Kern's shared one.
        total_timeout: Seconds for all attempts together, pauses included; None: no limit.
        bounds: How long the answer may be.
        sign: Returns the request with its signature. It is called for each attempt: a signature has a time.
    """

    url: httpx.URL = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    origin: Origin = field(repr=False)
    timeout: float | None = None
    max_retries: int = 2
    client: HttpClient | None = None
    total_timeout: float | None = None
    bounds: Bounds = field(default_factory=Bounds)
    sign: Callable[[Post], Awaitable[Post]] | None = field(default=None, repr=False)


async def send(post: Post, read: Callable[[bool], Reader], sink: DeltaSink) -> ModelResponse:
    """Send `post`, with retries, and return the answer.

    Args:
        post: The request.
        read: Makes the reader of an attempt; its argument says whether the answer is an event stream.
        sink: Receives deltas and the notices of retries; reading pauses while it is full.

    Raises:
        ModelError: The last attempt failed, or one failed in a way that a retry cannot fix.
        UsageError: The request cannot be sent as it is.
    """
    check_allowed(post.url.host)
    outcome = await (_attempts if post.total_timeout is None else _attempts_in_time)(post, read, sink)
    if isinstance(outcome, Failure):
        raise outcome.error from post.origin.bare(outcome.cause)
    return outcome


async def _attempts(post: Post, read: Callable[[bool], Reader], sink: DeltaSink) -> ModelResponse | Failure:
    outcome = await _attempt(post, read, sink)
    if isinstance(outcome, Failure) and outcome.again and post.max_retries:
        return await _repeat(post, read, sink, outcome)
    return outcome


async def _attempts_in_time(
    post: Post, read: Callable[[bool], Reader], sink: DeltaSink
) -> ModelResponse | Failure:
    limit = asyncio.timeout(post.total_timeout)
    try:
        async with limit:
            return await _attempts(post, read, sink)
    except TimeoutError:
        if not limit.expired():
            raise
    late = f"took longer than {post.total_timeout:g} s (see `total_timeout`)"
    error = post.origin.timeout(f"the request to {post.origin.host} {late}")
    return Failure(_with_usage(error, None, sent=True))


async def _repeat(
    post: Post, read: Callable[[bool], Reader], sink: DeltaSink, first: Failure
) -> ModelResponse | Failure:
    """Retry after the failure `first`. Only retries pay for tenacity's machinery; most requests need none."""
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
    """Seconds to wait: what the provider asked for, or exponential backoff with jitter."""
    asked = _failure(state).delay
    if asked is not None:
        return asked * (1 + 0.1 * random.random())  # noqa: S311 - jitter needs no secure randomness
    longest = min(FIRST_DELAY * 2.0 ** (state.attempt_number - 1), LONGEST_DELAY)
    return longest * (1 - 0.5 * random.random())  # noqa: S311


async def _attempt(post: Post, read: Callable[[bool], Reader], sink: DeltaSink) -> ModelResponse | Failure:
    """Make one attempt; a failure of the provider or the network is returned, not raised."""
    reader: Reader | None = None
    response: httpx.Response | None = None
    if post.sign is not None:
        post = await post.sign(post)
    try:
        async with await _open(post) as response:
            if not response.is_success:
                body = await read_error(response, own=post.client is None)
                return of_status(response.status_code, response.headers, body, post.origin)
            reader = read(is_stream(response))
            await read_body(response, reader, sink, post.bounds, own=post.client is None)
            answer = reader.finish()
        for remark in reader.remarks:
            who = f"{post.origin.provider}/{post.origin.model} at {post.origin.host}"
            logger.warning("%s: %s", who, post.origin.clean(remark))
        return answer
    except StreamFault as fault:
        request_id = request_id_of(response.headers) if response is not None else None
        failure: Failure | None = of_fault(fault, post.origin, request_id)
    except ModelBehaviorError as error:  # its text may quote the provider
        behaved = ModelBehaviorError(post.origin.clean(str(error)))
        return Failure(_with_usage(behaved, reader), again=False)
    except Exception as error:
        failure = of_exception(error, post.origin, reading=response is not None)
        if failure is None:
            raise
    assert failure is not None
    if post.sign is not None:  # the caller does not know the secrets of the signature, so mask them here
        failure = replace(failure, cause=post.origin.bare(failure.cause))
    _with_usage(failure.error, reader, sent=failure.sent)
    if reader is not None and reader.shown:
        return Failure(failure.error, failure.cause, again=False)
    return failure


def _with_usage(error: KernError, reader: Reader | None, *, sent: bool = False) -> KernError:
    """Add the billed usage of the discarded answer to the error of an attempt.

    Args:
        error: The error.
        reader: The reader of the answer; None if no answer arrived.
        sent: Whether the provider may bill an answer of which nothing arrived.
    """
    if isinstance(error, ModelError | ModelBehaviorError) and error.usage is None:
        error.usage = None if reader is None else reader.spent()
        if error.usage is None and sent:
            error.usage = Usage(requests=1, billed={CUT_OFF: 1})
    return error


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
        del options["timeout"]  # the client has its own
    return post.client.stream("POST", str(post.url), **options)  # a str: the client may not know httpx.URL
