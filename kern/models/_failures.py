"""Converts HTTP statuses, and exceptions of the HTTP client, into Kern's errors."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from pydantic_core import from_json

from kern._log import one_line
from kern._secrets import mask
from kern.errors import (
    KernError,
    ModelAuthError,
    ModelConnectionError,
    ModelIncompleteError,
    ModelRateLimitError,
    ModelServerError,
    ModelServerStreamError,
    ModelStreamError,
    ModelTimeoutError,
    UsageError,
)
from kern.models._codes import (
    FILTER_CODES,
    FINAL_CODES,
    STATUS_OF_KIND,
    explain,
    is_final,
    kind_inside,
    kind_of_status,
    says_daily_quota,
    says_wrong_key,
)
from kern.models._rpc_status import is_daily_quota, is_wrong_key, retry_delay
from kern.models._switch import is_loopback
from kern.usage import Usage

MAX_RETRY_AFTER = 60.0
"""Seconds. If a provider asks for a longer wait, the request is not retried: the error has `retry_after`."""

_REPR = re.compile(r": <\w+: \d+, message=.*>$", re.DOTALL)
"""What aiohttp appends to the text of a cut response: an object's repr, with a status that was never sent."""

_REQUEST_IDS = ("x-request-id", "request-id", "x-amzn-requestid")

_LONGEST_TEXT = 2_000
_LONGEST_WORD = 200
_LONGEST_QUOTE = 200
_LONGEST_SECRET = 4_000
"""How many characters beyond the cut are searched, since a secret may lie across it."""


@dataclass(slots=True, frozen=True)
class Failure:
    """An attempt that failed.

    Args:
        error: What the caller gets if this was the last attempt.
        cause: The error of the HTTP client.
        again: Whether another attempt may help.
        delay: How many seconds the provider asks to wait; None: Kern chooses.
        sent: Whether the provider has received the whole request, so that it may bill an answer.
    """

    error: KernError
    cause: BaseException | None = field(default=None, repr=False)
    again: bool = True
    delay: float | None = None
    sent: bool = False


class StreamFault(Exception):
    """Raised by a decoder: the answer violates the protocol, or reports an error of the provider.

    Args:
        message: What happened. It is shortened later, after secrets are masked.
        code: The provider's error code.
        status: The HTTP status that the error would have had outside a stream, if the provider says so.
        again: Whether another attempt may help.
        quoting: The bytes that the provider sent; the error quotes their beginning.
    """

    def __init__(
        self,
        message: str,
        code: str | None = None,
        status: int | None = None,
        *,
        again: bool = True,
        quoting: bytes = b"",
    ) -> None:
        super().__init__(f"{message} (code {code})" if code else message)
        self.code = code
        self.status = status
        self.again = again
        self.quoting = quoting


# Why a provider ends an answer early, if the same request would end early again.
_CUT = {
    "max_output_tokens": (
        "the answer was cut: its limit of output tokens is used up, reasoning included; "
        "raise max_output_tokens, ask for less, or let the model reason less"
    ),
    "content_filter": "the provider's content filter cut the answer; change the prompt, or the model",
}


class CutFault(StreamFault):
    """Raised by a decoder: the provider ended the answer early, and would do so again.

    Args:
        reason: "max_output_tokens" or "content_filter".
        usage: The usage of the answer; None if it is unknown.
        content: The text so far.
        word: The reason as the provider names it.
        detail: The provider's explanation.
    """

    def __init__(
        self,
        reason: str,
        usage: Usage | None = None,
        content: str = "",
        *,
        word: str | None = None,
        detail: str = "",
    ) -> None:
        said = f"{reason}, in the provider's word {word!r}" if word and word != reason else reason
        text = f"{_CUT[reason]} (the answer is incomplete: {said})"
        super().__init__(f"{text}: {detail}" if detail else text)
        self.reason = reason
        self.usage = usage
        self.content = content


@dataclass(slots=True, frozen=True)
class Origin:
    """Where a request goes, as its errors name it.

    Args:
        secrets: Texts that no message may repeat, although a server may echo them.
        elsewhere: Whether the host is not the provider's own.
    """

    provider: str
    model: str
    host: str
    secrets: tuple[str, ...] = field(default=(), repr=False)
    elsewhere: bool = False

    @property
    def where(self) -> str:
        """A text for errors that names the host, if the provider's name does not imply it."""
        return f" (answered by {self.host})" if self.elsewhere else ""

    def clean(self, text: str, longest: int = _LONGEST_TEXT) -> str:
        """`text` on one line, with secrets masked, and only then cut to a readable length."""
        text = one_line(mask(text[: longest + _LONGEST_SECRET], self.secrets))
        return text if len(text) <= longest else text[:longest] + " ..."

    def word(self, text: str | None) -> str | None:
        """A code or an id that the provider sent, without secrets, in a short form."""
        return self.clean(text, _LONGEST_WORD) if text else text

    def bare(self, error: BaseException | None) -> BaseException | None:
        """A copy of another library's exception: its class, and its text with secrets masked.

        It has no frames and no attributes, since these hold headers that an error reporter would record.
        """
        if error is None:
            return None
        text = self.clean(_text(error))
        try:
            copy = type(error).__new__(type(error))
            copy.args = (text,)
        except TypeError:  # the class cannot be built from a text
            copy = None
        if copy is None or _text(copy) != text:
            return RuntimeError(f"{type(error).__name__}: {text}")
        return copy

    def connection(self, message: str) -> ModelConnectionError:
        """The connection failed."""
        return ModelConnectionError(self.clean(message), provider=self.provider, model=self.model)

    def timeout(self, message: str) -> ModelTimeoutError:
        """The provider was too slow."""
        return ModelTimeoutError(self.clean(message), provider=self.provider, model=self.model)

    def stream(self, message: str) -> ModelStreamError:
        """The answer is invalid."""
        return ModelStreamError(self.clean(message), provider=self.provider, model=self.model)


def of_fault(fault: StreamFault, origin: Origin, request_id: str | None) -> Failure:
    """The failure of an answer that began with status 200, and then broke off or reported an error."""
    if not isinstance(fault, CutFault) and fault.code in FILTER_CODES:
        fault = CutFault("content_filter", detail=str(fault))
    kind = None if isinstance(fault, CutFault) else kind_inside(fault.code, fault.status)
    text = origin.clean(str(fault))
    if kind is not None:
        text += ", inside of an answer with status 200"
    if fault.quoting:
        quoted = fault.quoting[: _LONGEST_QUOTE + _LONGEST_SECRET].decode(errors="replace")
        text += f": {origin.clean(quoted, _LONGEST_QUOTE)!r}"
    text += origin.where
    if request_id:
        text += f" (request {origin.word(request_id)})"
    if isinstance(fault, CutFault):
        cut = ModelIncompleteError(
            origin.clean(text),
            reason=fault.reason,
            usage=fault.usage,
            content=fault.content,
            provider=origin.provider,
            model=origin.model,
        )
        return Failure(cut, fault.__cause__, again=False)
    again = fault.again and not is_final(fault.code)
    if kind is None:
        return Failure(origin.stream(text), fault.__cause__, again=again)
    error = kind(
        origin.clean(text),
        status=fault.status or STATUS_OF_KIND[kind],
        provider=origin.provider,
        model=origin.model,
        code=origin.word(fault.code),
        request_id=origin.word(request_id),
    )
    passes = kind in (ModelRateLimitError, ModelServerStreamError)
    return Failure(error, fault.__cause__, again=again and passes)


def of_exception(error: Exception, origin: Origin, *, reading: bool) -> Failure | None:
    """The failure that an exception of the HTTP client means; None if the exception is not the client's.

    Exceptions are recognized by the names of their classes, since another client with httpx's interface has
    its own classes with the same names.

    Args:
        error: What was raised.
        origin: Where the request went.
        reading: Whether the status line had arrived, so that the answer was being read.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    host = origin.host
    text = _REPR.sub("", str(error))
    detail = f": {text}" if text else ""
    if "ConnectTimeout" in names:
        return Failure(origin.timeout(f"no connection to {host} in time"), error)
    if "PoolTimeout" in names:
        return Failure(origin.timeout(f"no free connection to {host} in time"), error)
    if "TimeoutException" in names:
        silent = origin.timeout(f"{host} was silent for too long (see `timeout`)")
        return Failure(silent, error, sent="ReadTimeout" in names)
    if "ConnectError" in names:
        here = is_loopback(host.partition(":")[0])
        hint = "; is the server running, and is this its address?" if here else ""
        return Failure(origin.connection(f"no connection to {host}{detail}{hint}"), error)
    if "ProxyError" in names:
        return Failure(origin.connection(f"the proxy on the way to {host} refused{detail}"), error)
    if reading and names & {"RemoteProtocolError", "DecodingError"}:
        return Failure(origin.stream(f"the answer of {host} is cut off or garbled{detail}"), error)
    if names & {"InvalidURL", "UnsupportedProtocol", "LocalProtocolError"}:
        # The exception's text may quote headers, so it is left out. A retry would fail the same way.
        return Failure(
            UsageError(f"the request to {host} is not valid HTTP: check base_url and the headers"),
            again=False,
        )
    if "TransportError" in names:
        return Failure(origin.connection(f"the connection to {host} broke{detail}"), error)
    if "HTTPError" in names:
        return Failure(origin.connection(f"the request to {host} failed{detail}"), error, again=False)
    if names & {"StreamError", "CookieConflict"}:
        return Failure(origin.connection(f"the HTTP client failed{detail}"), error, again=False)
    return None


def of_status(status: int, headers: Mapping[str, str], body: bytes, origin: Origin) -> Failure:
    """The failure of a response whose status is not 2xx."""
    data = _read(body)
    message, code, _ = explain(data)
    code = code or _code_in(headers)
    if 300 <= status < 400:
        message = f"a redirect, which Kern does not follow: check base_url. {message}".strip()
    retry_after = parse_retry_after(headers)
    if retry_after is None:
        retry_after = retry_delay(data)
    wrong_key = is_wrong_key(data) or says_wrong_key(status, message)
    kind = ModelAuthError if wrong_key else kind_of_status(status)
    error = kind(
        origin.clean(message or "no explanation") + origin.where,
        status=status,
        provider=origin.provider,
        model=origin.model,
        code=origin.word(code),
        request_id=origin.word(request_id_of(headers)),
        retry_after=retry_after,
    )
    again = kind in (ModelRateLimitError, ModelServerError)
    # The provider decides whether to retry, if it says so; the official clients read this header as well.
    asked = headers.get("x-should-retry")
    if asked in ("true", "false"):
        again = asked == "true"
    late = retry_after is not None and retry_after > MAX_RETRY_AFTER
    if code in FINAL_CODES or late or is_daily_quota(data) or says_daily_quota(message):
        again = False
    return Failure(error, again=again, delay=retry_after)


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """The provider's id of the request, which its support asks for."""
    return next(filter(None, map(headers.get, _REQUEST_IDS)), None)


def _code_in(headers: Mapping[str, str]) -> str | None:
    """The error code in AWS's header, without the URL that follows it after a colon."""
    return headers.get("x-amzn-errortype", "").partition(":")[0] or None


def _read(body: bytes) -> Any:
    """The JSON value of an error body, or its text if it is not JSON."""
    try:
        return from_json(body)
    except ValueError:
        return body.decode(errors="replace").strip()


def parse_retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """The seconds to wait: `retry-after-ms`, or `Retry-After` as seconds or a date (RFC 9110, 10.2.3)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
    except (TypeError, ValueError):
        return None
    return max(0.0, date.timestamp() - (time.time() if now is None else now))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - some __str__ read attributes that are not set
        return ""
